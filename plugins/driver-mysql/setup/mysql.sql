-- MySQL. As an administrator, once for each server. Here `inventory` is the database that accounts
-- are made for, and `app_read_only` what applications get.

-- What applications get. Privileges belong to this role, never to accounts.
CREATE ROLE app_read_only;
GRANT SELECT ON inventory.* TO app_read_only;

-- The broker: it may make, lock and drop accounts, and see and end their sessions.
CREATE USER jit_broker@'%' IDENTIFIED BY '…' REQUIRE SSL;
GRANT CREATE USER, PROCESS, CONNECTION_ADMIN ON *.* TO jit_broker@'%';
-- It finds its accounts by these columns, none of which is an account's current hash.
GRANT SELECT (User, Host, plugin, account_locked, password_expired, User_attributes, Super_priv,
  Create_user_priv, Grant_priv, File_priv, Insert_priv, Update_priv, Delete_priv, Reload_priv,
  Lock_tables_priv, Event_priv, Create_routine_priv, Trigger_priv, Create_view_priv)
  ON mysql.user TO jit_broker@'%';
-- It looks what a role leads to before it hands it out, and takes roles away at a lease's end.
GRANT SELECT ON mysql.db TO jit_broker@'%';
GRANT SELECT ON mysql.global_grants TO jit_broker@'%';
GRANT SELECT ON mysql.role_edges TO jit_broker@'%';
GRANT SELECT ON mysql.default_roles TO jit_broker@'%';
-- It finds sessions by who logged in.
GRANT SELECT ON performance_schema.threads TO jit_broker@'%';
GRANT SELECT ON performance_schema.accounts TO jit_broker@'%';
-- It may hand this role out.
GRANT app_read_only TO jit_broker@'%' WITH ADMIN OPTION;
