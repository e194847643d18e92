//! A directory: OpenLDAP, reached over TLS, under the access rules that the driver ships.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use jit_tests::Reply;
use jit_tests::servers::{Change, Directory, Scope};
use xtask::demo::Backend as Kind;
use xtask::servers::slapd::{self, SlapdServer};
use xtask::steps::Steps;

use super::{Backend, Process, Sections, Texts, copy_authority, digits, masked, shown, write_credential};
use crate::screen::Screen;

/// Result codes (RFC 4511).
const SUCCESS: u32 = 0;
const INVALID_CREDENTIALS: u32 = 49;
const INSUFFICIENT_ACCESS: u32 = 50;

/// Where the accounts are.
const ACCOUNTS: &str = "ou=jit,dc=example,dc=test";
/// The group of those who read.
const READERS: &str = "cn=app_read_only,ou=groups,dc=example,dc=test";
/// What that group may read.
const SETTING: &str = "cn=setting,ou=app,dc=example,dc=test";

/// A directory with the groups of the roles.
pub(crate) struct Ldap {
    server: SlapdServer,
    authority: PathBuf,
}

impl Backend for Ldap {
    type Session = Directory;

    const TEXTS: Texts = Texts {
        servers: "OpenLDAP",
        holder: "The directory",
        makes: "makes the account",
        ordinary: "An ordinary bind, for any LDAP client: nothing in the application knows of the broker.",
        ends: "Nobody has to remember to clean up. The broker does, and the directory ends the login even without it.",
        got: "an account in the directory",
        ended: "login, rights and entry",
    };
    const KIND: Kind = Kind::Ldap;

    async fn start(folder: &Path, steps: &Steps) -> Result<Self> {
        let server = SlapdServer::start(&slapd::binaries(steps)?)?;
        let authority = copy_authority(folder, server.authority())?;
        let (_, password) = server.broker();
        write_credential(folder, password)?;
        Ok(Self { server, authority })
    }

    fn started(&self) -> String {
        format!("OpenLDAP at {}, with a least-privilege account for the broker", self.server.ldaps_url())
    }

    fn sections(&self) -> Sections {
        let (url, (broker, _)) = (self.server.ldaps_url(), self.server.broker());
        let connection = format!(
            r#"kind = "ldap"
url = "{url}"
bind_dn = "{broker}"
password = {{ file = "secrets/inventory" }}
ca = "ca.pem"                               # the only authority for the server's certificate"#
        );
        let target = format!(
            r#"[targets.inventory_db.config]
flavour = "openldap"
accounts_base = "{ACCOUNTS}"
groups_base = "ou=groups,dc=example,dc=test"
[targets.inventory_db.roles.app_read_only]
groups = ["{READERS}"]
[targets.inventory_db.roles.app_read_write]
groups = ["cn=app_read_write,ou=groups,dc=example,dc=test"]"#
        );
        Sections { connection, target }
    }

    fn processes(&self) -> Vec<Process> {
        let address = self.server.ldaps_url();
        Process::of("OpenLDAP", &address, self.server.pid(), "TERM", self.server.folder()).into_iter().collect()
    }

    fn to_try(&self) -> String {
        format!(
            r#"LDAPTLS_CACERT={} ldapsearch -LLL -x -H "$(field uri)" -D "$(field dn)" -w "$(field password)" \
    -b {SETTING} description"#,
            shown(&self.authority)
        )
    }

    fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    fn detach(self) {
        self.server.detach();
    }

    async fn accounts(&self) -> Result<Vec<String>> {
        let (code, entries) = self.administrator()?.search(ACCOUNTS, Scope::One, "objectClass", &["uid"])?;
        ensure!(code == SUCCESS, "the directory does not list its accounts ({code})");
        Ok(entries.into_iter().flat_map(|(_, attributes)| attributes).flat_map(|(_, values)| values).collect())
    }

