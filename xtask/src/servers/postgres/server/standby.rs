//! A standby: a copy of a server that follows it by streaming replication.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jit_plugin_build::process::Run;

use super::{Place, PostgresServer};
use crate::servers::place::free_port;

/// How long the copy may take.
const COPY_DEADLINE: Duration = Duration::from_secs(60);

impl PostgresServer {
    /// A standby of this server, on another port of loopback, with the same superuser. This one is stopped for the copy
    /// and started again. `pg_promote()` on the standby makes it a primary.
    ///
    /// # Errors
    /// When the copy fails, or one of them does not start.
    pub fn standby(&mut self) -> Result<Self> {
        self.stop()?;
        let temporary = tempfile::Builder::new()
            .prefix("jit-postgres-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()?;
        let place = Place::new(temporary.path().to_owned())?;
        let (from, to) = (self.place.data(), place.data());
        fs::remove_dir(&to)?;
        Run::new("copying a PostgreSQL", COPY_DEADLINE).output(Command::new("cp").arg("-a").arg(&from).arg(&to))?;
        let port = free_port()?;
        let settings = format!(
            "\n# of this standby\nport = {port}\nunix_socket_directories = '{}'\n\
             primary_conninfo = 'host=127.0.0.1 port={} user=postgres password={}'\n",
            place.sockets().display(),
            self.port,
            self.password
        );
        let config = OpenOptions::new().append(true).open(to.join("postgresql.conf"));
        config.and_then(|mut file| file.write_all(settings.as_bytes())).context("cannot configure the standby")?;
        fs::write(to.join("standby.signal"), "")?;
        let mut standby = Self {
            bin: self.bin.clone(),
            place,
            port,
            password: self.password.clone(),
            process: None,
            watchdog: None,
            own_group: self.own_group,
            environment: self.environment.clone(),
            _temporary: Some(temporary),
        };
        self.start_again()?;
        standby.start_again()?;
        Ok(standby)
    }
}
