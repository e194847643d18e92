-- As a superuser, or as a role that may create roles and databases. Several brokers of one store use this one role.
CREATE ROLE jit_store LOGIN CONNECTION LIMIT 100 PASSWORD '…';
CREATE DATABASE jit_store ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE jit_store FROM PUBLIC;
GRANT CONNECT ON DATABASE jit_store TO jit_store;
\connect jit_store
-- The broker makes its tables in this schema, and nothing outside it.
CREATE SCHEMA jit_broker AUTHORIZATION jit_store;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
