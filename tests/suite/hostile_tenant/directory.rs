//! The hostile holder of a lease on LDAP and Active Directory.

use jit_tests::backend::{Backend, BackendWorld, TARGET};
use jit_tests::kit::directory::Administered;
use jit_tests::servers::{Change, Directory, Scope};
use jit_tests::world::eventually;
use jit_tests::{Reply, random_name};
use serde_json::json;
use tokio::task::spawn_blocking;
use xtask::servers::slapd::{self, SlapdServer};
use xtask::steps::Steps;

const SUCCESS: u32 = 0;
const INSUFFICIENT_ACCESS: u32 = 50;
const SETTING: &str = "cn=setting,ou=app,dc=example,dc=test";

/// A connection of the lease's holder.
fn as_holder(server: &Administered, world: &BackendWorld, issued: &Reply) -> Directory {
    let mut directory = Directory::connect(&server.url, server.ca.as_ref()).unwrap();
    let code = directory.bind(&world.login.entry(issued.username()).unwrap(), issued.password()).unwrap();
    assert_eq!(code, SUCCESS, "the holder cannot log in");
    directory
}

/// Whether somebody can log in to that entry with that password.
fn logs_in(server: &Administered, entry: &str, password: &str) -> bool {
    let mut directory = Directory::connect(&server.url, server.ca.as_ref()).unwrap();
    directory.bind(entry, password).unwrap() == SUCCESS
}

async fn revoke(world: &BackendWorld, issued: &Reply) -> (u16, String) {
    let revoked = world.lease_call(issued, "revoke", &json!({})).await.unwrap();
    (revoked.status, revoked.json["state"].as_str().unwrap_or_default().to_owned())
}

async fn is_revoked(world: &BackendWorld, issued: &Reply) {
    eventually("the lease is revoked", async || world.lease(issued.lease()).unwrap()["state"] == "revoked").await;
}

