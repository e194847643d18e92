//! The `ldap` capability and its driver against real servers: OpenLDAP as `JIT_TEST_LDAP` (StartTLS),
//! `JIT_TEST_LDAPS`, `JIT_TEST_LDAP_CA`, `JIT_TEST_LDAP_BROKER` and `JIT_TEST_LDAP_BROKER_PASSWORD`, set
//! up with the files of `plugins/driver-ldap/setup`; Active Directory likewise as `JIT_TEST_AD…`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fixtures::{account, account_named, bench, role, scope, target};
use jit_core::account::AccountName;
use jit_core::driver::{AccountView, RoleView, RotationStep, TargetView};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::generate_password;
use jit_runtime::{DriverScope, Lane, LdapConnection, LdapConnectionOptions, directory_login};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

/// A directory, and where in it accounts and groups are.
struct Server {
    url: Url,
    ca: Vec<u8>,
    broker: String,
    password: SecretString,
    flavour: &'static str,
    accounts: &'static str,
    groups: &'static str,
    name_attribute: &'static str,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set: run `cargo xtask test`"))
}

fn openldap(url: &str) -> Server {
    Server {
        url: Url::parse(&variable(url)).unwrap(),
        ca: std::fs::read(variable("JIT_TEST_LDAP_CA")).unwrap(),
        broker: variable("JIT_TEST_LDAP_BROKER"),
        password: SecretString::from(variable("JIT_TEST_LDAP_BROKER_PASSWORD")),
        flavour: "openldap",
        accounts: "ou=jit,dc=example,dc=test",
        groups: "ou=groups,dc=example,dc=test",
        name_attribute: "uid",
    }
}

fn active_directory() -> Server {
    Server {
        url: Url::parse(&variable("JIT_TEST_AD")).unwrap(),
        ca: std::fs::read(variable("JIT_TEST_AD_CA")).unwrap(),
        broker: variable("JIT_TEST_AD_BROKER"),
        password: SecretString::from(variable("JIT_TEST_AD_BROKER_PASSWORD")),
        flavour: "active-directory",
        accounts: "OU=JIT,DC=corp,DC=test",
        groups: "OU=Groups,DC=corp,DC=test",
        name_attribute: "cn",
    }
}

impl Server {
    fn options(&self) -> LdapConnectionOptions {
        LdapConnectionOptions {
            name: "people".to_owned(),
            url: self.url.clone(),
            plaintext: false,
            ca: Some(self.ca.clone()),
            bind_dn: self.broker.clone(),
            password: self.password.clone(),
            max_connections: 4,
            connect_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(10),
        }
    }

    fn scope(&self) -> DriverScope {
        scope_on(self.options())
    }

