//! `[server]`, `[limits]`, `[log]`, `[reconcile]`, `[runtime]`: how the broker itself runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jit_core::brake::Bound;

use jit_core::account::AccountPrefix;
use jit_core::ttl::Ttl;

use super::field::Wrong;
use super::section::Section;

/// `[server]`: where the broker listens.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Address of the HTTP interface. Beyond loopback only with `tls` or `allow_plaintext`.
    pub listen: SocketAddr,
    /// The Unix socket for administration.
    pub admin_socket: PathBuf,
    /// Certificate and key of the listener.
    pub tls: Option<Tls>,
    /// The author said that the network in between is protected by other means.
    pub allow_plaintext: bool,
    /// The longest that a request may take, `1s` to `10m`, by default 60 s.
    pub request_timeout: Duration,
    /// How long in-flight requests may finish at a shutdown, `1s` to `10m`, by default 30 s.
    pub shutdown_grace: Duration,
    /// Requests at the same time, 1 to 100,000, by default 1024; more are told `overloaded`.
    pub max_in_flight: u32,
    /// A listener of its own for `/metrics` and `/openapi.json`, which then are not on `listen`. Plain HTTP.
    pub operator_listen: Option<SocketAddr>,
    /// Open connections, 16 to 1,000,000, by default 4096; fewer where the system allows too few open files.
    pub max_connections: u32,
    /// Open connections of one address (of one /64 network with IPv6), by default a quarter of all.
    pub max_connections_per_address: u32,
    /// From accept to the first whole request head, `1s` to `2m`, by default 10 s.
    pub head_timeout: Duration,
    /// How long a connection may stay open without a request, `1s` to `1h`, by default 60 s.
    pub idle_timeout: Duration,
    /// How long a caller may take nothing of its reply, `1s` to `10m`, by default 20 s.
    pub write_timeout: Duration,
    /// Whether a changed configuration, plugin or signature is served without a command, by default yes.
    pub watch: bool,
}

