//! The table: a mistake, where it is said to be, and what is said. Each row makes exactly one
//! problem: a mistake that drags others behind it hides what is to be mended.

use super::{BASE, changed, parse, position};

struct Row {
    /// What of the base is replaced.
    from: &'static str,
    to: &'static str,
    /// The first text of the file at which the problem must stand.
    at: &'static str,
    says: &'static str,
}

const fn row(from: &'static str, to: &'static str, at: &'static str, says: &'static str) -> Row {
    Row { from, to, at, says }
}

const LISTEN: &str = "listen = \"127.0.0.1:8700\"";
const KEY: &str = "signing_key = { file = \"data/audit.key\" }";
const URL: &str = "url = \"postgres://jit_broker@127.0.0.1:5432/inventory\"";
const CONNECTION: &str = "kind = \"postgres\"\nurl = \"postgres://jit_broker@127.0.0.1:5432/inventory\"";
const CONNECTION_WITH_PASSWORD: &str = "kind = \"postgres\"\nurl = \"postgres://jit_broker@127.0.0.1:5432/inventory\"\n\
                                        password = { file = \"secrets/inventory\" }";
const ISSUER: &str = "issuer = \"https://kubernetes.default.svc\"";
const ROLE: &str = "roles.reader = { grants = [\"app_read_only\"] }";

