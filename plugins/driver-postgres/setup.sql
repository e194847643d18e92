-- As a superuser, in the database that accounts are made for. Here `inventory` is that database,
-- `app_read_only` and `app_read_write` what applications get, `inventory_owner` who keeps the data that
-- an account leaves behind.

-- What applications get. Privileges belong to these roles, never to accounts.
CREATE ROLE app_read_only NOLOGIN;
GRANT CONNECT ON DATABASE inventory TO app_read_only;
GRANT USAGE ON SCHEMA public TO app_read_only;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_read_only;

-- The same with the right to write, and to make tables.
CREATE ROLE app_read_write NOLOGIN;
GRANT CONNECT ON DATABASE inventory TO app_read_write;
GRANT USAGE, CREATE ON SCHEMA public TO app_read_write;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app_read_write;

-- Who keeps the data of removed accounts: a role of its own, without login, power or memberships.
CREATE ROLE inventory_owner NOLOGIN;
-- It needs room wherever accounts may make things.
GRANT USAGE, CREATE ON SCHEMA public TO inventory_owner;

-- The broker: it may make roles, and nothing else.
CREATE ROLE jit_broker LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD '…';
-- Sessions of this role call no function from a schema that others can write to.
ALTER ROLE jit_broker SET search_path = pg_catalog;
-- It may hand these roles out.
GRANT app_read_only, app_read_write TO jit_broker WITH ADMIN OPTION;
-- It may give this role what an account owned (REASSIGN OWNED).
GRANT inventory_owner TO jit_broker;
