//! A directory for the kit: the suite's OpenLDAP or Active Directory, under the shipped rules.

use anyhow::{Result, ensure};

use super::KitFixture;
use crate::servers::{Directory, Scope};
use crate::{random_name, surroundings};

/// A running directory, with who may do what there.
#[derive(Debug, Clone)]
pub struct Administered {
    /// `ldaps://…`
    pub url: String,
    /// The file with the authority that signed its certificate.
    pub ca: String,
    /// The administrator's name and password.
    pub admin: (String, String),
    /// Those of the broker's account.
    pub broker: (String, String),
}

impl Administered {
    /// The suite's OpenLDAP.
    #[must_use]
    pub fn openldap() -> Self {
        Self::of_the_suite("JIT_TEST_LDAPS", "JIT_TEST_LDAP")
    }

    /// The suite's Active Directory.
    #[must_use]
    pub fn active_directory() -> Self {
        Self::of_the_suite("JIT_TEST_AD", "JIT_TEST_AD")
    }

    fn of_the_suite(url: &str, variable: &str) -> Self {
        let named = |ending: &str| surroundings(&format!("{variable}_{ending}"));
        Self {
            url: surroundings(url),
            ca: named("CA"),
            admin: (named("ADMIN"), named("ADMIN_PASSWORD")),
            broker: (named("BROKER"), named("BROKER_PASSWORD")),
        }
    }

    /// A connection of the administrator.
    ///
    /// # Errors
    /// When the server is away, or refuses.
    pub fn connect(&self) -> Result<Directory> {
        self.connect_as(&self.admin.0)
    }

    /// A connection of somebody else with the administrator's password.
    ///
    /// # Errors
    /// When the server is away, or refuses.
    pub fn connect_as(&self, name: &str) -> Result<Directory> {
        let mut directory = Directory::connect(&self.url, self.ca.as_ref())?;
        let code = directory.bind(name, &self.admin.1)?;
        ensure!(code == 0, "{name} is refused ({code})");
        Ok(directory)
    }

    /// The entries in a unit whose name, by that attribute, begins so.
    ///
    /// # Errors
    /// When the server is away, or refuses.
    pub fn names(&self, unit: &str, attribute: &str, prefix: &str) -> Result<Vec<String>> {
        let (code, entries) = self.connect()?.search(unit, Scope::One, "objectClass", &[attribute])?;
        ensure!(code == 0, "the search ends with {code}");
        let values = entries.into_iter().flat_map(|(_, attributes)| attributes).flat_map(|(_, values)| values);
        Ok(values.filter(|name| name.starts_with(prefix)).collect())
    }
}

impl KitFixture {
    /// The suite's OpenLDAP, under the access rules of `plugins/driver-ldap/setup`.
    ///
    /// # Errors
    /// When the server says no.
    pub fn openldap() -> Result<Self> {
        Self::openldap_in(&Administered::openldap())
    }

    /// The same in that server.
    ///
    /// # Errors
    /// When the server says no.
    pub fn openldap_in(place: &Administered) -> Result<Self> {
        let Administered { url, ca, broker: (broker, broker_password), .. } = place;
        let base = "dc=example,dc=test";
        let weak = format!("cn=weak-{},ou=services,{base}", random_name());
        let password = format!("weak-{}{}", random_name(), random_name());
        let mut admin = place.connect()?;
        let classes: &[&[u8]] = &[b"applicationProcess", b"simpleSecurityObject"];
        let added = admin.add(&weak, &[("objectClass", classes), ("userPassword", &[password.as_bytes()])])?;
        ensure!(added == 0, "{weak} cannot be added ({added})");
        let fixture = Self::new()?;
        fixture.secret("broker.password", broker_password)?;
        fixture.secret("weak.password", &password)?;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "ldap"
url = "{url}"
ca = "{ca}"
bind_dn = "{broker}"
password = {{ file = "broker.password" }}
[connections.weak]
kind = "ldap"
url = "{url}"
ca = "{ca}"
bind_dn = "{weak}"
password = {{ file = "weak.password" }}
[targets.people]
connection = "backend"
default_role = "app_read_only"
[targets.people.config]
flavour = "openldap"
accounts_base = "ou=jit,{base}"
groups_base = "ou=groups,{base}"
[targets.people.roles.app_read_only]
groups = ["cn=app_read_only,ou=groups,{base}"]
[targets.people.roles.missing]
groups = ["cn=no_such_group,ou=groups,{base}"]
[targets.people.roles.hostile]
groups = ["cn=app_read_only)(cn=*,ou=groups,{base}"]
[conformance]
refused_roles = ["missing", "hostile"]
weak_connection = "weak"
[conformance.login]
kind = "ldap"
url = "{url}"
ca = "{ca}"
bind_name = "uid={{name}},ou=jit,{base}"
"#
        ))?;
        Ok(fixture)
    }

    /// Active Directory, under the delegation of `plugins/driver-ldap/setup`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn active_directory() -> Result<Self> {
        let Administered { url, ca, broker: (broker, password), .. } = Administered::active_directory();
        let fixture = Self::new()?;
        fixture.secret("broker.password", &password)?;
        let base = "DC=corp,DC=test";
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "ldap"
url = "{url}"
ca = "{ca}"
bind_dn = "{broker}"
password = {{ file = "broker.password" }}
[targets.people]
connection = "backend"
default_role = "app_read_only"
[targets.people.config]
flavour = "active-directory"
accounts_base = "OU=JIT,{base}"
[targets.people.roles.app_read_only]
groups = ["CN=app_read_only,OU=Groups,{base}"]
[targets.people.roles.missing]
groups = ["CN=no_such_group,OU=Groups,{base}"]
[targets.people.roles.hostile]
groups = ["CN=app_read_only)(cn=*,OU=Groups,{base}"]
[conformance]
refused_roles = ["missing", "hostile"]
# It takes the old password for up to an hour (OldPasswordAllowedPeriod).
without = ["rotate"]
[conformance.login]
kind = "ldap"
url = "{url}"
ca = "{ca}"
bind_name = "CN={{name}},OU=JIT,{base}"
"#
        ))?;
        Ok(fixture)
    }
}
