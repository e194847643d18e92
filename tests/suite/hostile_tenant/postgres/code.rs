//! What an account leaves: data is handed over, code is not.

use jit_tests::World;
use sqlx::Executor as _;

use super::{issue, login, revoke, run};

#[tokio::test]
async fn code_with_its_owners_rights_ends_with_the_account() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let (owner, read_write) = (&world.database.owner, &world.database.read_write);
    let mut admin = world.database.superuser().await.unwrap();
    run(
        &mut admin,
        &format!(
            "CREATE TABLE secrets (what text); INSERT INTO secrets VALUES ('the owners own');
             ALTER TABLE secrets OWNER TO {owner}; GRANT TRIGGER ON items TO {read_write}"
        ),
    )
    .await;
    let account = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &account).await;
    run(
        &mut session,
        "CREATE FUNCTION run_as_owner(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
             $$ DECLARE found text; BEGIN EXECUTE q INTO found; RETURN found; END $$;
         CREATE PROCEDURE do_as_owner(q text) LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN EXECUTE q; END';
         CREATE FUNCTION doubled(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
         CREATE FUNCTION trapped() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE AGGREGATE counted(*) (sfunc = int8inc, stype = int8, initcond = '0');
         CREATE OPERATOR @+@ (leftarg = int, rightarg = int, function = int4pl);
         CREATE DOMAIN even AS int CHECK (doubled(VALUE) > 0);
         CREATE TABLE orders (id serial PRIMARY KEY, what text, n int DEFAULT doubled(1), e even,
             twice int GENERATED ALWAYS AS (doubled(n)) STORED, CHECK (doubled(n) < 1000));
         CREATE INDEX ON orders ((doubled(n)));
         CREATE STATISTICS seen ON n, what FROM orders;
         INSERT INTO orders (what, n, e) VALUES ('bolt', 4, 2), ('nut', 5, 3);
         CREATE VIEW shown AS SELECT what, doubled(n) FROM orders;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM shown;
         CREATE RULE peek AS ON UPDATE TO orders DO INSTEAD SELECT what FROM shown;
         CREATE TRIGGER before BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION trapped();
         CREATE TRIGGER on_theirs BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION trapped();
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY all_of_it ON orders USING (doubled(id) > 0);
         GRANT ALL ON orders TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
         CREATE SEQUENCE numbers START 7; CREATE TYPE colour AS ENUM ('red');
         SELECT lo_from_bytea(0, 'large')",
    )
    .await;
    drop(session);
    let revoked = revoke(&client, &token, &account).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    assert_eq!(world.accounts().await, Vec::<String>::new());

    // A later account, of the same role, finds nothing to be the owner with.
    let later = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &later).await;
    for attempt in [
        "SELECT run_as_owner('SELECT what FROM secrets')",
        "CALL do_as_owner('SELECT 1')",
        "SELECT * FROM shown",
        "SELECT * FROM kept",
        "SELECT what FROM secrets",
    ] {
        assert!(session.execute(attempt).await.is_err(), "{attempt}");
    }
    run(&mut session, "INSERT INTO items VALUES (9, 'cap')").await;
    for (what, query, expected) in [
        ("functions", "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace", "0"),
        ("operators", "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace", "0"),
        ("rules", "SELECT count(*) FROM pg_rules WHERE schemaname = 'public'", "0"),
        ("triggers", "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal", "0"),
        ("policies", "SELECT count(*) FROM pg_policy", "0"),
        (
            "views",
            "SELECT count(*) FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace",
            "0",
        ),
        ("default privileges", "SELECT count(*) FROM pg_default_acl", "0"),
        ("row level security", "SELECT relrowsecurity FROM pg_class WHERE relname = 'orders'", "true"),
        ("rows", "SELECT string_agg(what || n || e, ',' ORDER BY id) FROM orders", "bolt42,nut53"),
        ("sequence", "SELECT nextval('numbers')", "7"),
        ("next id", "SELECT nextval('orders_id_seq')", "3"),
        ("large objects", "SELECT count(*) FROM pg_largeobject_metadata", "1"),
        ("type", "SELECT 'red'::colour", "red"),
    ] {
        assert_eq!(world.database.value(query).await.unwrap(), expected, "{what}");
    }
    let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class \
                  WHERE relname IN ('orders', 'numbers', 'orders_id_seq', 'orders_pkey')";
    assert_eq!(&world.database.value(owners).await.unwrap(), owner);
    // Since 15 a generated column keeps what it has.
    if world.database.value("SELECT current_setting('server_version_num')::int >= 150000").await.unwrap() == "true" {
        let twice = "SELECT string_agg(twice::text, ',' ORDER BY id) FROM orders";
        assert_eq!(world.database.value(twice).await.unwrap(), "8,10");
    }
}

