//! Drivers for directories.

use crate::driver_trait::driver_trait;
use crate::ldap::{HostLdap, Ldap};

driver_trait! {
    /// A driver for a directory. Its verbs are those of [`BareDriver`](crate::BareDriver), with a
    /// connection.
    LdapDriver, ldap: Ldap on HostLdap
}