    fn target(&self, more: &str) -> TargetView {
        let groups =
            if self.flavour == "openldap" { format!(r#", "groups_base": "{}""#, self.groups) } else { String::new() };
        target(&format!(r#"{{"flavour": "{}", "accounts_base": "{}"{groups}{more}}}"#, self.flavour, self.accounts))
    }

    fn role(&self) -> RoleView {
        self.role_of("app_read_only")
    }

    fn role_of(&self, group: &str) -> RoleView {
        role(&format!(r#"{{"groups": ["cn={group},{}"]}}"#, self.groups))
    }

    fn entry(&self, name: &str) -> String {
        format!("{}={name},{}", self.name_attribute, self.accounts)
    }

    async fn login(&self, entry: &str, password: &SecretString) -> bool {
        directory_login(&self.url, Some(&self.ca), entry, password, Duration::from_secs(10)).await.unwrap()
    }
}

fn scope_on(options: LdapConnectionOptions) -> DriverScope {
    let connection = Arc::new(LdapConnection::new(options).unwrap());
    DriverScope { connection: Some(connection), ..scope() }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn removal(scope: &DriverScope) -> DriverScope {
    DriverScope { lane: Lane::Removal, ..scope.clone() }
}

/// From nothing to nothing.
async fn life(server: &Server) {
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target, role) = (server.scope(), server.target(""), server.role());
    let mut account = account();
    let name = account.name.as_str().to_owned();
    let entry = server.entry(&name);
    let password = generate_password();

    let valid = driver.validate(&scope, &target, std::slice::from_ref(&role)).await;
    assert_eq!(valid, Outcome::Done(()));
    let issued = driver.create(&scope, &target, &role, &account, &password).await;
    let Outcome::Done(issued) = issued else { panic!("{issued:?}") };
    let dn = issued.properties.iter().find(|(key, _)| key == "dn").map(|(_, value)| value.clone());
    assert_eq!(dn.as_deref(), Some(entry.as_str()));
    assert!(server.login(&entry, &password).await);
    assert!(!server.login(&entry, &generate_password()).await);

    let again = driver.create(&scope, &target, &role, &account, &password).await;
    assert!(matches!(again, Outcome::Refused(Refusal::Conflict(_))), "{again:?}");
    assert!(server.login(&entry, &password).await, "an account that was there is left alone");

    account.expires_at += 600;
    assert_eq!(driver.renew(&scope, &target, &role, &account).await, Outcome::Done(account.expires_at));
    let Outcome::Done(state) = driver.inspect(&scope, &target, &name).await else { panic!() };
    assert!(state.can_login && state.expires_at == Some(account.expires_at), "{state:?}");
    let groups = &state.properties[0].1;
    assert!(groups.to_lowercase().starts_with("cn=app_read_only,"), "{groups}");

    let rotated = generate_password();
    let staged = driver.rotate(&scope, &target, &account, RotationStep::Stage, Some(&rotated)).await;
    assert_eq!(staged, Outcome::Done(()));
    assert!(server.login(&entry, &rotated).await);

    let page = driver.list_accounts(&scope, &target, "v-payments-", None).await;
    assert!(matches!(&page, Outcome::Done(page) if page.names.contains(&name)), "{page:?}");

    let removal = removal(&scope);
    assert_eq!(driver.revoke(&removal, &target, &account).await, Outcome::Done(()));
    assert!(!server.login(&entry, &rotated).await);
    assert_eq!(driver.inspect(&scope, &target, &name).await, Outcome::Refused(Refusal::NotFound));
    assert_eq!(driver.revoke(&removal, &target, &account).await, Outcome::Done(()));
    let gone = driver.renew(&scope, &target, &role, &account).await;
    assert_eq!(gone, Outcome::Refused(Refusal::NotFound));
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

/// An account whose lease ends in three seconds, and is not removed.
async fn expiry(server: &Server) {
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target) = (server.scope(), server.target(""));
    let (password, account) = (generate_password(), AccountView { expires_at: now() + 3, ..account() });
    let issued = driver.create(&scope, &target, &server.role(), &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    let entry = server.entry(account.name.as_str());
    // The server has a clock of its own, which counts seconds.
    while now() < account.expires_at + 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!server.login(&entry, &password).await, "BACKSTOP");
    assert_eq!(driver.revoke(&removal(&scope), &target, &account).await, Outcome::Done(()));
}

#[tokio::test]
async fn an_openldap_account_lives_and_dies() {
    life(&openldap("JIT_TEST_LDAPS")).await;
}

#[tokio::test]
async fn start_tls_serves_as_well() {
    life(&openldap("JIT_TEST_LDAP")).await;
}

#[tokio::test]
async fn an_active_directory_account_lives_and_dies() {
    life(&active_directory()).await;
}

#[tokio::test]
async fn an_openldap_account_ends_without_the_broker() {
    expiry(&openldap("JIT_TEST_LDAPS")).await;
}

#[tokio::test]
async fn an_active_directory_account_ends_without_the_broker() {
    expiry(&active_directory()).await;
}

#[tokio::test]
async fn hostile_names_are_only_names() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let scope = server.scope();
    let target = server.target(r#", "attributes": {"description": "of {workload}"}"#);
    for (hostile, escaped) in [
        ("v-a,ou=groups", "v-a\\,ou\\=groups"),
        ("v-*", "v-*"),
        ("v-x)(uid=*", "v-x)(uid\\=*"),
        ("v-a+cn=b", "v-a\\+cn\\=b"),
        ("v-\\2c\"<>;#", "v-\\\\2c\\\"\\<\\>\\;#"),
        ("v-größe", "v-größe"),
    ] {
        let password = generate_password();
        let account = AccountView {
            workload: format!("{hostile}\u{0},=*)({{name}}"),
            ..account_named(AccountName::from_backend(hostile))
        };
        let issued = driver.create(&scope, &target, &server.role(), &account, &password).await;
        assert!(matches!(issued, Outcome::Done(_)), "{hostile}: {issued:?}");
        assert!(server.login(&server.entry(escaped), &password).await, "{hostile}");
        let state = driver.inspect(&scope, &target, hostile).await;
        assert!(matches!(&state, Outcome::Done(state) if state.properties.len() == 1), "{hostile}: {state:?}");
        assert_eq!(driver.revoke(&removal(&scope), &target, &account).await, Outcome::Done(()), "{hostile}");
        assert_eq!(driver.inspect(&scope, &target, hostile).await, Outcome::Refused(Refusal::NotFound));
    }
    let nobody = driver.inspect(&scope, &target, "cn=nobody,ou=groups,dc=example,dc=test").await;
    assert_eq!(nobody, Outcome::Refused(Refusal::NotFound));
}

#[tokio::test]
async fn what_cannot_be_granted_leaves_no_account() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target) = (server.scope(), server.target(""));
    for (group, word) in [("no_such_group", "does not exist"), ("nobody", "group")] {
        let account = account();
        let issued = driver.create(&scope, &target, &server.role_of(group), &account, &generate_password()).await;
        assert!(matches!(&issued, Outcome::Refused(Refusal::Target(text)) if text.contains(word)), "{issued:?}");
        let left = driver.inspect(&scope, &target, account.name.as_str()).await;
        assert_eq!(left, Outcome::Refused(Refusal::NotFound));
    }
    let missing = driver.validate(&scope, &target, &[server.role_of("no_such_group")]).await;
    let text = "groups[0]";
    assert!(matches!(&missing, Outcome::Refused(Refusal::Configuration(said)) if said.contains(text)), "{missing:?}");
}

#[tokio::test]
async fn a_broker_without_rights_is_told_so() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target, role) = (server.scope(), server.target(""), server.role());
    let (powerless, password) = (account(), generate_password());
    let issued = driver.create(&scope, &target, &role, &powerless, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");

    let bind_dn = server.entry(powerless.name.as_str());
    let weak = scope_on(LdapConnectionOptions { bind_dn, password, ..server.options() });
    let refused = driver.create(&weak, &target, &role, &account(), &generate_password()).await;
    assert!(matches!(&refused, Outcome::Refused(Refusal::Target(_))), "{refused:?}");
    let blind = driver.validate(&weak, &target, std::slice::from_ref(&role)).await;
    assert!(matches!(&blind, Outcome::Refused(Refusal::Configuration(_))), "{blind:?}");
    assert_eq!(driver.revoke(&removal(&scope), &target, &powerless).await, Outcome::Done(()));
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_or_reached_is_unavailable() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let starttls = openldap("JIT_TEST_LDAP");
    let mut nowhere = server.url.clone();
    nowhere.set_port(Some(9)).unwrap();
    let stranger = rcgen_authority();
    let cases = [
        LdapConnectionOptions { ca: None, ..server.options() },
        LdapConnectionOptions { ca: Some(stranger.clone()), ..server.options() },
        LdapConnectionOptions { ca: Some(stranger), ..starttls.options() },
        LdapConnectionOptions { url: nowhere, ..server.options() },
        LdapConnectionOptions { password: generate_password(), ..server.options() },
        // This server lets nobody bind without encryption.
        LdapConnectionOptions { plaintext: true, ca: None, ..starttls.options() },
    ];
    for (number, options) in cases.into_iter().enumerate() {
        let connection = LdapConnection::new(options.clone()).unwrap();
        assert!(connection.ping().await.is_err(), "case {number}");
        let issued = driver
            .create(&scope_on(options), &server.target(""), &server.role(), &account(), &generate_password())
            .await;
        assert!(matches!(&issued, Outcome::Refused(Refusal::Unavailable { .. })), "case {number}: {issued:?}");
    }
    LdapConnection::new(server.options()).unwrap().ping().await.unwrap();
}

/// An authority that signed nothing.
fn rcgen_authority() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.self_signed(&key).unwrap().pem().into_bytes()
}

#[tokio::test]
async fn a_dynamic_account_has_a_time_to_live() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target, role) = (server.scope(), server.target(r#", "dynamic": true"#), server.role());
    let (mut account, password) = (AccountView { now: now(), ..account() }, generate_password());
    let valid = driver.validate(&scope, &target, std::slice::from_ref(&role)).await;
    assert_eq!(valid, Outcome::Done(()));
    let issued = driver.create(&scope, &target, &role, &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    account.expires_at += 60;
    assert_eq!(driver.renew(&scope, &target, &role, &account).await, Outcome::Done(account.expires_at));
    assert_eq!(driver.revoke(&removal(&scope), &target, &account).await, Outcome::Done(()));
}

#[tokio::test]
async fn a_server_that_hashes_gets_the_password_itself() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target) = (server.scope(), server.target(r#", "password": "plain""#));
    let (account, password) = (account(), generate_password());
    let issued = driver.create(&scope, &target, &server.role(), &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    assert!(server.login(&server.entry(account.name.as_str()), &password).await);
    assert_eq!(driver.revoke(&removal(&scope), &target, &account).await, Outcome::Done(()));
}

/// A way to the server on which its answers can be held back.
struct Gate {
    port: u16,
    is_shut: Arc<AtomicBool>,
}

impl Gate {
    async fn before(server: &Server) -> Self {
        let address = (server.url.host_str().unwrap().to_owned(), server.url.port().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_shut = Arc::new(AtomicBool::new(false));
        let shut = Arc::clone(&is_shut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect(address.clone()).await else { continue };
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let shut = Arc::clone(&shut);
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                        while shut.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        if to_client.write_all(&bytes[..read]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { port, is_shut }
    }

    fn shut(&self, shut: bool) {
        self.is_shut.store(shut, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_creation_without_an_answer_is_over_before_its_account_is_removed() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let gate = Gate::before(&server).await;
    let mut url = server.url.clone();
    url.set_port(Some(gate.port)).unwrap();
    let timeout = Duration::from_secs(2);
    let options =
        LdapConnectionOptions { url, operation_timeout: timeout, connect_timeout: timeout, ..server.options() };
    let (scope, target, role) = (scope_on(options), server.target(""), server.role());
    let removal = removal(&scope);
    let account = account();
    let name = account.name.as_str();
    // A connection for each lane.
    for scope in [&scope, &removal] {
        let state = driver.inspect(scope, &target, name).await;
        assert_eq!(state, Outcome::Refused(Refusal::NotFound));
    }

    gate.shut(true);
    let issued = driver.create(&scope, &target, &role, &account, &generate_password()).await;
    assert!(matches!(issued, Outcome::Unknown(_)), "{issued:?}");
    let direct = server.scope();
    let state = driver.inspect(&direct, &target, name).await;
    assert!(matches!(state, Outcome::Done(_)), "the server made it: {state:?}");
    // Nothing of the removal is sent while the creation has no answer.
    let revoked = driver.revoke(&removal, &target, &account).await;
    assert!(matches!(revoked, Outcome::Refused(Refusal::Unavailable { .. })), "{revoked:?}");
    assert!(matches!(driver.inspect(&direct, &target, name).await, Outcome::Done(state) if state.can_login));

    gate.shut(false);
    assert_eq!(driver.revoke(&removal, &target, &account).await, Outcome::Done(()));
    assert_eq!(driver.inspect(&direct, &target, name).await, Outcome::Refused(Refusal::NotFound));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_account_behind() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let gate = Gate::before(&server).await;
    let mut url = server.url.clone();
    url.set_port(Some(gate.port)).unwrap();
    let (scope, target, role) =
        (scope_on(LdapConnectionOptions { url, ..server.options() }), server.target(""), server.role());
    let account = account();
    let warm = driver.inspect(&scope, &target, account.name.as_str()).await;
    assert_eq!(warm, Outcome::Refused(Refusal::NotFound));
    gate.shut(true);
    let password = generate_password();
    let hurried = DriverScope { deadline: Duration::from_millis(500), ..scope.clone() };
    let issued = driver.create(&hurried, &target, &role, &account, &password).await;
    assert!(matches!(issued, Outcome::Unknown(_)), "{issued:?}");
    gate.shut(false);
    assert_eq!(driver.revoke(&removal(&scope), &target, &account).await, Outcome::Done(()));
    let gone = driver.inspect(&scope, &target, account.name.as_str()).await;
    assert_eq!(gone, Outcome::Refused(Refusal::NotFound));
}

#[tokio::test]
async fn more_accounts_than_the_server_gives_at_once_are_listed() {
    let server = openldap("JIT_TEST_LDAPS");
    let bench = bench();
    let driver = bench.driver("driver-ldap");
    let (scope, target, role) = (server.scope(), server.target(""), server.role());
    let password = generate_password();
    // Another run may be at it on the same server.
    let prefix = format!("v-many{}-", std::process::id());
    let accounts: Vec<AccountView> =
        (0..505).map(|number| account_named(AccountName::from_backend(format!("{prefix}{number}")))).collect();
    for account in &accounts {
        let issued = driver.create(&scope, &target, &role, account, &password).await;
        assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = driver.list_accounts(&scope, &target, &prefix, cursor.as_deref()).await;
        let Outcome::Done(page) = page else { panic!("{page:?}") };
        seen.extend(page.names);
        pages += 1;
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let mut expected: Vec<String> = accounts.iter().map(|account| account.name.as_str().to_owned()).collect();
    expected.sort();
    assert_eq!(seen, expected);
    assert!(pages > 1, "505 do not fit on a page");
    for account in &accounts {
        assert_eq!(driver.revoke(&removal(&scope), &target, account).await, Outcome::Done(()));
    }
}
