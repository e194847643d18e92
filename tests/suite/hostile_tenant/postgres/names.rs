//! An account may make functions, aggregates and operators that fit better than the server's own. None
//! of them is ever called by the broker's sessions.

use jit_tests::world::eventually;
use jit_tests::{Settings, World};

use super::{issue, login, revoke, run};

/// Every function and operator of the driver's and the host's statements, once more in `public`, for
/// every combination of the types that stand in them. Each raises an error with the caller's name.
const TRAPS: &str = r#"
SET search_path = pg_catalog;
DO $$
DECLARE
    types text[] := ARRAY['name', 'text', 'oid', 'int4', 'int8', 'regclass', '"char"', 'bool'];
    -- By name: how many arguments.
    functions text[] := ARRAY['starts_with 2', 'pg_terminate_backend 1', 'pg_terminate_backend 2', 'octet_length 1',
        'current_setting 1', 'current_setting 2', 'current_database 0', 'pg_backend_pid 0', 'isfinite 1', 'floor 1',
        'quote_ident 1', 'pg_get_userbyid 1', 'array_append 2', 'cardinality 1', 'has_schema_privilege 2',
        'pg_describe_object 1', 'concat 1', 'concat 2', 'concat_ws 2', 'format 2', 'upper 1', 'to_regclass 1',
        'set_config 2', 'pg_has_role 2', 'unnest 1', 'coalesce_ 1'];
    operators text[] := ARRAY['=', '<>', '<', '>', '<=', '>=', '||'];
    item text;
    one text;
    two text;
    body text := 'BEGIN RAISE EXCEPTION ''hostile code ran as % (%)'', current_user, session_user; END';
    counted int := 0;
    arguments text[];
BEGIN
    FOREACH item IN ARRAY functions LOOP
        arguments := CASE split_part(item, ' ', 2) WHEN '0' THEN ARRAY[''] WHEN '1' THEN types
            ELSE ARRAY(SELECT a || ', ' || b FROM unnest(types) a, unnest(types) b) END;
        FOREACH one IN ARRAY arguments LOOP
            EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS bool LANGUAGE plpgsql AS %L',
                split_part(item, ' ', 1), one, body);
            counted := counted + 1;
        END LOOP;
    END LOOP;
    -- For any number of arguments, and for the ones that aggregates collect.
    FOREACH item IN ARRAY ARRAY['concat', 'concat_ws', 'set_config', 'pg_has_role', 'has_database_privilege', 'format'] LOOP
        EXECUTE format('CREATE FUNCTION public.%I(VARIADIC text[]) RETURNS bool LANGUAGE plpgsql AS %L', item, body);
    END LOOP;
    FOREACH one IN ARRAY types LOOP
        EXECUTE format('CREATE FUNCTION public.counting(int8, %s) RETURNS int8 LANGUAGE plpgsql AS %L', one, body);
        EXECUTE format('CREATE AGGREGATE public.count(%s) (sfunc = public.counting, stype = int8, initcond = 0)', one);
        FOREACH two IN ARRAY types LOOP
            EXECUTE format('CREATE FUNCTION public.adding(text, %s, %s) RETURNS text LANGUAGE plpgsql AS %L', one, two, body);
            EXECUTE format('CREATE AGGREGATE public.string_agg(%s, %s) (sfunc = public.adding, stype = text)', one, two);
            EXECUTE format('CREATE FUNCTION public.operating(%s, %s) RETURNS bool LANGUAGE plpgsql AS %L', one, two, body);
            FOREACH item IN ARRAY operators LOOP
                EXECUTE format('CREATE OPERATOR public.%s (leftarg = %s, rightarg = %s, function = public.operating)',
                    item, one, two);
            END LOOP;
        END LOOP;
    END LOOP;
    -- Tables and views that stand before the server's.
    FOREACH item IN ARRAY ARRAY['pg_roles', 'pg_stat_activity', 'pg_shdepend', 'pg_database', 'pg_auth_members'] LOOP
        EXECUTE format('CREATE TABLE public.%I (oid oid, rolname name, pid int4, usename name)', item);
    END LOOP;
    RAISE NOTICE '%', counted;
END $$
"#;

#[tokio::test]
async fn the_brokers_statements_call_none_of_an_accounts_functions() {
    let mut world = World::with(Settings { target: "timeout = \"10s\"".to_owned(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let (database, broker) = (world.database.name.clone(), world.database.broker.clone());
    let hostile = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &hostile).await;
    run(&mut session, TRAPS).await;
    // They do what they are for: a session with the usual path falls into them.
    let mut victim = world.database.login(hostile.username(), hostile.password()).await.unwrap();
    let trapped = sqlx::Executor::execute(&mut victim, "SELECT starts_with(rolname, 'v'::text) FROM pg_roles").await;
    assert!(trapped.unwrap_err().to_string().contains("hostile code ran"));
    // What the server gives the broker's role by default changes nothing.
    let path = format!("ALTER ROLE {broker} IN DATABASE {database} SET search_path = public, pg_catalog");
    world.database.execute(&path).await.unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();

    // Issue, renew, list and inspect, revoke; and what an operator asks.
    let other = issue(&client, &token, "app_read_only").await;
    let renew = format!("/v1/leases/{}/renew", other.lease());
    let renewed = client.post(&renew, &token, &serde_json::json!({"ttl": "2h"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let reconciled = world.cli(&["reconcile"]);
    let told = String::from_utf8_lossy(&reconciled.stdout).into_owned();
    assert!(reconciled.status.success() && !told.contains("hostile"), "{told}");
    let (good, told) = super::config_check(&world);
    assert!(good && !told.contains("hostile"), "{told}");
    assert!(told.contains("may create functions"), "who may plant functions is told: {told}");
    let revoked = revoke(&client, &token, &other).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);

    // A statement that is given up: the host ends its backend.
    let mut admin = world.database.superuser().await.unwrap();
    run(&mut admin, "BEGIN; LOCK TABLE pg_authid IN SHARE MODE").await;
    let body = serde_json::json!({"target": "inventory_db", "ttl": "1h"});
    let given_up = client.issue(&token, &body).await.unwrap();
    assert!(matches!(given_up.status, 503 | 504), "{}", given_up.text);
    run(&mut admin, "COMMIT").await;
    eventually("it works again", async || client.issue(&token, &body).await.unwrap().status == 201).await;

    // The account itself, with everything that it made.
    let revoked = revoke(&client, &token, &hostile).await;
    assert!(matches!(revoked.status, 200 | 202), "{}", revoked.text);
    world.lease_becomes(hostile.lease(), "revoked").await;
    let left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    assert_eq!(world.database.value(left).await.unwrap(), "0", "its functions went with it");
    let log = world.process().log();
    assert!(!log.contains("hostile code ran"), "{log}");
}