/// What the audit log says of removals that did not succeed.
fn failures(world: &BackendWorld) -> String {
    world.events("revoke.failed").unwrap().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_openldap_account_under_the_shipped_rules_changes_nothing_and_reads_nothing_after_its_lease() {
    let backend = Backend::openldap();
    let Backend::OpenLdap(server) = &backend else { unreachable!() };
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let issued = world.granted("1h").await.unwrap();
    let entry = world.login.entry(issued.username()).unwrap();
    let mut holder = as_holder(server, &world, &issued);
    assert_eq!(holder.values(SETTING, "description").unwrap(), ["one"], "what the role is for");

    let group = "cn=app_read_write,ou=groups,dc=example,dc=test";
    let child: &[(&str, &[&[u8]])] = &[("objectClass", &[b"organizationalRole"]), ("cn", &[b"x"])];
    for (what, code) in [
        ("its password", holder.modify(&entry, Change::Replace, "userPassword", &[b"mine"])),
        ("its end", holder.modify(&entry, Change::Replace, "pwdEndTime", &[b"20990101000000Z"])),
        ("its group", holder.modify(group, Change::Add, "member", &[entry.as_bytes()])),
        ("whom it may act as", holder.modify(&entry, Change::Add, "authzTo", &[b"dn.regex:.*"])),
        ("its name", holder.rename(&entry, "uid=mine", None)),
        ("something below it", holder.add(&format!("cn=x,{entry}"), child)),
        ("another account", holder.add("cn=x,ou=jit,dc=example,dc=test", child)),
        ("itself", holder.delete(&entry)),
    ] {
        assert_eq!(code.unwrap(), INSUFFICIENT_ACCESS, "{what}");
    }

    assert_eq!(revoke(&world, &issued).await, (200, "revoked".to_owned()));
    // The connection is still bound: it is in no group, and rules speak of groups.
    assert_eq!(holder.values(SETTING, "description").unwrap(), Vec::<String>::new());
    assert!(!logs_in(server, &entry, issued.password()));
}

/// A server whose rules let accounts write themselves, as older directories do.
async fn generous() -> (SlapdServer, Backend) {
    let start = || SlapdServer::start(&slapd::binaries(&Steps::new())?);
    let server = spawn_blocking(start).await.unwrap().unwrap();
    let owned = |(name, password): (&str, &str)| (name.to_owned(), password.to_owned());
    let place = Administered {
        url: server.ldaps_url(),
        ca: server.authority().display().to_string(),
        admin: owned(server.admin()),
        broker: owned(server.broker()),
    };
    let mut config = place.connect_as("cn=admin,cn=config").unwrap();
    let broker = &place.broker.0;
    let password = format!(
        "{{0}}to dn.children=\"ou=jit,dc=example,dc=test\" attrs=userPassword by dn.exact=\"{broker}\" =w by self =w \
         by anonymous auth"
    );
    let itself = format!(
        "{{1}}to dn.subtree=\"ou=jit,dc=example,dc=test\" by dn.exact=\"{broker}\" write by users write by * none"
    );
    let rules: &[&[u8]] = &[password.as_bytes(), itself.as_bytes()];
    assert_eq!(config.modify("olcDatabase={1}mdb,cn=config", Change::Add, "olcAccess", rules).unwrap(), SUCCESS);
    (server, Backend::OpenLdap(place))
}

#[tokio::test]
async fn an_openldap_account_that_may_write_itself_still_ends_with_its_lease() {
    let (_server, backend) = generous().await;
    let Backend::OpenLdap(server) = &backend else { unreachable!() };
    // Without ppolicy too: the lock is the password.
    let more = format!("[targets.{TARGET}.config]\npwd_end_time = false\n");
    let mut world = backend.world(&more).await.unwrap();
    world.start().unwrap();
    let child: &[(&str, &[&[u8]])] = &[("objectClass", &[b"organizationalRole"]), ("cn", &[b"x"])];

    // A password of its own, and something below it that keeps it from going.
    let issued = world.granted("1h").await.unwrap();
    let entry = world.login.entry(issued.username()).unwrap();
    let mut holder = as_holder(server, &world, &issued);
    assert_eq!(holder.modify(&entry, Change::Replace, "userPassword", &[b"mine"]).unwrap(), SUCCESS);
    assert_eq!(holder.add(&format!("cn=x,{entry}"), child).unwrap(), SUCCESS);
    assert!(logs_in(server, &entry, "mine"));
    assert_eq!(revoke(&world, &issued).await, (202, "revoking".to_owned()));
    assert!(failures(&world).contains(&format!("cn=x,{entry}")), "{}", failures(&world));
    assert!(!logs_in(server, &entry, "mine") && !logs_in(server, &entry, issued.password()));
    assert_eq!(holder.values(SETTING, "description").unwrap(), Vec::<String>::new(), "it is in no group");
    server.connect().unwrap().delete(&format!("cn=x,{entry}")).unwrap();
    is_revoked(&world, &issued).await;

    // Another name, and somebody else under the old one.
    let renamed = world.granted("1h").await.unwrap();
    let entry = world.login.entry(renamed.username()).unwrap();
    let mut holder = as_holder(server, &world, &renamed);
    let name = format!("uid=kept-{}", random_name());
    let kept = format!("{name},ou=jit,dc=example,dc=test");
    assert_eq!(holder.rename(&entry, &name, None).unwrap(), SUCCESS);
    let uid = renamed.username().as_bytes();
    let decoy: &[(&str, &[&[u8]])] =
        &[("objectClass", &[b"inetOrgPerson"]), ("uid", &[uid]), ("cn", &[b"x"]), ("sn", &[b"x"])];
    assert_eq!(holder.add(&entry, decoy).unwrap(), SUCCESS);
    assert!(logs_in(server, &kept, renamed.password()));
    assert_eq!(revoke(&world, &renamed).await, (200, "revoked".to_owned()), "{}", failures(&world));
    assert!(!logs_in(server, &kept, renamed.password()));
    let mut admin = server.connect().unwrap();
    for gone in [&kept, &entry] {
        assert_eq!(admin.search(gone, Scope::Base, "objectClass", &["1.1"]).unwrap().0, 32, "{gone}");
    }

    // Out of the broker's reach: not gone, and it says where it is.
    let moved = world.granted("1h").await.unwrap();
    let entry = world.login.entry(moved.username()).unwrap();
    let name = format!("uid={}", moved.username());
    assert_eq!(admin.rename(&entry, &name, Some("ou=app,dc=example,dc=test")).unwrap(), SUCCESS);
    assert_eq!(revoke(&world, &moved).await, (202, "revoking".to_owned()));
    let there = format!("the account was moved to {name},ou=app,dc=example,dc=test");
    assert!(failures(&world).contains(&there), "{}", failures(&world));
    let there = format!("{name},ou=app,dc=example,dc=test");
    assert_eq!(admin.rename(&there, &name, Some("ou=jit,dc=example,dc=test")).unwrap(), SUCCESS);
    is_revoked(&world, &moved).await;
    assert!(backend.accounts(&world).await.unwrap().is_empty());

    // A referral in its place, to a server of its own: the broker's credential goes nowhere.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let referred = world.granted("1h").await.unwrap();
    let entry = world.login.entry(referred.username()).unwrap();
    let mut holder = as_holder(server, &world, &referred);
    let name = format!("uid=kept-{}", random_name());
    assert_eq!(holder.rename(&entry, &name, None).unwrap(), SUCCESS);
    let (uid, to) = (referred.username().as_bytes(), format!("ldap://{}/{entry}", listener.local_addr().unwrap()));
    let referral: &[(&str, &[&[u8]])] =
        &[("objectClass", &[b"referral", b"extensibleObject"]), ("uid", &[uid]), ("ref", &[to.as_bytes()])];
    assert_eq!(holder.add(&entry, referral).unwrap(), SUCCESS);
    assert_eq!(revoke(&world, &referred).await, (202, "revoking".to_owned()));
    assert!(failures(&world).contains("LDAP result 10"), "{}", failures(&world));
    assert!(!logs_in(server, &format!("{name},ou=jit,dc=example,dc=test"), referred.password()));
    assert!(backend.accounts(&world).await.unwrap().is_empty());
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody followed the referral");
}

/// Active Directory takes a password only in this form.
fn quoted(password: &str) -> Vec<u8> {
    format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[tokio::test]
async fn an_active_directory_account_that_changes_what_it_may_ends_with_its_lease() {
    let backend = Backend::active_directory();
    let Backend::ActiveDirectory(server) = &backend else { unreachable!() };
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let mut admin = server.connect().unwrap();

    // A password of its own. Every account of a domain may set one, once it is older than minPwdAge: a day,
    // here, so that an administrator does it.
    let issued = world.granted("1h").await.unwrap();
    let entry = world.login.entry(issued.username()).unwrap();
    let mut holder = as_holder(server, &world, &issued);
    let new = quoted("Mine.4ever.and.ever");
    assert_eq!(admin.modify(&entry, Change::Replace, "unicodePwd", &[&new]).unwrap(), SUCCESS);
    assert!(logs_in(server, &entry, "Mine.4ever.and.ever"));
    for (what, code) in [
        ("its end", holder.modify(&entry, Change::Replace, "accountExpires", &[b"0"])),
        ("its group", {
            let group = "CN=app_read_write,OU=Groups,DC=corp,DC=test";
            holder.modify(group, Change::Add, "member", &[entry.as_bytes()])
        }),
        ("its name", holder.rename(&entry, "CN=mine", None)),
        ("a computer account", {
            let computer = format!("foot{}", random_name());
            let (account, uac) = (format!("{computer}$"), b"4096");
            let attributes: &[(&str, &[&[u8]])] = &[
                ("objectClass", &[b"computer"]),
                ("sAMAccountName", &[account.as_bytes()]),
                ("userAccountControl", &[uac]),
                ("unicodePwd", &[&new]),
            ];
            holder.add(&format!("CN={computer},CN=Computers,DC=corp,DC=test"), attributes)
        }),
    ] {
        assert_ne!(code.unwrap(), SUCCESS, "{what}");
    }
    // A name of an administrator's choice changes nothing.
    let kept = format!("CN=kept-{},OU=JIT,DC=corp,DC=test", random_name());
    let (name, _) = kept.split_once(',').unwrap();
    assert_eq!(admin.rename(&entry, name, None).unwrap(), SUCCESS);
    assert_eq!(revoke(&world, &issued).await, (200, "revoked".to_owned()), "{}", failures(&world));
    assert!(!logs_in(server, &kept, "Mine.4ever.and.ever"));
    assert_eq!(admin.search(&kept, Scope::Base, "objectClass", &["1.1"]).unwrap().0, 32);

    // Something below it: it is disabled and in no group until that is gone.
    let blocked = world.granted("1h").await.unwrap();
    let entry = world.login.entry(blocked.username()).unwrap();
    let below = format!("CN=below,{entry}");
    let class: &[(&str, &[&[u8]])] = &[("objectClass", &[b"classStore"])];
    assert_eq!(admin.add(&below, class).unwrap(), SUCCESS);
    assert_eq!(revoke(&world, &blocked).await, (202, "revoking".to_owned()));
    assert!(failures(&world).contains("CN=below"), "{}", failures(&world));
    assert_eq!(admin.values(&entry, "userAccountControl").unwrap(), ["514"]);
    assert_eq!(admin.values(&entry, "memberOf").unwrap(), Vec::<String>::new());
    assert_eq!(admin.delete(&below).unwrap(), SUCCESS);
    is_revoked(&world, &blocked).await;

    // Out of the broker's reach: not gone, and it says where it is.
    let moved = world.granted("1h").await.unwrap();
    let entry = world.login.entry(moved.username()).unwrap();
    let name = format!("CN={}", moved.username());
    assert_eq!(admin.rename(&entry, &name, Some("OU=Services,DC=corp,DC=test")).unwrap(), SUCCESS);
    assert_eq!(revoke(&world, &moved).await, (202, "revoking".to_owned()));
    let there = format!("{name},OU=Services,DC=corp,DC=test");
    assert!(failures(&world).contains(&format!("the account was moved to {there}")), "{}", failures(&world));
    assert_eq!(admin.rename(&there, &name, Some("OU=JIT,DC=corp,DC=test")).unwrap(), SUCCESS);
    is_revoked(&world, &moved).await;
    assert!(backend.accounts(&world).await.unwrap().is_empty());
}
