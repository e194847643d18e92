//! Every statement that the driver runs. An operator reads them with
//! `jit-broker plugin list --statements`; the host runs no other.

jit_plugin::statements! {
    /// All of them.
    pub(crate) const ALL;

    // What the account must not be is spelt out: it is not left to defaults. With the next one it is
    // one transaction, so that there is no moment at which the account has no expiry or no membership.
    /// name, connection limit, password verifier, expiry
    CREATE = "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
              INHERIT CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {}";

    // The rights of the roles, without SET ROLE: an account that could become one of them could make
    // things that are not its own, and outlive it. Since PostgreSQL 16.
    /// granted roles, name
    GRANT_RIGHTS = "GRANT {} TO {} WITH INHERIT TRUE, SET FALSE";

    /// as CREATE, and granted roles, with SET ROLE
    CREATE_IN_ROLE = "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
                      INHERIT CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {} IN ROLE {}";

    /// name, expiry
    SET_EXPIRY = "ALTER ROLE {} VALID UNTIL {}";

    /// name, password verifier
    SET_PASSWORD = "ALTER ROLE {} PASSWORD {}";

    /// name
    DISABLE = "ALTER ROLE {} NOLOGIN PASSWORD NULL";

    // For every database in which something hangs on the role (none for things that belong to no
    // database), how many of those things it owns. One row without a database, when nothing does.
    // Prepared transactions are counted once there is no session that could make one. Not one of the
    // views that PUBLIC may lock is read (`pg_settings`).
    /// name
    FOOTPRINT = "SELECT pg_catalog.current_setting('server_version_num'), x.sessions, \
                 CASE WHEN x.sessions OPERATOR(pg_catalog.>) 0 THEN NULL ELSE \
                 (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts p \
                 WHERE p.owner OPERATOR(pg_catalog.=) x.rolname) END, \
                 d.datname, d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database(), \
                 pg_catalog.count(s.refobjid), pg_catalog.count(*) FILTER (WHERE s.deptype OPERATOR(pg_catalog.=) 'o' \
                 AND s.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_default_acl'::pg_catalog.regclass) \
                 FROM (SELECT r.oid, r.rolname, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a \
                 WHERE a.usesysid OPERATOR(pg_catalog.=) r.oid) AS sessions FROM pg_catalog.pg_roles r \
                 WHERE r.rolname OPERATOR(pg_catalog.=) {}) x \
                 LEFT JOIN pg_catalog.pg_shdepend s \
                 ON s.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass \
                 AND s.refobjid OPERATOR(pg_catalog.=) x.oid \
                 LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.dbid \
                 GROUP BY x.rolname, x.sessions, d.datname ORDER BY d.datname";

    // They hold locks, and nobody but their owner and superusers can end them.
    /// name
    PREPARED = "SELECT p.database, p.gid FROM pg_catalog.pg_prepared_xacts p \
                WHERE p.owner OPERATOR(pg_catalog.=) {} ORDER BY p.prepared LIMIT 20";

    // Ending its sessions and reassigning what it owns takes the role's privileges.
    /// name; up to PostgreSQL 15
    JOIN = "GRANT {} TO CURRENT_USER";

    /// name; since PostgreSQL 16, where a creator has only the ADMIN option
    JOIN_INHERITING = "GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET FALSE";

    // In PostgreSQL 14 an account may hold up JOIN: it may grant itself, too, and not commit.
    // These stand around SIGNAL_SESSIONS in one transaction: nobody sees the membership.
    /// (none)
    MAY_SIGNAL = "GRANT pg_signal_backend TO CURRENT_USER";

    /// (none)
    MAY_NOT_SIGNAL = "REVOKE pg_signal_backend FROM CURRENT_USER";

    // The roles that the account is a member of, of those that the broker may take from it.
    /// name
    MEMBERSHIPS = "SELECT DISTINCT g.rolname FROM pg_catalog.pg_auth_members m \
                   JOIN pg_catalog.pg_roles a ON a.oid OPERATOR(pg_catalog.=) m.member \
                   JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) m.roleid \
                   JOIN pg_catalog.pg_roles b ON b.rolname OPERATOR(pg_catalog.=) CURRENT_USER \
                   WHERE a.rolname OPERATOR(pg_catalog.=) {} AND (b.rolsuper \
                   OR pg_catalog.pg_has_role(b.oid, g.oid, 'MEMBER WITH ADMIN OPTION') OR b.rolcreaterole \
                   AND NOT g.rolsuper AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 \
                   OPERATOR(pg_catalog.<) 160000) ORDER BY 1 LIMIT 100";

    /// roles, name
    TAKE_ROLES = "REVOKE {} FROM {}";

    /// name
    SIGNAL_SESSIONS = "SELECT pg_catalog.count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(a.pid)) \
                       FROM pg_catalog.pg_stat_activity a WHERE a.usename OPERATOR(pg_catalog.=) {}";

    // `pg_terminate_backend` with a timeout waits for the end. Not a `LIMIT` without the subquery:
    // the planner may call the function for more rows than it gives.
    // Its rows say little: a session that has just ended gives one as well.
    /// name, milliseconds to wait for each
    AWAIT_SESSIONS = "SELECT s.pid FROM (SELECT a.pid FROM pg_catalog.pg_stat_activity a \
                      WHERE a.usename OPERATOR(pg_catalog.=) {} ORDER BY a.pid LIMIT 4) s \
                      WHERE NOT pg_catalog.pg_terminate_backend(s.pid, {}::pg_catalog.int8)";

    // For what follows in the same transaction.
    /// name, new owner, `all` or `part`
    ACCOUNT = "SELECT pg_catalog.set_config('jit_broker.account', {}, true), \
               pg_catalog.set_config('jit_broker.keeper', {}, true), \
               pg_catalog.set_config('jit_broker.step', {}, true)";

    // Data is handed over, code is not: functions, views and whatever else would run with the rights
    // of its owner are dropped before. SQLSTATE JIT01 names what stands against it, JIT02 says that
    // there is too much of it for one transaction: `part` then does some of it.
    /// (none)
    DROP_CODE = include_str!("drop_code.sql");

    /// name, new owner
    REASSIGN = "REASSIGN OWNED BY {} TO {}";

    // After REASSIGN: what is left are privileges and default privileges.
    /// name
    DROP_OWNED = "DROP OWNED BY {}";

    // For an error: only the database at hand can name its things.
    /// name
    DEPENDENTS = "SELECT pg_catalog.concat(CASE s.deptype WHEN 'o' THEN 'owner of ' ELSE 'privileges for ' END, \
                  pg_catalog.pg_describe_object(s.classid, s.objid, s.objsubid)) FROM pg_catalog.pg_shdepend s \
                  JOIN pg_catalog.pg_roles r \
                  ON s.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass \
                  AND s.refobjid OPERATOR(pg_catalog.=) r.oid \
                  LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.dbid \
                  WHERE r.rolname OPERATOR(pg_catalog.=) {} AND (s.dbid OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
                  OR d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) ORDER BY 1 LIMIT 20";

    /// name
    DROP = "DROP ROLE {}";

    /// name
    INSPECT = "SELECT r.rolcanlogin, CASE WHEN pg_catalog.isfinite(r.rolvaliduntil) \
               THEN pg_catalog.floor(EXTRACT(epoch FROM r.rolvaliduntil))::pg_catalog.int8 END, \
               (SELECT pg_catalog.string_agg(g.rolname::pg_catalog.text, ','::pg_catalog.text ORDER BY g.rolname) \
               FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) m.roleid \
               WHERE m.member OPERATOR(pg_catalog.=) r.oid) \
               FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {}";

    // By name only: an account whose VALID UNTIL was lost is an account all the same. `starts_with`
    // knows no wildcards, and `name` compares by bytes whatever the database's collation is.
    /// prefix, name after which to go on, page size
    LIST = "SELECT r.rolname FROM pg_catalog.pg_roles r \
            WHERE pg_catalog.starts_with(r.rolname::pg_catalog.text, {}) \
            AND r.rolname OPERATOR(pg_catalog.>) {}::pg_catalog.name ORDER BY r.rolname LIMIT {}";

    /// (none)
    BROKER = "SELECT pg_catalog.current_setting('server_version_num'), r.rolname, r.rolsuper, r.rolcreaterole, \
              r.rolcreatedb, r.rolreplication, r.rolbypassrls FROM pg_catalog.pg_roles r \
              WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER";

    // Made with the data folder, the same on every physical replica, another after `initdb`. Roles
    // belong to the whole cluster: no database is asked for.
    /// (none)
    PLACE = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

    // Since PostgreSQL 16 only the ADMIN option lets a role be granted; before, CREATEROLE did.
    /// names
    GRANTABLE = "SELECT r.rolname, pg_catalog.pg_has_role(b.oid, r.oid, 'MEMBER WITH ADMIN OPTION'), \
                 pg_catalog.pg_has_role(b.oid, r.oid, 'USAGE') \
                 FROM pg_catalog.pg_roles r \
                 JOIN pg_catalog.pg_roles b ON b.rolname OPERATOR(pg_catalog.=) CURRENT_USER \
                 WHERE r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[])";

    // What a name that no role has may be a slip of.
    /// (none)
    GROUPS = "SELECT r.rolname FROM pg_catalog.pg_roles r WHERE NOT r.rolcanlogin \
              AND NOT r.rolname OPERATOR(pg_catalog.^@) 'pg_' ORDER BY r.rolname LIMIT 1000";

    // All roles that somebody with one of these can come to have: `SET ROLE` reaches what a role is
    // a member of, at any depth. The shortest way to each that gives more than an application needs,
    // with the reason. The last column tells what a role is, apart from its memberships.
    /// names, name of the role that keeps things (or of none)
    POWERS = "WITH RECURSIVE way (start, oid, path, admin) AS ( \
              SELECT r.rolname, r.oid, ARRAY[r.oid], false FROM pg_catalog.pg_roles r \
              WHERE r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[]) \
              UNION SELECT w.start, m.roleid, pg_catalog.array_append(w.path, m.roleid), m.admin_option \
              FROM way w JOIN pg_catalog.pg_auth_members m ON m.member OPERATOR(pg_catalog.=) w.oid \
              WHERE NOT m.roleid OPERATOR(pg_catalog.=) ANY (w.path) \
              AND pg_catalog.cardinality(w.path) OPERATOR(pg_catalog.<) 16) \
              SELECT DISTINCT ON (w.start, r.oid) w.start, (SELECT pg_catalog.string_agg(n.rolname::pg_catalog.text, \
              ' \u{2192} '::pg_catalog.text ORDER BY p.place) \
              FROM pg_catalog.unnest(w.path) WITH ORDINALITY p (oid, place) \
              JOIN pg_catalog.pg_roles n ON n.oid OPERATOR(pg_catalog.=) p.oid), \
              pg_catalog.concat_ws(', ', CASE WHEN r.rolsuper THEN 'is a superuser' END, \
              CASE WHEN r.rolcreaterole THEN 'creates roles' END, \
              CASE WHEN r.rolreplication THEN 'can replicate' END, \
              CASE WHEN w.admin THEN 'may be granted on to others' END, \
              CASE WHEN r.rolname OPERATOR(pg_catalog.=) CURRENT_USER THEN 'is the broker''s own role' END, \
              CASE WHEN r.rolname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
              THEN 'keeps what removed accounts leave' END, \
              CASE WHEN r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_execute_server_program', \
              'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend', 'pg_create_subscription', \
              'pg_use_reserved_connections']::pg_catalog.name[]) \
              THEN 'reaches beyond its database' END) AS reason FROM way w \
              JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) w.oid \
              WHERE r.rolsuper OR r.rolcreaterole OR r.rolreplication OR w.admin \
              OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER \
              OR r.rolname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
              OR r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_execute_server_program', \
              'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend', 'pg_create_subscription', \
              'pg_use_reserved_connections']::pg_catalog.name[]) \
              ORDER BY w.start, r.oid, pg_catalog.cardinality(w.path) LIMIT 200";

    // Who gets what accounts leave is to have no power that those things could use.
    /// name
    KEEPER = "SELECT pg_catalog.concat_ws(', ', CASE WHEN r.rolsuper THEN 'SUPERUSER' END, \
              CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, \
              CASE WHEN r.rolcanlogin THEN 'LOGIN' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END, \
              CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END), \
              (SELECT pg_catalog.string_agg(g.rolname::pg_catalog.text, ', '::pg_catalog.text ORDER BY g.rolname) \
              FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) m.roleid \
              WHERE m.member OPERATOR(pg_catalog.=) r.oid) \
              FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {}";

    // Where accounts may make things, and the role that is to keep them may not have any.
    /// name of the role that keeps things, names of granted roles
    NO_ROOM = "SELECT DISTINCT pg_catalog.concat('SCHEMA ', pg_catalog.quote_ident(n.nspname::pg_catalog.text)) \
               FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles g, pg_catalog.pg_roles k \
               WHERE k.rolname OPERATOR(pg_catalog.=) {} \
               AND g.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[]) \
               AND pg_catalog.has_schema_privilege(g.oid, n.oid, 'CREATE') \
               AND NOT pg_catalog.has_schema_privilege(k.oid, n.oid, 'CREATE') \
               UNION SELECT pg_catalog.concat('DATABASE ', pg_catalog.quote_ident(d.datname::pg_catalog.text)) \
               FROM pg_catalog.pg_database d, pg_catalog.pg_roles g, pg_catalog.pg_roles k \
               WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
               AND k.rolname OPERATOR(pg_catalog.=) {} \
               AND g.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[]) \
               AND pg_catalog.has_database_privilege(g.oid, d.oid, 'CREATE') \
               AND NOT pg_catalog.has_database_privilege(k.oid, d.oid, 'CREATE') ORDER BY 1 LIMIT 20";

    /// names of granted roles
    MAKERS = "SELECT DISTINCT n.nspname FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles g \
              WHERE g.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[]) \
              AND pg_catalog.has_schema_privilege(g.oid, n.oid, 'CREATE') ORDER BY n.nspname LIMIT 20";

    // Other programs of the broker's role, `psql` in an operator's hands say, look names up in these
    // schemas first; the broker itself does not.
    /// (none)
    PLANTERS = "SELECT n.nspname, pg_catalog.string_agg(CASE a.grantee WHEN 0::pg_catalog.oid THEN 'PUBLIC' \
                ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END, ', '::pg_catalog.text) \
                FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a \
                WHERE n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['public', CURRENT_USER]::pg_catalog.name[]) \
                AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE' AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner \
                AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles r \
                WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER AND r.rolconfig OPERATOR(pg_catalog.&&) \
                ARRAY['search_path=pg_catalog', 'search_path=\"\"', 'search_path=pg_catalog, pg_temp']::pg_catalog.text[] \
                AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c \
                WHERE s.setrole OPERATOR(pg_catalog.=) r.oid AND s.setdatabase OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
                AND pg_catalog.starts_with(c, 'search_path='::pg_catalog.text))) \
                GROUP BY n.nspname ORDER BY n.nspname LIMIT 10";
}
