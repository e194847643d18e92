//! Every statement that the driver runs. An operator reads them with
//! `jit-broker plugin list --statements`; the host runs no other.
//!
//! Columns are given as text. An account is `'user'@'host'`, both literals.

jit_plugin::statements! {
    /// All of them.
    pub(crate) const ALL;

    /// (none)
    SERVER = "SELECT VERSION(), CURRENT_USER()";

    // MySQL. One statement, which takes effect as a whole or not at all: `DEFAULT ROLE` grants the
    // roles, too.
    /// name, host, hash, roles, most sessions (0 for no limit)
    CREATE = "CREATE USER {}@{} IDENTIFIED WITH caching_sha2_password AS {} DEFAULT ROLE {} \
              REQUIRE NONE WITH MAX_USER_CONNECTIONS {}";

    /// name, host, hash, roles, most sessions (0 for no limit)
    CREATE_TLS = "CREATE USER {}@{} IDENTIFIED WITH caching_sha2_password AS {} DEFAULT ROLE {} \
                  REQUIRE SSL WITH MAX_USER_CONNECTIONS {}";

    // MariaDB, in three steps.
    /// name, host, hash, most sessions (0 for no limit)
    CREATE_MARIADB = "CREATE USER {}@{} IDENTIFIED VIA mysql_native_password USING {} \
                      REQUIRE NONE WITH MAX_USER_CONNECTIONS {}";

    /// name, host, hash, most sessions (0 for no limit)
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

    /// name
    SESSIONS = "SELECT id FROM information_schema.processlist WHERE user = {} ORDER BY id LIMIT 200";

    /// session
    KILL = "KILL CONNECTION {}";

    // A driver has no clock: the server waits for it.
    /// (none)
    WAIT = "SELECT SLEEP(0.05)";

    // What an account's removal would leave without a definer, as far as the broker may see it.
    /// name@host, four times
    DEFINED = "SELECT CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME) AS thing \
               FROM information_schema.views WHERE DEFINER = {} \
               UNION ALL SELECT CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME) \
               FROM information_schema.routines WHERE DEFINER = {} \
               UNION ALL SELECT CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME) \
               FROM information_schema.triggers WHERE DEFINER = {} \
               UNION ALL SELECT CONCAT('event ', EVENT_SCHEMA, '.', EVENT_NAME) \
               FROM information_schema.events WHERE DEFINER = {} LIMIT 20";

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

    /// 'user'@'host'
    PRIVILEGES = "SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.user_privileges \
                  WHERE GRANTEE = {} ORDER BY PRIVILEGE_TYPE LIMIT 500";

    /// 'user'@'host'
    SCHEMA_PRIVILEGES = "SELECT PRIVILEGE_TYPE FROM information_schema.schema_privileges \
                         WHERE GRANTEE = {} AND TABLE_SCHEMA = 'mysql' LIMIT 100";

    // Roles are accounts in MySQL; in MariaDB they have no host.
    /// names
    ROLES = "SELECT User, Host, Super_priv, Create_user_priv, Grant_priv, File_priv \
             FROM mysql.user WHERE User IN ({}) AND Host IN ('%', '') LIMIT 1000";

    /// names
    GRANTABLE = "SELECT DISTINCT ROLE_NAME FROM information_schema.applicable_roles \
                 WHERE ROLE_NAME IN ({}) AND IS_GRANTABLE = 'YES' LIMIT 500";
}
