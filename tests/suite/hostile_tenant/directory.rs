//! The hostile holder of a lease on LDAP and Active Directory.
