-- MariaDB. As an administrator, once for each server. Here `inventory` is the database that accounts
-- are made for, and `app_read_only` what applications get.

-- What applications get. Privileges belong to this role, never to accounts.
CREATE ROLE app_read_only;
GRANT SELECT ON inventory.* TO app_read_only;

-- The broker: it may make, lock and drop accounts, and see and end their sessions.
CREATE USER jit_broker@'%' IDENTIFIED BY '…' REQUIRE SSL;
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO jit_broker@'%';
-- It finds its accounts here. MariaDB keeps all of an account in one column.
GRANT SELECT ON mysql.user TO jit_broker@'%';
GRANT SELECT ON mysql.global_priv TO jit_broker@'%';
-- It looks what a role leads to before it hands it out, and takes roles away at a lease's end.
GRANT SELECT ON mysql.db TO jit_broker@'%';
GRANT SELECT ON mysql.roles_mapping TO jit_broker@'%';
-- It finds sessions by who logged in, where the server runs with performance_schema=ON.
GRANT SELECT ON performance_schema.threads TO jit_broker@'%';
GRANT SELECT ON performance_schema.accounts TO jit_broker@'%';
-- SET DEFAULT ROLE for another account asks for this, and for nothing less.
GRANT UPDATE ON mysql.* TO jit_broker@'%';
-- It may hand this role out.
GRANT app_read_only TO jit_broker@'%' WITH ADMIN OPTION;