/// What an account makes as a role that outlives it would be that role's: it cannot become one.
#[tokio::test]
async fn an_account_makes_nothing_in_the_name_of_its_role() {
    let world = World::new().await;
    if world.database.value("SELECT current_setting('server_version_num')::int < 160000").await.unwrap() == "true" {
        // A membership gives SET ROLE there; the driver's page and `config check` say so.
        let (_, told) = super::config_check(&world);
        assert!(told.contains("SET ROLE"), "{told}");
        return;
    }
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &account).await;
    let role = &world.database.read_write;
    run(&mut session, "CREATE FUNCTION mine() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'").await;
    for attempt in [format!("SET ROLE {role}"), format!("ALTER FUNCTION mine() OWNER TO {role}")] {
        let refused = session.execute(sqlx::AssertSqlSafe(attempt.clone())).await;
        assert!(refused.is_err(), "{attempt}");
    }
    run(&mut session, "SELECT * FROM items; INSERT INTO items VALUES (8, 'washer')").await;
}

/// What somebody else's things use stays, with an owner that has no rights and no login, and is named.
#[tokio::test]
async fn code_that_others_use_is_named() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &account).await;
    run(
        &mut session,
        "CREATE FUNCTION peek() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT name FROM public.items LIMIT 1';
         CREATE TABLE orders (id int)",
    )
    .await;
    world.database.execute("CREATE VIEW theirs AS SELECT peek()").await.unwrap();
    let revoked = revoke(&client, &token, &account).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (202, "revoking"), "{}", revoked.text);
    let error = world.lease(account.lease())["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("view public.theirs"), "{error}");
    assert!(session.execute("SELECT 1").await.is_err(), "its session has ended");
    assert!(world.database.login(account.username(), account.password()).await.is_err());
    let mut admin = world.database.superuser().await.unwrap();
    let rights = admin.execute("SELECT peek()").await.unwrap_err().to_string();
    assert!(rights.contains("permission denied"), "its function has no rights any more: {rights}");
    world.database.execute("DROP VIEW theirs").await.unwrap();
    world.lease_becomes(account.lease(), "revoked").await;
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'";
    assert_eq!(world.database.value(owner).await.unwrap(), world.database.owner);
}

/// More than one transaction may lock, and things that use each other in a circle.
#[tokio::test]
async fn very_many_things_do_not_keep_an_account() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &account).await;
    run(
        &mut session,
        "DO $$ BEGIN
             FOR i IN 1..450 LOOP
                 EXECUTE format('CREATE FUNCTION f%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', i);
                 EXECUTE format('CREATE TABLE t%s (id int DEFAULT f%s())', i, i);
             END LOOP;
         END $$;
         CREATE VIEW one AS SELECT f1() AS n;
         CREATE FUNCTION two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT n FROM one; END;
         CREATE OR REPLACE VIEW one AS SELECT f1() + 0 * two() AS n",
    )
    .await;
    let revoked = revoke(&client, &token, &account).await;
    assert!(matches!(revoked.status, 200 | 202), "{}", revoked.text);
    world.lease_becomes(account.lease(), "revoked").await;
    let tables = format!("SELECT count(*) FROM pg_tables WHERE tableowner = '{}'", world.database.owner);
    assert_eq!(world.database.value(&tables).await.unwrap(), "450");
    let code = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    assert_eq!(world.database.value(code).await.unwrap(), "0");
}
