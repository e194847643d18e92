//! A PostgreSQL that can ask a directory for passwords (`ldap` in pg_hba.conf): Debian's build has
//! that, npm's does not.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _};

use anyhow::{Context, Result};

use super::PostgresBinaries;
use crate::{
    servers::debian::{Release, Tree},
    steps::Steps,
};

/// Where Debian has the server's programs.
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Those that are needed.
const PROGRAMS: [&str; 2] = ["postgres", "initdb"];

/// PostgreSQL 15 with LDAP: from the cache, else from Debian 12.
///
/// # Errors
/// When it cannot be had on this machine, with the reason.
pub fn with_ldap(steps: &Steps) -> Result<PostgresBinaries> {
    let tree = Tree::get("postgres-ldap", Release::Bookworm, &["postgresql-15"], steps, |tree| {
        for program in PROGRAMS {
            let real = tree.path(&real(program));
            fs::rename(real.with_extension(""), &real).with_context(|| format!("cannot rename {program}"))?;
        }
        Ok(())
    })?;
    for program in PROGRAMS {
        write_starter(&tree, program)?;
    }
    PostgresBinaries::in_folder(tree.path(BIN))
}

fn real(program: &str) -> String {
    format!("{BIN}/{program}.real")
}

/// Puts a script in a program's place that runs it through the tree's own loader: `initdb` starts
/// `postgres` by itself. It holds the tree's place, which is known only when the tree is there.
fn write_starter(tree: &Tree, program: &str) -> Result<()> {
    let folder = tree.path(BIN);
    let starter = folder.join(program);
    let text = Tree::script(&tree.command(&real(program)))?;
    if fs::read_to_string(&starter).is_ok_and(|there| there == text) {
        return Ok(());
    }
    // Beside it and renamed: somebody may be running the old one.
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(text.as_bytes())?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755))?;
    // The kernel does not run a file that is open for writing.
    file.into_temp_path().persist(&starter)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::servers::postgres::{PostgresServer, PostgresSettings};

    #[test]
    fn a_server_with_ldap_in_its_rules_starts() {
        let binaries = with_ldap(&Steps::new()).unwrap();
        let rule = "host all +ldap_users 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapprefix=\"uid=\"";
        let settings = PostgresSettings { hba: vec![rule.to_owned()], own_group: true, ..PostgresSettings::default() };
        let server = PostgresServer::start(binaries.bin(), &settings).unwrap();
        assert!(server.pid().is_some());
        // A rule that it does not know stops it.
        let settings = PostgresSettings { hba: vec![rule.replace(" ldap ", " nonsense ")], ..settings };
        assert!(PostgresServer::start(binaries.bin(), &settings).is_err());
    }
}
