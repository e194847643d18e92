-- A database for trying the driver, as a superuser. Put passwords of your own in place of each '…'.
-- fixture.toml names what this makes. Never use a database that people work with.

CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL);

-- What accounts become members of.
CREATE ROLE readers NOLOGIN;
GRANT SELECT ON items TO readers;

-- The broker: it may make roles, hand this one out, and end sessions.
CREATE ROLE jit_broker LOGIN CREATEROLE PASSWORD '…';
GRANT readers TO jit_broker WITH ADMIN OPTION;
GRANT pg_signal_backend TO jit_broker;

-- Somebody who may make no accounts: the driver has to say so.
CREATE ROLE nobody_special LOGIN PASSWORD '…';
