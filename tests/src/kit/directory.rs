//! A directory for the kit: the suite's OpenLDAP or Active Directory, under the shipped rules.

use anyhow::{Result, ensure};

use super::KitFixture;
use crate::servers::Directory;
use crate::{random_name, surroundings};

impl KitFixture {
    /// OpenLDAP, under the access rules of `plugins/driver-ldap/setup`. With a database of PostgreSQL
    /// that asks it, `login` is that database's.
    ///
    /// # Errors
    /// When the server says no.
    pub fn openldap() -> Result<Self> {
        let (url, ca) = (surroundings("JIT_TEST_LDAPS"), surroundings("JIT_TEST_LDAP_CA"));
        let base = "dc=example,dc=test";
        let weak = format!("cn=weak-{},ou=services,{base}", random_name());
        let password = format!("weak-{}{}", random_name(), random_name());
        let mut admin = Directory::connect(&url, ca.as_ref())?;
        let bound = admin.bind(&surroundings("JIT_TEST_LDAP_ADMIN"), &surroundings("JIT_TEST_LDAP_ADMIN_PASSWORD"))?;
        ensure!(bound == 0, "the directory's administrator is refused ({bound})");
        let classes: &[&[u8]] = &[b"applicationProcess", b"simpleSecurityObject"];
        let added = admin.add(&weak, &[("objectClass", classes), ("userPassword", &[password.as_bytes()])])?;
        ensure!(added == 0, "{weak} cannot be added ({added})");
        let fixture = Self::new()?;
        fixture.secret("broker.password", &surroundings("JIT_TEST_LDAP_BROKER_PASSWORD"))?;
        fixture.secret("weak.password", &password)?;
        let broker = surroundings("JIT_TEST_LDAP_BROKER");
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
        let (url, ca) = (surroundings("JIT_TEST_AD"), surroundings("JIT_TEST_AD_CA"));
        let broker = surroundings("JIT_TEST_AD_BROKER");
        let fixture = Self::new()?;
        fixture.secret("broker.password", &surroundings("JIT_TEST_AD_BROKER_PASSWORD"))?;
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
