//! Every statement that the driver runs. An operator reads them with
//! `jit-broker plugin list --statements`; the host runs no other.

jit_plugin::statements! {
    /// All of them.
    pub(crate) const ALL;

    // One statement, so that there is no moment at which the account has no expiry or no member-
    // ship. What the account must not be is spelt out: it is not left to defaults.
    /// name, connection limit (-1 for none), password verifier, expiry, granted roles
    CREATE = "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
              INHERIT CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {} IN ROLE {}";

    /// name, expiry
    SET_EXPIRY = "ALTER ROLE {} VALID UNTIL {}";

    /// name, password verifier
    SET_PASSWORD = "ALTER ROLE {} PASSWORD {}";

    /// name
    DISABLE = "ALTER ROLE {} NOLOGIN PASSWORD NULL";

    // For every database in which something hangs on the role (none for things that belong to no
    // database), how many of those things it owns. One row without a database, when nothing does.
    /// name
    FOOTPRINT = "SELECT current_setting('server_version_num'), \
                 (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid), \
                 d.datname, d.datname = current_database(), \
                 count(s.refobjid), count(*) FILTER (WHERE s.deptype = 'o' \
                 AND s.classid <> 'pg_default_acl'::regclass) \
                 FROM pg_roles r \
                 LEFT JOIN pg_shdepend s ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid \
                 LEFT JOIN pg_database d ON d.oid = s.dbid \
                 WHERE r.rolname = {} GROUP BY r.oid, d.datname ORDER BY d.datname";

    // Ending its sessions and reassigning what it owns takes the role's privileges.
    /// name; up to PostgreSQL 15
    JOIN = "GRANT {} TO CURRENT_USER";

    /// name; since PostgreSQL 16, where a creator has only the ADMIN option
    JOIN_INHERITING = "GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET FALSE";

    /// name
    SIGNAL_SESSIONS = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) \
                       FROM pg_stat_activity WHERE usename = {}";

    // `pg_terminate_backend` with a timeout waits for the end. Not a `LIMIT` without the subquery:
    // the planner may call the function for more rows than it gives.
    // Its rows say little: a session that has just ended gives one as well.
    /// name, milliseconds to wait for each
    AWAIT_SESSIONS = "SELECT s.pid FROM (SELECT pid FROM pg_stat_activity WHERE usename = {} \
                      ORDER BY pid LIMIT 4) s WHERE NOT pg_terminate_backend(s.pid, {})";

    /// name, new owner
    REASSIGN = "REASSIGN OWNED BY {} TO {}";

    // After REASSIGN: what is left are privileges and default privileges.
    /// name
    DROP_OWNED = "DROP OWNED BY {}";

    // For an error: only the database at hand can name its things.
    /// name
    DEPENDENTS = "SELECT (CASE s.deptype WHEN 'o' THEN 'owner of ' ELSE 'privileges for ' END) \
                  || pg_describe_object(s.classid, s.objid, s.objsubid) FROM pg_shdepend s \
                  JOIN pg_roles r ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid \
                  WHERE r.rolname = {} AND s.dbid IN (0, (SELECT oid FROM pg_database \
                  WHERE datname = current_database())) ORDER BY 1 LIMIT 20";

    /// name
    DROP = "DROP ROLE {}";

    /// name
    INSPECT = "SELECT r.rolcanlogin, \
               CASE WHEN isfinite(r.rolvaliduntil) THEN floor(extract(epoch FROM r.rolvaliduntil))::bigint END, \
               (SELECT string_agg(g.rolname, ',' ORDER BY g.rolname) FROM pg_auth_members m \
               JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) \
               FROM pg_roles r WHERE r.rolname = {}";

    // By name only: an account whose VALID UNTIL was lost is an account all the same. `starts_with`
    // knows no wildcards, and `name` compares by bytes whatever the database's collation is.
    /// prefix, name after which to go on, page size
    LIST = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, {}) AND rolname > {} \
            ORDER BY rolname LIMIT {}";

    /// (none)
    BROKER = "SELECT current_setting('server_version_num'), rolname, rolsuper, rolcreaterole, \
              rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user";

    // Since PostgreSQL 16 only the ADMIN option lets a role be granted; before, CREATEROLE did.
    /// names
    GRANTABLE = "SELECT rolname, rolsuper OR rolcreaterole, \
                 pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION'), \
                 pg_has_role(current_user, oid, 'USAGE') \
                 FROM pg_roles WHERE rolname IN ({})";
}