/// `[server.tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[limits]`: for each verified workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in a second, 1 to 1,000,000, by default 50.
    pub requests_per_second: u32,
    /// Requests at once before that limit holds, 1 to 1,000,000, by default 100.
    pub burst: u32,
    /// Denials of one workload that are recorded in full at once, 1 to 10,000, by default 60; after them one
    /// each 10 s, and the rest as counts.
    pub denials_in_full: u32,
    /// Accounts that only a person can remove, from which on a workload gets no new one in the same target, 1 to
    /// 10,000, by default 20.
    pub leftover_accounts: u32,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[runtime]`: what all plugins share. What is left out is the runtime's own default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginLimits {
    /// The folder of compiled plugins; it must be the broker's own.
    pub cache_dir: Option<PathBuf>,
    /// Plugin calls at the same time, 1 to 10,000.
    pub max_calls: Option<u32>,
    /// Memory of one call in MiB, 1 to 4096.
    pub memory_mib: Option<u32>,
    /// Guest time of one call of a policy in milliseconds, 1 to 60,000.
    pub policy_time: Option<Duration>,
    /// Guest time of one call of a driver, without what it waits for, in milliseconds, 1 to 60,000.
    pub driver_time: Option<Duration>,
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8700);

/// An address to listen on.
fn address(section: &Section<'_>, key: &'static str) -> Option<SocketAddr> {
    section.parsed(key, "an IP address and port such as \"127.0.0.1:8700\" or \"[::1]:8700\"", |text| {
        text.parse::<SocketAddr>().map_err(|_| {
            if text.strip_prefix("localhost:").is_some_and(|port| port.parse::<u16>().is_ok()) {
                format!("write \"127.0.0.1{}\" for localhost", &text["localhost".len()..])
            } else if text.starts_with(':') && text[1..].parse::<u16>().is_ok() {
                format!("write \"0.0.0.0{text}\" for all addresses")
            } else if text.parse::<IpAddr>().is_ok() {
                "the port is missing".to_owned()
            } else {
                "it is neither".to_owned()
            }
        })
    })
}

pub(super) fn server(section: &Section<'_>) -> Option<Server> {
    let listen = address(section, "listen");
    let listen_wrong = listen.is_none() && section.entry("listen").is_some();
    let listen = listen.unwrap_or(DEFAULT_LISTEN);
    let tls_there = section.entry("tls").is_some();
    let tls = section
        .optional_section("tls", |tls| {
            tls.demand("cert", "cert = \"tls/cert.pem\"");
            tls.demand("key", "key = \"tls/key.pem\"");
            let (cert, key) = (tls.path("cert"), tls.path("key"));
            Some(Tls { cert: cert?, key: key? })
        })
        .flatten();
    let allow_plaintext = section.flag("allow_plaintext").unwrap_or(false);
    if !listen_wrong && !listen.ip().is_loopback() && !tls_there && !allow_plaintext {
        section.error(
            "listen",
            format!("{listen} is reached from other machines, and passwords would cross the network in clear"),
            Some(
                "add tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" } under [server], or listen on 127.0.0.1;\n\
                 where a proxy or a service mesh on this machine encrypts, say so: allow_plaintext = true"
                    .to_owned(),
            ),
        );
    }
    let max_connections = section.count("max_connections", 16..=1_000_000).unwrap_or(4_096);
    let each = section.count("max_connections_per_address", 1..=1_000_000);
    let server = Server {
        listen,
        admin_socket: section.path("admin_socket").unwrap_or_else(|| section.reading.folder.join("run/admin.sock")),
        tls,
        allow_plaintext,
        request_timeout: section.wait("request_timeout", 60, 1..=600),
        shutdown_grace: section.wait("shutdown_grace", 30, 1..=600),
        max_in_flight: section.count("max_in_flight", 1..=100_000).unwrap_or(1_024),
        operator_listen: address(section, "operator_listen"),
        max_connections,
        max_connections_per_address: each.unwrap_or((max_connections / 4).max(1)),
        head_timeout: section.wait("head_timeout", 10, 1..=120),
        idle_timeout: section.wait("idle_timeout", 60, 1..=3_600),
        write_timeout: section.wait("write_timeout", 20, 1..=600),
        watch: section.flag("watch").unwrap_or(true),
    };
    // A Unix socket's path has room for 107 bytes (unix(7), sun_path).
    if server.admin_socket.as_os_str().len() > 107 {
        let message = "`admin_socket` is too long: the system takes at most 107 bytes, the folder included";
        section.error(
            "admin_socket",
            message,
            Some("write a shorter absolute path, such as \"/run/jit-broker/admin.sock\"".to_owned()),
        );
    }
    Some(server)
}

/// The prefix of account names, here and at a target.
pub(super) fn account_prefix(section: &Section<'_>) -> Option<AccountPrefix> {
    section.field("account_prefix", "a prefix such as \"v-\"", |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        AccountPrefix::try_from(text.to_owned()).map_err(|error| Wrong::Value(format!("it {error}")))
    })
}

pub(super) fn limits(section: &Section<'_>) -> Limits {
    let given = section.count("requests_per_second", 1..=1_000_000);
    let requests_per_second = given.unwrap_or(50);
    let burst = section.count("burst", 1..=1_000_000);
    let denials_in_full = section.count("denials_in_full", 1..=10_000).unwrap_or(60);
    let leftover_accounts = section.count("leftover_accounts", 1..=10_000).unwrap_or(20);
    let burst = burst.unwrap_or(requests_per_second.saturating_mul(2));
    Limits { requests_per_second, burst, denials_in_full, leftover_accounts }
}

pub(super) fn log(section: &Section<'_>) -> LogFormat {
    section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]).unwrap_or_default()
}

pub(super) fn reconcile(section: &Section<'_>) -> (Duration, Bound) {
    let default = Bound::default();
    let bound = Bound {
        most: section.count("most_ghosts", 1..=1_000_000).unwrap_or(default.most),
        percent: section.count("most_ghosts_percent", 1..=100).unwrap_or(default.percent),
    };
    (section.wait("interval", 3_600, 1..=7 * 86_400), bound)
}

pub(super) fn runtime(section: &Section<'_>) -> PluginLimits {
    let time = |key| section.count(key, 1..=60_000).map(|ms| Duration::from_millis(u64::from(ms)));
    PluginLimits {
        cache_dir: section.path("cache_dir"),
        max_calls: section.count("max_calls", 1..=10_000),
        memory_mib: section.count("memory_mib", 1..=4_096),
        policy_time: time("policy_time_ms"),
        driver_time: time("driver_time_ms"),
    }
}

/// The default of `[store] keep_revoked`: a week.
pub(super) fn week() -> Ttl {
    Ttl::from_seconds(7 * 86_400).unwrap_or(Ttl::MAX)
}
