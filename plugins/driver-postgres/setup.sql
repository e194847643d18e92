-- As a superuser, in the database that accounts are made for. Here `inventory` is that database,
-- `app_read_only` what applications get, `inventory_owner` who keeps what an account leaves behind.

-- What applications get. Privileges belong to this role, never to accounts.
CREATE ROLE app_read_only NOLOGIN;
GRANT CONNECT ON DATABASE inventory TO app_read_only;
GRANT USAGE ON SCHEMA public TO app_read_only;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_read_only;

-- Who keeps the data of removed accounts.
CREATE ROLE inventory_owner NOLOGIN;

-- The broker: it may make roles, and nothing else.
CREATE ROLE jit_broker LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD '…';
-- It may hand this role out.
GRANT app_read_only TO jit_broker WITH ADMIN OPTION;
-- It may give this role what an account owned (REASSIGN OWNED).
GRANT inventory_owner TO jit_broker;