    async fn use_account(&self, issued: &Reply, screen: &Screen) -> Result<Directory> {
        let name = issued.text_at("/properties/dn");
        let (url, password) = (issued.text_at("/connection/uri"), masked(issued.password()));
        screen.command(&format!(
            "export LDAPTLS_CACERT={}\nldapsearch -LLL -x -H {url} \\\n    -D {name} -w {password} \\\n    \
             -b {SETTING} description",
            shown(&self.authority)
        ));
        let mut session = self.connect()?;
        let code = session.bind(name, issued.password())?;
        ensure!(code == SUCCESS, "the new account's login: {}", said("ldap_bind", code));
        let values = session.values(SETTING, "description")?;
        ensure!(values == ["one"], "the account reads {values:?}");
        screen.output(&ldif(SETTING, &[("description".to_owned(), values)]));
        let code = session.modify(SETTING, Change::Replace, "description", &[b"two"])?;
        ensure!(code == INSUFFICIENT_ACCESS, "the account may write, although its role only reads: {code}");
        screen.command(&format!(
            "printf 'dn: {SETTING}\\nchangetype: modify\\nreplace: description\\ndescription: two\\n' |\n    \
             ldapmodify -x -H {url} -D … -w …"
        ));
        screen.output(&format!("modifying entry \"{SETTING}\"\n{}", said("ldap_modify", code)));
        screen.say("What the directory knows about it:");
        let seen = ["objectClass", "pwdEndTime", "memberOf"];
        let (code, mut entries) = self.administrator()?.search(name, Scope::Base, "objectClass", &seen)?;
        ensure!(code == SUCCESS && entries.len() == 1, "the directory has no {name} ({code})");
        let (_, attributes) = entries.remove(0);
        let values = |wanted: &str| -> Vec<&str> {
            let found = attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.flat_map(|(_, values)| values).map(String::as_str).collect()
        };
        screen.output(&ldif(name, &attributes));
        ensure!(values("memberOf") == [READERS], "the account is a member of {:?}", values("memberOf"));
        let expires = issued.text_at("/expires_at");
        let ends = values("pwdEndTime").first().copied().unwrap_or_default();
        ensure!(digits(ends) == digits(expires), "pwdEndTime {ends} is not the lease's end, {expires}");
        screen.holds("It reads and no more, and the directory itself ends its login with the lease (pwdEndTime).");
        Ok(session)
    }

    async fn gone(&self, issued: &Reply, mut session: Directory, screen: &Screen) -> Result<()> {
        let name = issued.text_at("/properties/dn");
        screen.command("ldapsearch … -D … -w …     # with the same name and password");
        let code = self.connect()?.bind(name, issued.password())?;
        ensure!(code == INVALID_CREDENTIALS, "the account can still log in ({code})");
        screen.output(&said("ldap_bind", code));
        screen.holds("The login is refused.");
        let (_, read) = session.search(SETTING, Scope::Base, "objectClass", &["description"])?;
        ensure!(read.is_empty(), "the connection that was bound still reads: {read:?}");
        screen.holds("A directory has no sessions to end; but the connection of step 3 reads nothing any more.");
        let accounts = self.accounts().await?;
        ensure!(accounts.is_empty(), "entries are left: {accounts:?}");
        let members = self.administrator()?.values(READERS, "member")?;
        ensure!(!members.iter().any(|member| member == name), "the group still has the account: {members:?}");
        screen.holds("The entry is gone, and so is its membership in the group.");
        Ok(())
    }
}

impl Ldap {
    fn connect(&self) -> Result<Directory> {
        Directory::connect(&self.server.ldaps_url(), &self.authority)
    }

    fn administrator(&self) -> Result<Directory> {
        let (name, password) = self.server.admin();
        let mut directory = self.connect()?;
        let code = directory.bind(name, password).context("the administrator")?;
        ensure!(code == SUCCESS, "the administrator: {}", said("ldap_bind", code));
        Ok(directory)
    }
}

/// A result as OpenLDAP's clients show it.
fn said(operation: &str, code: u32) -> String {
    let words = match code {
        INVALID_CREDENTIALS => "Invalid credentials",
        INSUFFICIENT_ACCESS => "Insufficient access",
        _ => "Error",
    };
    format!("{operation}: {words} ({code})")
}

/// An entry as `ldapsearch -LLL` shows it.
fn ldif(name: &str, attributes: &[(String, Vec<String>)]) -> String {
    let lines = attributes.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {value}")));
    std::iter::once(format!("dn: {name}")).chain(lines).collect::<Vec<_>>().join("\n")
}
