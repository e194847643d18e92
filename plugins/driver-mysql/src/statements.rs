//! Every statement that the driver runs. An operator reads them with
//! `jit-broker plugin list --statements`; the host runs no other.
//!
//! Columns are given as text. An account is `'user'@'host'`, both literals.

jit_plugin::statements! {
    /// All of them.
    pub(crate) const ALL;

    /// (none)
    SERVER = "SELECT VERSION(), CURRENT_USER(), @@performance_schema";

    // MySQL. One statement, which takes effect as a whole or not at all: `DEFAULT ROLE` grants the
    // roles, too.
    /// name, host, hash, roles, most sessions
    CREATE = "CREATE USER {}@{} IDENTIFIED WITH caching_sha2_password AS {} DEFAULT ROLE {} \
              REQUIRE NONE WITH MAX_USER_CONNECTIONS {}";

    /// name, host, hash, roles, most sessions
    CREATE_TLS = "CREATE USER {}@{} IDENTIFIED WITH caching_sha2_password AS {} DEFAULT ROLE {} \
                  REQUIRE SSL WITH MAX_USER_CONNECTIONS {}";

    // MariaDB, in three steps.
    /// name, host, hash, most sessions
    CREATE_MARIADB = "CREATE USER {}@{} IDENTIFIED VIA mysql_native_password USING {} \
                      REQUIRE NONE WITH MAX_USER_CONNECTIONS {}";

    /// name, host, hash, most sessions
    CREATE_TLS_MARIADB = "CREATE USER {}@{} IDENTIFIED VIA mysql_native_password USING {} \
                          REQUIRE SSL WITH MAX_USER_CONNECTIONS {}";

    /// role, name, host
    GRANT_MARIADB = "GRANT {} TO {}@{}";

    /// role, name, host
    DEFAULT_ROLE_MARIADB = "SET DEFAULT ROLE {} FOR {}@{}";

    // Its hash has no form that keeps the current password: the one place where a password itself
    // is sent. The server writes it to no log.
    /// name, host, password
    STAGE = "ALTER USER {}@{} IDENTIFIED BY {} RETAIN CURRENT PASSWORD";

    // From 8.0.21 on the account itself keeps which sessions were there before: they are ended when the
    // old password is.
    /// name, host, attribute
    SET_MARK = "ALTER USER {}@{} ATTRIBUTE {}";

    /// (none)
    LATEST_SESSION = "SELECT MAX(id) FROM information_schema.processlist";

    /// name, host
    MARK = "SELECT JSON_EXTRACT(User_attributes, '$.metadata.jit_broker.sessions_before') \
            FROM mysql.user WHERE User = {} AND Host = {}";

    // Taking an account back from who changed it.
    /// name, host, password
    REPLACE = "ALTER USER {}@{} IDENTIFIED BY {}";

    /// name, host
    UNLOCK = "ALTER USER {}@{} ACCOUNT UNLOCK";

    // An account may set its own default roles, to none.
    /// name, host, name, host
    ROLES_AND_DEFAULTS = "SELECT (SELECT COUNT(*) FROM mysql.role_edges WHERE TO_USER = {} AND TO_HOST = {}), \
                          (SELECT COUNT(*) FROM mysql.default_roles WHERE USER = {} AND HOST = {})";

    /// name, host
    ALL_DEFAULT = "ALTER USER {}@{} DEFAULT ROLE ALL";

    /// name, host
    DISCARD = "ALTER USER {}@{} DISCARD OLD PASSWORD";

    /// name, host, hash
    SET_PASSWORD_MARIADB = "ALTER USER {}@{} IDENTIFIED VIA mysql_native_password USING {}";

    /// name, host
    LOCK = "ALTER USER IF EXISTS {}@{} ACCOUNT LOCK";

    /// name, host
    DROP = "DROP USER IF EXISTS {}@{}";

    // By name alone: the target's `host` may have been another one when the account was made.
    // MariaDB keeps roles in the same table, without a host.
    /// name
    HOSTS = "SELECT Host FROM mysql.user WHERE User = {} AND Host <> '' ORDER BY Host LIMIT 16";

    // What runs with the account's rights after its lock: the roles that are active for a definer are
    // its default ones.
    /// name, host
    NO_DEFAULT_ROLE = "ALTER USER {}@{} DEFAULT ROLE NONE";

    /// name, host
    NO_DEFAULT_ROLE_MARIADB = "SET DEFAULT ROLE NONE FOR {}@{}";

    /// name, host
    ROLES_OF = "SELECT FROM_USER, FROM_HOST FROM mysql.role_edges WHERE TO_USER = {} AND TO_HOST = {} LIMIT 200";

    /// name, host
    ROLES_OF_MARIADB = "SELECT Role, '' FROM mysql.roles_mapping WHERE User = {} AND Host = {} LIMIT 200";

    /// role, its host, name, host
    REVOKE_ROLE = "REVOKE {}@{} FROM {}@{}";

    /// role, name, host
    REVOKE_ROLE_MARIADB = "REVOKE {} FROM {}@{}";

    /// name, host
    REVOKE_ALL = "REVOKE ALL PRIVILEGES, GRANT OPTION FROM {}@{}";

    // By who logged in: the list of processes names the definer of what a session runs. What is not
    // in that list, or killed there, is rolling back.
    /// name, session after which to go on
    SESSIONS = "SELECT t.PROCESSLIST_ID, IF(p.COMMAND IS NULL OR p.COMMAND = 'Killed', 'Y', 'N') \
                FROM performance_schema.threads t \
                LEFT JOIN information_schema.processlist p ON p.ID = t.PROCESSLIST_ID \
                WHERE t.PROCESSLIST_USER = {} AND t.PROCESSLIST_ID > {} ORDER BY t.PROCESSLIST_ID LIMIT 500";

    // Where the performance schema is off.
    /// name, session after which to go on
    SESSIONS_MARIADB = "SELECT id, IF(command = 'Killed', 'Y', 'N') FROM information_schema.processlist \
                        WHERE user = {} AND id > {} ORDER BY id LIMIT 500";

    /// name
    CONNECTIONS = "SELECT IFNULL(SUM(CURRENT_CONNECTIONS), 0) FROM performance_schema.accounts WHERE USER = {}";

    /// session
    KILL = "KILL CONNECTION {}";

    // A driver has no clock: the server waits for it.
    /// (none)
    WAIT = "SELECT SLEEP(0.05)";

    // What an account's removal would leave without a definer, as far as the broker may see it.
    // Events first: they run by themselves.
    /// name@host, four times
    DEFINED = "SELECT CONCAT('event ', EVENT_SCHEMA, '.', EVENT_NAME) AS thing \
               FROM information_schema.events WHERE DEFINER = {} \
               UNION ALL SELECT CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME) \
               FROM information_schema.routines WHERE DEFINER = {} \
               UNION ALL SELECT CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME) \
               FROM information_schema.triggers WHERE DEFINER = {} \
               UNION ALL SELECT CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME) \
               FROM information_schema.views WHERE DEFINER = {} LIMIT 20";

    /// name
    INSPECT = "SELECT Host, account_locked, password_expired, \
               JSON_EXTRACT(User_attributes, '$.additional_password') IS NOT NULL, plugin \
               FROM mysql.user WHERE User = {} ORDER BY Host LIMIT 16";

    /// name
    INSPECT_MARIADB = "SELECT Host, \
                       IF(JSON_VALUE(Priv, '$.account_locked') IN ('1', 'true'), 'Y', 'N'), \
                       'N', 0, JSON_VALUE(Priv, '$.plugin') \
                       FROM mysql.global_priv WHERE User = {} AND Host <> '' ORDER BY Host LIMIT 16";

    // No LIKE: it has wildcards. The column compares byte by byte.
    /// prefix, prefix, name after which to go on, page size
    LIST = "SELECT DISTINCT User FROM mysql.user WHERE LEFT(User, CHAR_LENGTH({})) = {} \
            AND User > {} AND Host <> '' ORDER BY User LIMIT {}";

    // Members of a replication group share their accounts, and so are one place.
    /// (none)
    PLACE = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables \
             WHERE VARIABLE_NAME IN ('server_uuid', 'group_replication_group_name') LIMIT 2";

    // The state of a Galera cluster is shared by its members. `server_uid` is there since 10.5.26, 10.6.19, 10.11.9.
    /// (none)
    PLACE_MARIADB = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES \
                     WHERE VARIABLE_NAME = 'SERVER_UID' \
                     UNION ALL SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                     WHERE VARIABLE_NAME = 'WSREP_CLUSTER_STATE_UUID' LIMIT 2";

    /// 'user'@'host'
    PRIVILEGES = "SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.user_privileges \
                  WHERE GRANTEE = {} ORDER BY PRIVILEGE_TYPE LIMIT 500";

    /// 'user'@'host'
    SCHEMA_PRIVILEGES = "SELECT PRIVILEGE_TYPE FROM information_schema.schema_privileges \
                         WHERE GRANTEE = {} AND TABLE_SCHEMA = 'mysql' LIMIT 100";

    // Roles are accounts in MySQL; in MariaDB they have no host.
    /// names
    POWERS = "SELECT User, Host, CONCAT_WS(', ', \
              IF(Super_priv = 'Y', 'SUPER', NULL), \
              IF(Create_user_priv = 'Y', 'CREATE USER', NULL), \
              IF(Grant_priv = 'Y', 'GRANT OPTION', NULL), \
              IF(File_priv = 'Y', 'FILE', NULL), \
              IF(Insert_priv = 'Y', 'INSERT', NULL), \
              IF(Update_priv = 'Y', 'UPDATE', NULL), \
              IF(Delete_priv = 'Y', 'DELETE', NULL), \
              IF(Reload_priv = 'Y', 'RELOAD', NULL), \
              IF(Lock_tables_priv = 'Y', 'LOCK TABLES', NULL), \
              IF(Event_priv = 'Y', 'EVENT', NULL), \
              IF(Create_routine_priv = 'Y', 'CREATE ROUTINE', NULL), \
              IF(Trigger_priv = 'Y', 'TRIGGER', NULL), \
              IF(Create_view_priv = 'Y', 'CREATE VIEW', NULL)) \
              FROM mysql.user WHERE User IN ({}) LIMIT 1000";

    /// names
    SCHEMA_POWERS = "SELECT User, Host, CONCAT_WS(', ', \
              IF(Grant_priv = 'Y', 'GRANT OPTION', NULL), \
              IF(Insert_priv = 'Y', 'INSERT', NULL), \
              IF(Update_priv = 'Y', 'UPDATE', NULL), \
              IF(Delete_priv = 'Y', 'DELETE', NULL), \
              IF(Lock_tables_priv = 'Y', 'LOCK TABLES', NULL), \
              IF(Event_priv = 'Y', 'EVENT', NULL), \
              IF(Create_routine_priv = 'Y', 'CREATE ROUTINE', NULL), \
              IF(Trigger_priv = 'Y', 'TRIGGER', NULL), \
              IF(Create_view_priv = 'Y', 'CREATE VIEW', NULL)), Db \
              FROM mysql.db WHERE User IN ({}) LIMIT 1000";

    /// names
    DYNAMIC = "SELECT USER, HOST, GROUP_CONCAT(PRIV SEPARATOR ', ') FROM mysql.global_grants \
               WHERE USER IN ({}) GROUP BY USER, HOST LIMIT 1000";

    // Bits of MariaDB's `access`.
    /// names
    DYNAMIC_MARIADB = "SELECT User, Host, CONCAT_WS(', ', \
                       IF(JSON_VALUE(Priv, '$.access') & 1073741824, 'SET USER', NULL), \
                       IF(JSON_VALUE(Priv, '$.access') & 4294967296, 'CONNECTION ADMIN', NULL)) \
                       FROM mysql.global_priv WHERE User IN ({}) LIMIT 1000";

    /// names
    GRANTED = "SELECT TO_USER, TO_HOST, FROM_USER, FROM_HOST FROM mysql.role_edges \
               WHERE TO_USER IN ({}) LIMIT 1000";

    /// names
    GRANTED_MARIADB = "SELECT User, Host, Role, '' FROM mysql.roles_mapping WHERE User IN ({}) LIMIT 1000";

    // MariaDB. A plugin that checks passwords takes no hashes.
    /// (none)
    CHECKS_PASSWORDS = "SELECT PLUGIN_NAME FROM information_schema.plugins \
                        WHERE PLUGIN_TYPE = 'PASSWORD VALIDATION' AND PLUGIN_STATUS = 'ACTIVE' \
                        AND @@strict_password_validation = 1 LIMIT 5";

    // MySQL. What passwords must be like; there only where the component or the plugin is.
    /// (none)
    PASSWORD_RULES = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables \
                      WHERE VARIABLE_NAME LIKE 'validate_password%' LIMIT 50";

    // Prepared transactions that no session holds: they keep their locks until somebody ends them. `XA RECOVER`
    // would name them; the host bounds each query by one around it, and there it cannot stand.
    /// (none)
    PREPARED = "SELECT COUNT(*), MIN(trx_started) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = 0";

    /// names
    GRANTABLE = "SELECT DISTINCT ROLE_NAME FROM information_schema.applicable_roles \
                 WHERE ROLE_NAME IN ({}) AND IS_GRANTABLE = 'YES' LIMIT 500";
}
