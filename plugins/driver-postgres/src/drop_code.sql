DO $jit$
DECLARE
    account pg_catalog.oid;
    here pg_catalog.oid;
    class_ids pg_catalog.oid[];
    object_ids pg_catalog.oid[];
    part_ids pg_catalog.int4[];
    are_code pg_catalog.bool[];
    tables pg_catalog.oid[];
    commands pg_catalog.text[];
    command pg_catalog.text;
    obstacles pg_catalog.text;
    -- Objects of one transaction: each takes locks, of which the server has a limited number.
    most CONSTANT pg_catalog.int4 := 200;
    in_parts CONSTANT pg_catalog.bool := pg_catalog.current_setting('jit_broker.step') OPERATOR(pg_catalog.=) 'part';
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT r.oid, d.oid INTO STRICT account, here FROM pg_roles r, pg_database d
        WHERE r.rolname = current_setting('jit_broker.account') AND d.datname = current_database();

    -- Its code, and what depends on that at any depth. What depends on an inner part of a thing (a
    -- view's rule) depends on the thing.
    WITH RECURSIVE code AS (
        SELECT s.classid, s.objid FROM pg_shdepend s
            LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid
            WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = account AND s.deptype = 'o' AND s.dbid = here
            AND (c.relkind IN ('v', 'm', 'f') OR s.classid IN ('pg_proc'::regclass, 'pg_operator'::regclass,
                'pg_conversion'::regclass, 'pg_publication'::regclass, 'pg_foreign_server'::regclass,
                'pg_statistic_ext'::regclass))
    ), reached AS (
        SELECT classid, objid, 0 AS part FROM code
        UNION
        SELECT n.* FROM reached d CROSS JOIN LATERAL (
            SELECT p.classid, p.objid, p.objsubid FROM pg_depend p
                WHERE p.refclassid = d.classid AND p.refobjid = d.objid AND d.part IN (0, p.refobjsubid)
            UNION ALL
            SELECT p.refclassid, p.refobjid, p.refobjsubid FROM pg_depend p
                WHERE p.classid = d.classid AND p.objid = d.objid AND p.objsubid = d.part AND p.deptype = 'i'
        ) n
    )
    SELECT array_agg(d.classid), array_agg(d.objid), array_agg(d.part), array_agg(code.objid IS NOT NULL)
        INTO class_ids, object_ids, part_ids, are_code
        FROM reached d LEFT JOIN code ON code.classid = d.classid AND code.objid = d.objid;

    -- What would go with its code and is not its own, and what it owns of a kind that nobody has
    -- thought about, is left to people: nothing is done then.
    SELECT string_agg(pg_describe_object(b.classid, b.objid, b.part), ', ') INTO obstacles FROM (
        SELECT u.classid, u.objid, u.part
            FROM unnest(class_ids, object_ids, part_ids, are_code) u (classid, objid, part, is_code)
            WHERE NOT u.is_code AND NOT CASE u.classid
                WHEN 'pg_rewrite'::regclass THEN EXISTS (SELECT FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
                    WHERE w.oid = u.objid AND c.relowner = account)
                WHEN 'pg_attrdef'::regclass THEN EXISTS (SELECT FROM pg_attrdef a JOIN pg_class c ON c.oid = a.adrelid
                    WHERE a.oid = u.objid AND c.relowner = account)
                WHEN 'pg_constraint'::regclass THEN EXISTS (SELECT FROM pg_constraint n
                    LEFT JOIN pg_class c ON c.oid = n.conrelid LEFT JOIN pg_type t ON t.oid = n.contypid
                    WHERE n.oid = u.objid AND account IN (c.relowner, t.typowner))
                WHEN 'pg_policy'::regclass THEN EXISTS (SELECT FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
                    WHERE p.oid = u.objid AND c.relowner = account)
                WHEN 'pg_class'::regclass THEN EXISTS (SELECT FROM pg_class c LEFT JOIN pg_attribute a
                    ON a.attrelid = c.oid AND a.attnum = u.part AND u.part > 0 WHERE c.oid = u.objid AND c.relowner = account
                    AND (c.relkind IN ('i', 'I', 't', 'v', 'm', 'f') OR a.attgenerated <> ''))
                WHEN 'pg_type'::regclass THEN EXISTS (SELECT FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
                    JOIN pg_class c ON c.oid IN (t.typrelid, e.typrelid)
                    WHERE t.oid = u.objid AND c.relowner = account AND c.relkind IN ('v', 'm', 'f'))
                WHEN 'pg_publication_rel'::regclass THEN EXISTS (SELECT FROM pg_publication_rel r
                    JOIN pg_publication p ON p.oid = r.prpubid WHERE r.oid = u.objid AND p.pubowner = account)
                -- A trigger on another's table that calls a function of the account's, a cast by one,
                -- a mapping for a server of its own.
                ELSE u.classid IN ('pg_trigger'::regclass, 'pg_cast'::regclass, 'pg_transform'::regclass,
                    'pg_user_mapping'::regclass, coalesce(to_regclass('pg_publication_namespace'), 'pg_cast'::regclass))
            END
        UNION ALL
        SELECT s.classid, s.objid, s.objsubid FROM pg_shdepend s
            WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = account AND s.deptype = 'o'
            AND (s.dbid = here OR s.dbid = 0 AND s.classid <> 'pg_auth_members'::regclass)
            AND s.classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass,
                'pg_conversion'::regclass, 'pg_publication'::regclass, 'pg_foreign_server'::regclass,
                'pg_statistic_ext'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass,
                'pg_largeobject'::regclass, 'pg_extension'::regclass, 'pg_collation'::regclass,
                'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_default_acl'::regclass,
                'pg_user_mapping'::regclass)
        LIMIT 5
    ) b;
    IF obstacles IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'JIT01', MESSAGE = obstacles;
    END IF;

    -- Generated columns keep their values and are plain columns from now on.
    SELECT array_agg(format('ALTER TABLE %s ALTER COLUMN %I DROP EXPRESSION', c.oid::regclass, a.attname))
        INTO commands FROM unnest(class_ids, object_ids, part_ids) u (classid, objid, part)
        JOIN pg_class c ON u.classid = 'pg_class'::regclass AND c.oid = u.objid AND c.relkind IN ('r', 'p')
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.part
        WHERE a.attgenerated = 's' AND a.attinhcount = 0;
    SELECT commands || array_agg(format('DROP %s IF EXISTS %s CASCADE', CASE u.classid
            WHEN 'pg_proc'::regclass THEN 'ROUTINE' WHEN 'pg_operator'::regclass THEN 'OPERATOR'
            WHEN 'pg_conversion'::regclass THEN 'CONVERSION' WHEN 'pg_publication'::regclass THEN 'PUBLICATION'
            WHEN 'pg_foreign_server'::regclass THEN 'SERVER' WHEN 'pg_statistic_ext'::regclass THEN 'STATISTICS'
            ELSE upper(i.type) END, i.identity)) INTO commands
        FROM (SELECT * FROM unnest(class_ids, object_ids, are_code) x (classid, objid, is_code)
            WHERE x.is_code LIMIT most + 1) u
        CROSS JOIN LATERAL pg_identify_object(u.classid, u.objid, 0) i;
    SELECT array_agg(t.oid) INTO tables FROM (SELECT c.oid FROM pg_class c
        WHERE c.relowner = account AND c.relkind IN ('r', 'p') ORDER BY c.oid LIMIT most + 1) t;
    IF NOT in_parts AND (cardinality(commands) > most OR cardinality(tables) > most) THEN
        RAISE EXCEPTION USING ERRCODE = 'JIT02', MESSAGE = 'the account owns too many things for one transaction';
    END IF;
    FOREACH command IN ARRAY coalesce(commands, ARRAY[]::text[]) LOOP
        EXECUTE command;
    END LOOP;

    -- On tables that it owns: rules run with the rights of the table's owner, triggers and
    -- policies in everybody who uses the table. Row level security stays on.
    SELECT array_agg(x.command) INTO commands FROM (
        SELECT format('DROP RULE %I ON %s', w.rulename, w.ev_class::regclass) AS command
            FROM pg_rewrite w WHERE w.ev_class = ANY (tables)
        UNION ALL
        SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
            WHERE t.tgrelid = ANY (tables) AND NOT t.tgisinternal AND t.tgparentid = 0
        UNION ALL
        SELECT format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass)
            FROM pg_policy p WHERE p.polrelid = ANY (tables)
    ) x;
    FOREACH command IN ARRAY coalesce(commands, ARRAY[]::text[]) LOOP
        EXECUTE command;
    END LOOP;

    -- Tables that are too many for REASSIGN OWNED, once there is no code that they could use.
    IF in_parts AND class_ids IS NULL THEN
        FOREACH command IN ARRAY coalesce(tables, ARRAY[]::oid[]) LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO %I', command::oid::regclass, current_setting('jit_broker.keeper'));
        END LOOP;
    END IF;
END $jit$