#[rustfmt::skip] // A row is a line: it is read as a table.
const ROWS: &[Row] = &[
    // Keys.
    row(LISTEN, "lisen = \"127.0.0.1:8700\"", "lisen", "unknown key `lisen` in [server]: did you mean `listen`?"),
    row(LISTEN, "Listen = \"127.0.0.1:8700\"", "Listen", "unknown key `Listen` in [server]: did you mean `listen`?"),
    row("[server]\n", "[server]\ncolour = \"blue\"\n", "colour", "unknown key `colour` in [server]"),
    row("[server]", "[limit]\n[server]", "limit]", "unknown key `limit` in the file's top level: did you mean `limits`?"),
    row("max_ttl", "maxttl", "maxttl", "unknown key `maxttl` in [targets.inventory_db]: did you mean `max_ttl`?"),
    row("audiences =", "audience =", "[[identity", "`audiences` is missing in [identity.jwt[0]]"),
    row(KEY, "", "audit]", "`signing_key` is missing in [audit]"),
    row("kind = \"postgres\"\n", "", "inventory]", "`kind` is missing in [connections.inventory]"),
    row("driver = \"postgres\"\n", "", "inventory_db]", "`driver` is missing in [targets.inventory_db]"),
    row("plugin = \"allow-list\"\n", "", "allow-listed]", "`plugin` is missing in [policies.allow-listed]"),
    row("path = \"plugins/driver-postgres.wasm\"\n", "", "postgres]", "`path` is missing in [plugins.postgres]"),
    // Types.
    row(LISTEN, "listen = 8700", "8700", "`listen` must be an IP address and port such as \"127.0.0.1:8700\" or \"[::1]:8700\", not a whole number"),
    row("default_ttl = \"1h\"", "default_ttl = true", "true", "`default_ttl` must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years, not true or false"),
    row("default_ttl = \"1h\"", "default_ttl = \"1 hour\"", "\"1 hour\"", "`default_ttl` must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years: whole numbers with the units d, h, m, s, the larger unit first"),
    row("default_ttl = \"1h\"", "default_ttl = \"1.5h\"", "\"1.5h\"", "`default_ttl` must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years"),
    row("default_ttl = \"1h\"", "default_ttl = \"0s\"", "\"0s\"", "`default_ttl` must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years: this is not above zero"),
    row("max_ttl = \"8h\"", "max_ttl = 99999999999999999999999", "99999", "`max_ttl` must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years: this is longer"),
    row("[server]\n", "[server]\nmax_in_flight = \"9\"\n", "\"9\"", "`max_in_flight` must be a whole number from 1 to 100000, not a text"),
    row("[server]\n", "[server]\nmax_in_flight = 0\n", "0\n", "`max_in_flight` must be a whole number from 1 to 100000: this is outside"),
    row("[server]\n", "[server]\nrequest_timeout = \"2h\"\n", "\"2h\"", "`request_timeout` must be from 1s to 10m, not 2h"),
    row("[server]\n", "[server]\nallow_plaintext = \"yes\"\n", "\"yes\"", "`allow_plaintext` must be true or false (without quotes), not a text"),
    row("[server]\n", "[server]\nadmin_socket = \"\"\n", "\"\"", "`admin_socket` must be a path in quotes: it must not be empty"),
    row("[server]\n", "[server]\naccount_prefix = \"V_\"\n", "\"V_\"", "`account_prefix` must be a prefix such as \"v-\": it must be 1 to 12 lower-case letters"),
    row("audiences = [\"jit-broker\"]", "audiences = \"jit-broker\"", "\"jit-broker\"", "`audiences` must be a list such as [\"jit-broker\"], not a text"),
    row("audiences = [\"jit-broker\"]", "audiences = [\"a\", 1]", "1]", "each of `audiences` must be a text in quotes, not a whole number"),
    row("[[identity.jwt]]", "[identity.jwt]", "[identity.jwt]", "`identity.jwt` must be a list of tables: write [[identity.jwt]] with two brackets"),
    row("[server]", "[[server]]", "[[server]]", "`server` must be a table, not a list"),
    row("[server]", "limits = 3\n[server]", "3\n", "`limits` must be a table, not a whole number"),
    row(ROLE, "roles.reader = \"app_read_only\"", "\"app_read_only\"", "role `reader` must be a table such as { grants = [\"app_read_only\"] }, not a text"),
    row(ROLE, "roles.reader = { limit = nan }", "nan", "`limit` must be a finite number"),
    row("[server]", "log = { format = \"jsn\" }\n[server]", "\"jsn\"", "`format` must be one of \"text\", \"json\": did you mean \"json\"?"),
    row("[server]\n", "[server]\nwatch = \"no\"\n", "\"no\"", "`watch` must be true or false (without quotes), not a text"),
    // Addresses.
    row(LISTEN, "listen = \"localhost:8700\"", "\"localhost:8700\"", "`listen` must be an IP address and port such as \"127.0.0.1:8700\" or \"[::1]:8700\": write \"127.0.0.1:8700\" for localhost"),
    row(LISTEN, "listen = \"127.0.0.1\"", "\"127.0.0.1\"", "`listen` must be an IP address and port such as \"127.0.0.1:8700\" or \"[::1]:8700\": the port is missing"),
    row(LISTEN, "listen = \":8700\"", "\":8700\"", "`listen` must be an IP address and port such as \"127.0.0.1:8700\" or \"[::1]:8700\": write \"0.0.0.0:8700\" for all addresses"),
    row(LISTEN, "listen = \"0.0.0.0:8700\"", "\"0.0.0.0:8700\"", "0.0.0.0:8700 is reached from other machines, and passwords would cross the network in clear"),
    row(LISTEN, "listen = \"0.0.0.0:8700\"\ntls = { cert = \"c.pem\" }", "tls", "`key` is missing in [server.tls]"),
    // References.
    row("driver = \"postgres\"", "driver = \"postgre\"", "\"postgre\"", "there is no plugin `postgre`: did you mean `postgres`?"),
    row("connection = \"inventory\"", "connection = \"inventori\"", "\"inventori\"", "there is no connection `inventori`: did you mean `inventory`?"),
    row("policies = [\"allow-listed\"]", "policies = [\"allow-listed\", \"hours\"]", "\"hours\"", "there is no policy `hours`"),
    row("policies = [\"allow-listed\"]", "policies = [\"allow_listed\"]", "\"allow_listed\"", "there is no policy `allow_listed`: did you mean `allow-listed`?"),
    row("policies = [\"allow-listed\"]", "policies = [\"allow-listed\", \"allow-listed\"]", "\"allow-listed\"]", "`allow-listed` is listed twice"),
    row("plugin = \"allow-list\"", "plugin = \"allowlist\"", "\"allowlist\"", "there is no plugin `allowlist`: did you mean `allow-list`?"),
    row("default_role = \"reader\"", "default_role = \"raeder\"", "\"raeder\"", "this target has no role `raeder`: did you mean `reader`?"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nmode = \"enforced\"", "\"enforced\"", "`mode` must be one of \"enforce\", \"shadow\", \"off\": did you mean \"enforce\"?"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nmode = \"shadow\"", "[\"allow-listed\"]", "no policy in force (mode = \"enforce\") among allow-listed: every request would be denied"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nrollout = { percent = 101 }", "101", "`percent` must be a number from 0 to 100: this is outside"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nrollout = { percent = \"10\" }", "\"10\"", "`percent` must be a number from 0 to 100, not a text"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nrollout = { precent = 10 }", "precent", "unknown key `precent` in [policies.allow-listed.rollout]: did you mean `percent`?"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nrollout = { match = { workload = \"payment-[a-z]\" } }", "\"payment-[a-z]\"", "`workload` must be a pattern such as \"payment-*\": it has `[`, and only `*` and `?` are special here"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nrollout = { match = { workload = \"\" } }", "\"\"", "`workload` must be a pattern such as \"payment-*\": it is empty: write a name, or `*` for any"),
    row("plugin = \"allow-list\"", "plugin = \"allow-list\"\nrollout = { match = { attributes = { env = 1 } } }", "1 } } }", "attribute `env` must be a pattern such as \"payment-*\", not a whole number"),
    row("policies = [\"allow-listed\"]", "policies = [\"allow-listed\"]\ncontexts = [\"posture\"]", "\"posture\"", "there is no context provider `posture`"),
    row("[policies.allow-listed]", "[contexts.usage]\nplugin = \"allow-list\"\n[policies.allow-listed]", "usage]", "a context provider cannot be called `usage`"),
    row("[policies.allow-listed]", "[contexts.posture]\n[policies.allow-listed]", "posture]", "`plugin` is missing in [contexts.posture]"),
    row("[policies.allow-listed]", "[contexts.posture]\nplugin = \"allow-list\"\ncache_ttl = \"2h\"\n[policies.allow-listed]", "\"2h\"", "`cache_ttl` must be from 1s to 1h, not 2h"),
    row("[policies.allow-listed]", "[contexts.posture]\nplugin = \"allow-list\"\ncache = false\ncache_ttl = \"1m\"\n[policies.allow-listed]", "\"1m\"", "`cache_ttl` has no meaning with cache = false"),
    row("[policies.allow-listed]", "[contexts.posture]\nplugin = \"allow-list\"\non_failure = \"open\"\n[policies.allow-listed]", "\"open\"", "`on_failure` must be one of \"deny\", \"allow\""),
    row("[policies.allow-listed]", "[contexts.posture]\nplugin = \"allow-list\"\ntimeout = \"1m\"\n[policies.allow-listed]", "\"1m\"", "`timeout` must be from 1s to 30s, not 1m"),
    row("default_ttl = \"1h\"", "default_ttl = \"9h\"", "\"9h\"", "`default_ttl` (9h) is longer than `max_ttl` (8h)"),
    // Names.
    row("[connections.inventory]\n", "[connections.\"a b\"]\nkind = 1\n[connections.inventory]\n", "\"a b\"", "the name `a b` may only have ASCII letters"),
    row(ROLE, "roles.reader = {}\nroles.\"o'brien\" = {}", "\"o'brien\"", "the role's name `o'brien` may only have ASCII letters"),
    // Plugins.
    row("driver-postgres.wasm\"", "driver-postgres.wasm\"\nsha256 = \"abc\"", "\"abc\"", "`sha256` must be 64 hexadecimal digits, as `sha256sum` prints them: it has 3 characters"),
    row("driver-postgres.wasm\"", "driver-postgres.wasm\"\nsha256 = \"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"", "\"zzz", "`sha256` must be 64 hexadecimal digits, as `sha256sum` prints them: it has other characters"),
    row("driver-postgres.wasm\"", "driver-postgres.wasm\"\ngrants = [\"sqll\"]", "[\"sqll\"]", "there is no capability `sqll`: did you mean `sql`?"),
    // Who vouches for plugins.
    row("[plugins.postgres]", "[plugins]\nrequire_signature = \"yes\"\n[plugins.postgres]", "\"yes\"", "`require_signature` must be true or false (without quotes), not a text"),
    row("[plugins.postgres]", "[plugins]\nrequire_signature = true\n[plugins.postgres]", "true\n", "`require_signature` needs `trusted_keys`: without one nothing could be loaded"),
    row("[plugins.postgres]", "[plugins]\nrequire_signatures = true\n[plugins.postgres]", "require_signatures", "unknown key `require_signatures` in [plugins]: did you mean `require_signature`?"),
    row("[plugins.postgres]", "[plugins.require_signature]\npath = \"x\"\n[plugins.postgres]", "require_signature]", "a plugin may not be called `require_signature`: that is a key of [plugins] itself"),
    row("[plugins.postgres]", "[plugins]\ntrusted_keys = \"team\"\n[plugins.postgres]", "\"team\"", "`trusted_keys` must be a list such as [\"name+4f2a91c0+AXx…\"] or [{ file = \"keys/team.pub\" }], not a text"),
    row("[plugins.postgres]", "[plugins]\ntrusted_keys = [7]\n[plugins.postgres]", "7]", "each of `trusted_keys` must be a key in quotes or { file = \"…\" }, not a whole number"),
    row("[plugins.postgres]", "[plugins]\ntrusted_keys = [\"team\"]\n[plugins.postgres]", "\"team\"", "each of `trusted_keys`: not a key: expected a verifier key"),
    row("[plugins.postgres]", "[plugins]\ntrusted_keys = [\"jit-plugin-key-v1:team:AAAA\"]\n[plugins.postgres]", "\"jit-plugin-key", "this is a signing key, and no longer a secret: make another with `jit-broker plugin key`"),
    row("[plugins.postgres]", "[plugins]\ntrusted_keys = [{}]\n[plugins.postgres]", "{}]", "`file` is missing in [plugins.trusted_keys[0]]"),
    row(
        "[plugins.postgres]",
        "[plugins]\ntrusted_keys = [{ file = \"a\" },\n{ file = \"a\" }]\n[plugins.postgres]",
        "{ file = \"a\" }]",
        "this key is listed twice",
    ),
    // Connections.
    row("kind = \"postgres\"", "kind = \"oracle\"", "\"oracle\"", "`kind` must be one of \"postgres\", \"mysql\", \"ldap\", \"http\": not \"oracle\""),
    row(URL, "url = \"mysql://u@h/d\"", "\"mysql", "`url` must be a URL such as \"postgres://jit_broker@127.0.0.1:5432/inventory\": it must begin with postgres://"),
    row(URL, "url = \"postgres://127.0.0.1/d\"", "\"postgres://127", "`url` must be a URL such as \"postgres://jit_broker@127.0.0.1:5432/inventory\": the broker's own user is missing"),
    row(URL, "url = \"postgres://u@h\"", "\"postgres://u", "`url` must be a URL such as \"postgres://jit_broker@127.0.0.1:5432/inventory\": the database is missing"),
    row(URL, "url = \"postgres://u:p@h/d\"", "\"postgres://u:", "`url` must be a URL such as \"postgres://jit_broker@127.0.0.1:5432/inventory\": it must not have a password in it: write password = { file = \"…\" }"),
    row("kind = \"postgres\"", "kind = \"postgres\"\nbind_dn = \"cn=x\"", "bind_dn", "unknown key `bind_dn` in [connections.inventory]"),
    row(URL, "url = \"postgres://u@h/d?sslmode=require\"\nca = \"ca.pem\"", "\"ca.pem\"", "`ca` and the URL's parameters both say how TLS is done"),
    // The way to the server.
    row(URL, "url = \"postgres://u@h/d?sslmode=require\"", "\"postgres://u", "sslmode=require does not verify the server's certificate and name, and the server is on another machine"),
    row(URL, "url = \"postgres://u@h/d?sslmode=verifyfull\"", "\"postgres://u", "`sslmode` must be one of disable, allow, prefer, require, verify-ca, verify-full (`verifyfull`): did you mean `verify-full`?"),
    row(URL, "url = \"postgres://u@127.0.0.1/d?ssl_mode=verify-full\"", "\"postgres://u", "the URL has a setting that is not known (`ssl_mode`): did you mean `sslmode`?"),
    row(URL, "url = \"postgres://u@127.0.0.1/d?hostaddr=10.0.0.7\"", "\"postgres://u", "the URL has a setting that is not known"),
    row(URL, "url = \"postgres://u@h/d\"\nplaintext = {}", "plaintext = {}", "`because` is missing in [connections.inventory.plaintext]"),
    row(URL, "url = \"postgres://u@h/d\"\nplaintext = { because = \"\" }", "\"\"", "`because` must be the reason in quotes: it must not be empty"),
    row(URL, "url = \"postgres://u@h/d\"\nca = \"ca.pem\"\nplaintext = { because = \"x\" }", "\"ca.pem\"", "`ca` has no meaning with `plaintext`"),
    row(CONNECTION, "kind = \"mysql\"\nurl = \"mysql://u@h?sslmode=VERIFY_IDENTITY\"", "\"mysql://u", "the URL has a setting that is not known (`sslmode`): did you mean `ssl-mode`?"),
    row(CONNECTION, "kind = \"mysql\"\nurl = \"mysql://u@h?ssl-mode=REQUIRED\"", "\"mysql://u", "ssl-mode=REQUIRED does not verify the server's certificate and name"),
    row(CONNECTION, "kind = \"mysql\"\nurl = \"postgres://u@h/d\"", "\"postgres://u", "`url` must be a URL such as \"mysql://jit_broker@127.0.0.1:3306/inventory\": it must begin with mysql://"),
    row(CONNECTION, "kind = \"mysql\"\nurl = \"mysql://h/d\"", "\"mysql://h", "`url` must be a URL such as \"mysql://jit_broker@127.0.0.1:3306/inventory\": the broker's own user is missing"),
    row(CONNECTION, "kind = \"ldap\"\nurl = \"ldaps://h\"", "inventory]", "`bind_dn` is missing in [connections.inventory]"),
    row(CONNECTION, "kind = \"ldap\"\nbind_dn = \"jit\"\nurl = \"ldaps://h\"", "\"jit\"", "`bind_dn` must be the distinguished name of the broker's own account: as in"),
    row(CONNECTION, "kind = \"ldap\"\nbind_dn = \"cn=j\"\nurl = \"ldaps://h/dc=example\"", "\"ldaps://h", "`url` must be a URL such as \"ldaps://directory.example.com\": it must end with host and port"),
    row(CONNECTION, "kind = \"ldap\"\nbind_dn = \"cn=j\"\nurl = \"ldap://10.0.0.1\"\nplaintext = true", "true", "`plaintext` must say why the server need not be verified"),
    row(CONNECTION, "kind = \"ldap\"\nbind_dn = \"cn=j\"\nurl = \"ldaps://127.0.0.1\"\nplaintext = { because = \"x\" }", "{ because", "`plaintext` contradicts ldaps://"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"ldap\"\nbind_dn = \"cn=j\"\nurl = \"ldaps://h\"", "inventory]", "`password` is missing in [connections.inventory]"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"http\"\nurl = \"http://10.0.0.1\"", "\"http://10", "http:// is not encrypted, and the server is on another machine: whoever answers in its place gets the passwords"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"http\"\nurl = \"https://h?x=1\"", "\"https://h?", "`url` must be a URL such as \"https://vault.example.com:8200\": it must end with its path"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"http\"\nurl = \"https://h\"\naddresses = [\"vault\"]", "[\"vault\"]", "`vault` is not an IP address"),
    row(CONNECTION, "kind = \"http\"\nurl = \"https://h\"", "password", "unknown key `password` in [connections.inventory]"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"http\"\nurl = \"https://h\"\nsecrets = { jwt = {} }", "{} }", "`jwt` must have either `file` or `env`"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"http\"\nurl = \"https://h\"\nsecrets = { jwt = \"hunter2\" }", "\"hunter2\"", "`jwt` must not stand in the configuration: say where it is, never what it is"),
    row(CONNECTION_WITH_PASSWORD, "kind = \"http\"\nurl = \"https://h\"\nsecrets = { \"a b\" = { env = \"X\" } }", "\"a b\"", "the name `a b` may only have letters"),
    row("max_ttl = \"8h\"", "max_ttl = \"8h\"\nendpoint = { scheme = \"postgres://\" }", "\"postgres://\"", "`scheme` must be what callers speak there, such as \"postgres\" or \"mysql\": lower-case letters"),
    // Secrets.
    row(KEY, "signing_key = \"hunter2\"", "\"hunter2\"", "`signing_key` must not stand in the configuration: say where it is, never what it is"),
    row(KEY, "signing_key = {}", "{}", "`signing_key` must have either `file` or `env`"),
    row(KEY, "signing_key = { file = \"a\", env = \"B\" }", "{ file = \"a\"", "`signing_key` must have either `file` or `env`"),
    row(KEY, "signing_key = { env = \"hunter 2\" }", "\"hunter 2\"", "`env` must be the name of an environment variable"),
    // Identity.
    row(ISSUER, "issuer = \"http://issuer.example.com\"", "\"http://", "`issuer` must be the issuer's https URL: http is for 127.0.0.1 and localhost only"),
    row(ISSUER, "issuer = \"issuer\"", "\"issuer\"", "`issuer` must be the issuer's https URL: this is not a URL"),
    row(ISSUER, "issuer = \"https://u:p@i.example.com\"", "\"https://u", "`issuer` must be the issuer's https URL: it must not have a user or password"),
    row(ISSUER, "issuer = \"spiffe://shop.example\"", "\"spiffe", "`issuer` must be the issuer's https URL: it must begin with https://"),
    row(ISSUER, "issuer = \"https://i.example.com?x=1\"", "\"https://i", "`issuer` must be the issuer's https URL: it must not have a query or fragment"),
    row("\"{sub}\"", "\"{sub}\"\njwks_url = \"http://keys.example.com/jwks\"", "\"http://", "`jwks_url` must be the https URL of the key set: http is for 127.0.0.1 and localhost only"),
    row("audiences = [\"jit-broker\"]", "audiences = [\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]", "[\"a\",", "`audiences` must have at most 16"),
    row("audiences = [\"jit-broker\"]", "audiences = []", "[]", "`audiences` must have at least one"),
    row("\"{sub}\"", "\"sub\"", "\"sub\"", "`workload` must be claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\": without a claim every token would be the same workload: did you mean \"{sub}\"?"),
    row("\"{sub}\"", "\"{sub\"", "\"{sub\"", "`workload` must be claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\": each { needs its }"),
    row("\"{sub}\"", "\"{a}{b}\"", "\"{a}{b}\"", "`workload` must be claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\": two claims need a text between them"),
    row("\"{sub}\"", "\"{sub}\"\nalgorithms = [\"HS256\"]", "[\"HS256\"]", "`HS256` is not accepted: with it, whoever can check a token can make one"),
    row("\"{sub}\"", "\"{sub}\"\nalgorithms = [\"none\"]", "[\"none\"]", "`none` is not accepted: a token without a signature proves nothing"),
    row("\"{sub}\"", "\"{a{b}}\"", "\"{a{b}}\"", "`workload` must be claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\": a claim path has without braces here"),
    row("\"{sub}\"", "\"{}\"", "\"{}\"", "`workload` must be claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\": a claim path has 1 to 256 bytes with at most 16 dots"),
    row("\"{sub}\"", "\"{sub}\"\nalgorithms = []", "[]", "`algorithms` must have at least one, or be left out"),
    row("\"{sub}\"", "\"{sub}\"\nalgorithms = [\"rs256\"]", "[\"rs256\"]", "`rs256` is not accepted: there are: RS256, RS384"),
    row("\"{sub}\"", "\"{sub}\"\nattributes = { \"a b\" = \"env\" }", "\"a b\"", "the name `a b` may only have ASCII letters"),
    row("\"{sub}\"", "\"{sub}\"\nmax_stale = \"1s\"", "\"1s\"", "`max_stale` must be from 1m to 30d, not 1s"),
    row("\"{sub}\"", "\"{sub}\"\nattributes = { env = 1 }", "1 }", "attribute `env` must be a claim path such as \"kubernetes.io.namespace\", not a whole number"),
    row("\"{sub}\"", "\"{sub}\"\nattributes = { env = \"{env}\" }", "\"{env}\"", "attribute `env` must be a claim path: without braces here"),
    row("\"{sub}\"", "\"{sub}\"\nleeway = \"1h\"", "\"1h\"", "`leeway` must be from 1s to 2m, not 1h"),
    row(
        "\"{sub}\"",
        "\"{sub}\"\n[[identity.jwt]]\nname = \"cluster\"\nissuer = \"https://other\"\naudiences = [\"a\"]\nworkload = \"{sub}\"",
        "\"cluster\"\nissuer = \"https://other",
        "there is another identity `cluster`: each needs a name of its own",
    ),
    row(
        "\"{sub}\"",
        "\"{sub}\"\n[[identity.jwt]]\nname = \"b\"\nissuer = \"https://kubernetes.default.svc\"\naudiences = [\"a\", \"jit-broker\"]\nworkload = \"{sub}\"",
        "\"https://kubernetes.default.svc\"\naudiences = [\"a\"",
        "`cluster` has the same issuer and audience",
    ),
    // Store and audit.
    row("[server]", "store = { url = \"postgres://h/d\" }\n[server]", "\"postgres://h", "`url` must be a store such as \"sqlite:data/broker.db\": the broker's own user is missing, as in user@host"),
    row("[server]", "store = { url = \"postgres://u@h\" }\n[server]", "\"postgres://u", "`url` must be a store such as \"sqlite:data/broker.db\": the database is missing"),
    row("[server]", "store = { url = \"postgres://u@127.0.0.1,,[::1]/d\" }\n[server]", "\"postgres://u", "`url` must be a store such as \"sqlite:data/broker.db\": "),
    row("[server]", "store = { url = \"postgres://u:geheim@127.0.0.1/d\" }\n[server]", "\"", "`url` must be a store such as \"sqlite:data/broker.db\": it must not have a password in it"),
    row("[server]", "store = { url = \"postgres://u@127.0.0.1,db.example/d?sslmode=disable\" }\n[server]", "\"postgres://u", "sslmode=disable does not verify the server's certificate and name"),
    row("[server]", "store = { url = \"sqlite:a.db\", password = { file = \"p\" } }\n[server]", "{ file = \"p\" }", "`password` is of a store in a database: `url` names a file"),
    row("[server]", "store = { url = \"sqlite::memory:\" }\n[server]", "\"sqlite:", "`url` must be a store such as \"sqlite:data/broker.db\": leases must outlive the process: name a file"),
    row("[server]", "store = { url = \"data.db\" }\n[server]", "\"data.db", "`url` must be a store such as \"sqlite:data/broker.db\": it must begin with \"sqlite:\" or \"postgres://\""),
    row(KEY, "signing_key = { file = \"k\" }\norigin = \"a b\"", "\"a b\"", "`origin` must be the log's name such as \"example.com/jit-broker\": 1 to 255 bytes without spaces"),
    row(KEY, "signing_key = { file = \"k\" }\nexport = [{ kind = \"syslog\", path = \"p\" }]", "\"syslog\"", "`kind` must be one of \"jsonl\": not \"syslog\""),
    row(KEY, "signing_key = { file = \"k\" }\nexport = [{ kind = \"jsonl\" }]", "{ kind", "`path` is missing in [audit.export[0]]"),
    row(
        KEY,
        "signing_key = { file = \"k\" }\nexport = [{ kind = \"jsonl\", path = \"p\" },\n{ kind = \"jsonl\", path = \"./p\" }]",
        "{ kind = \"jsonl\", path = \"./p\"",
        "two exports to one file would write into each other",
    ),
    // Not TOML.
    row("default_ttl = \"1h\"", "default_ttl = 1h", "1h\nmax", "not TOML: "),
    row("[server]\n", "[server\n", "\nlisten", "not TOML: "),
    row("max_ttl = \"8h\"", "default_ttl = \"8h\"", "default_ttl = \"8h\"", "not TOML: duplicate key: `default_ttl` is there twice, first on line "),
    row("policies = [\"allow-listed\"]", "policies = [\"allow-listed\"", "[\"allow-listed\"\n", "not TOML: this list is not closed: a ] is missing"),
    row("[server]\n", "[server]\n[targets.inventory_db.config]\nx = 1\n[targets.inventory_db.config]\n", "config]\nlisten", "not TOML: duplicate key"),
];

#[test]
fn each_mistake_is_told_once_at_its_place_with_what_to_write() {
    let mut wrong = String::new();
    for row in ROWS {
        let text = changed(row.from, row.to);
        let errors = parse(&text).expect_err(row.says);
        let told: Vec<_> = errors.problems().iter().map(super::super::Problem::plain).collect();
        let expected = format!("broker.toml:{}: {}", position(&text, row.at), row.says);
        // A missing key beside its misspelt one is the one pair that is told twice.
        let slip = row.from == "audiences =";
        let there = told.iter().any(|told| told.starts_with(&expected));
        if !there || told.len() != if slip { 2 } else { 1 } {
            wrong.push_str(&format!("expected {expected}\ntold {told:#?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_target_without_policy_or_role_is_shown_how_to_have_one() {
    for (from, place) in [("policies = [\"allow-listed\"]\n", "inventory_db]"), ("[\"allow-listed\"]", "[]")] {
        let text = changed(from, if place == "[]" { "[]" } else { "" });
        let errors = parse(&text).unwrap_err();
        let told = errors.problems().iter().find(|problem| problem.message.starts_with("no policy: a target")).unwrap();
        assert!(told.plain().starts_with(&format!("broker.toml:{}: ", position(&text, place))), "{}", told.plain());
        let help = told.help.as_deref().unwrap();
        assert!(help.contains("[[policies.allow-listed.config.rules]]") && help.contains("[targets.inventory_db]"));
    }
    let text = BASE.replace(ROLE, "").replace("default_role = \"reader\"\n", "");
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.problems().len(), 1, "{errors:?}");
    assert!(
        errors.problems()[0]
            .plain()
            .starts_with(&format!("broker.toml:{}: no role:", position(&text, "inventory_db]")))
    );
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    let errors = parse("").unwrap_err().render(false);
    for needed in ["`signing_key` is missing in [audit] (add `[audit]`)", "warning: no target"] {
        assert!(errors.contains(needed), "{errors}");
    }
}

#[test]
fn all_mistakes_are_told_in_one_run_in_the_order_of_the_file() {
    let text = BASE
        .replace("listen", "lisen")
        .replace("\"1h\"", "\"never\"")
        .replace("data/audit.key\" }", "data/audit.key\", mode = 1 }")
        .replace("\"postgres\"\nconnection", "\"postgre\"\nconnection")
        .replace("audiences = [\"jit-broker\"]", "audiences = []");
    let errors = parse(&text).unwrap_err();
    let lines: Vec<_> = errors.problems().iter().map(|problem| problem.place.as_ref().unwrap().line).collect();
    assert_eq!(lines.len(), 5, "{}", errors.render(false));
    assert!(lines.is_sorted());
    assert_eq!(errors.to_string(), "broker.toml: 5 mistakes");
}

#[test]
fn what_is_not_used_is_a_warning() {
    let text = format!(
        "{BASE}\n[plugins.extra]\npath = \"x\"\n[connections.spare]\nkind = \"postgres\"\nurl = \"postgres://u@h/d\"\n\
         [policies.spare-policy]\nplugin = \"allow-list\"\n"
    );
    let config = parse(&text).unwrap();
    let told: Vec<_> = config.warnings.iter().map(super::super::Problem::plain).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    for (told, (at, says)) in told.iter().zip([
        ("extra]", "the plugin `extra` is not used"),
        ("spare]", "the connection `spare` is not used"),
        ("spare-policy]", "the policy `spare-policy` is not used"),
    ]) {
        assert!(told.starts_with(&format!("broker.toml:{}: warning: {says}", position(&text, at))), "{told}");
    }
}

#[test]
fn a_driver_that_may_outlast_its_request_is_a_warning() {
    let config = parse(&changed("max_ttl = \"8h\"", "max_ttl = \"8h\"\ntimeout = \"2m\"")).unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].message.contains("`request_timeout` (60s)"), "{}", config.warnings[0]);
}

#[test]
fn plain_output_shows_the_line_and_the_allowed_keys() {
    let errors = parse(&changed(LISTEN, "\tlisen = \"127.0.0.1:8700\"")).unwrap_err();
    let shown = errors.render(false);
    let expected = "broker.toml:2:2: unknown key `lisen` in [server]: did you mean `listen`?\n\
                    \x20 2 |  lisen = \"127.0.0.1:8700\"\n\
                    \x20   |  ^^^^^\n\
                    \x20   allowed here: account_prefix, admin_socket, allow_plaintext, head_timeout, idle_timeout, \
                    listen, max_connections, max_connections_per_address, max_in_flight, operator_listen, \
                    request_timeout, shutdown_grace, tls, watch, write_timeout\n\
                    broker.toml: 1 mistake\n";
    assert_eq!(shown, expected);
}

#[test]
fn a_terminal_gets_frames() {
    let shown = parse(&changed(LISTEN, "lisen = \"127.0.0.1:8700\"")).unwrap_err().render(true);
    for part in ["broker.toml:2:1", "lisen = \"127.0.0.1:8700\"", "did you mean `listen`?", "allowed here"] {
        assert!(shown.contains(part), "{shown}");
    }
}
