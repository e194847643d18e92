//! One rule for the way to every server, whatever is spoken there.
//!
//! On this machine (a loopback address, a Unix socket) nobody stands in between. To every other
//! machine the server's certificate and its name are verified, since whoever answers in the server's
//! place would be given the broker's password, or an account's. The only way round that is an operator
//! who says so (`plaintext`), with a reason.
//!
//! Each connection asks this rule when it is made, and the configuration asks it when it is read.
//! A URL's settings are named here: one that is not known is refused, because a misspelt `sslmode` would
//! be no mode.

use std::fmt;
use std::net::IpAddr;

use url::Url;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// PostgreSQL's protocol.
    Postgres,
    /// MySQL's protocol, also MariaDB's.
    MySql,
    /// LDAP.
    Ldap,
    /// HTTP.
    Http,
}

/// How the way to a server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Security {
    /// Not encrypted.
    Plain,
    /// Encrypted where the server can; nothing is verified.
    Preferred,
    /// Encrypted; nothing is verified.
    Required,
    /// Encrypted; the certificate is verified, the name is not.
    Authority,
    /// Encrypted; certificate and name are verified.
    Verified,
}

/// Which part of a connection's section is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `url`.
    Url,
    /// `plaintext`.
    Plaintext,
    /// `ca`.
    Ca,
}

/// Why a connection may not be made like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprotected {
    /// Where the mistake stands.
    pub part: Part,
    /// What is wrong. Has none of the URL's values in it, except a word of `sslmode` or `ssl-mode`.
    pub reason: String,
    /// What to write instead.
    pub instead: String,
    /// A word that is none of those that are known, and those: to find the one that was meant.
    pub misspelt: Option<(String, Vec<&'static str>)>,
}

impl fmt::Display for Unprotected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.instead)
    }
}

impl std::error::Error for Unprotected {}

/// The settings that a URL may have.
const POSTGRES_SETTINGS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];
const MYSQL_SETTINGS: [&str; 5] = ["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket"];

const POSTGRES_MODES: [(&str, Security); 6] = [
    ("disable", Security::Plain),
    // The client knows no such thing and does not encrypt.
    ("allow", Security::Plain),
    ("prefer", Security::Preferred),
    ("require", Security::Required),
    ("verify-ca", Security::Authority),
    ("verify-full", Security::Verified),
];
const MYSQL_MODES: [(&str, Security); 5] = [
    ("DISABLED", Security::Plain),
    ("PREFERRED", Security::Preferred),
    ("REQUIRED", Security::Required),
    ("VERIFY_CA", Security::Authority),
    ("VERIFY_IDENTITY", Security::Verified),
];

/// How to say that nothing needs to be verified.
const OTHERWISE: &str = "where something else protects the way, say so: plaintext = { because = \"…\" }";

/// The settings in which a URL says how it is protected.
struct Words {
    mode: &'static str,
    authority: &'static str,
    /// The words of `mode`; the last is the strictest.
    modes: &'static [(&'static str, Security)],
}

impl Spoken {
    /// The settings that a URL may have; none for what has no settings there.
    #[must_use]
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &POSTGRES_SETTINGS,
            Self::MySql => &MYSQL_SETTINGS,
            Self::Ldap | Self::Http => &[],
        }
    }

    /// How a URL of that kind says how it is protected.
    fn words(self) -> Option<Words> {
        match self {
            Self::Postgres => Some(Words { mode: "sslmode", authority: "sslrootcert", modes: &POSTGRES_MODES }),
            Self::MySql => Some(Words { mode: "ssl-mode", authority: "ssl-ca", modes: &MYSQL_MODES }),
            Self::Ldap | Self::Http => None,
        }
    }
}

/// Whether the URL leads to this machine: an address of the loopback, `localhost`, or a Unix socket.
#[must_use]
pub fn is_here(spoken: Spoken, url: &Url) -> bool {
    is_socket(spoken, url) || is_loopback(url)
}

/// Whether the URL leads to a Unix socket.
#[must_use]
pub fn is_socket(spoken: Spoken, url: &Url) -> bool {
    let named = |key: &str| url.query_pairs().any(|(name, _)| name == key);
    match spoken {
        // The percent-encoded path of a socket's folder in the place of the host.
        Spoken::Postgres => {
            named("host") || url.host_str().is_some_and(|host| host.starts_with("%2F") || host.starts_with("%2f"))
        }
        Spoken::MySql => named("socket"),
        Spoken::Ldap | Spoken::Http => false,
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How a connection to that URL is protected. `plaintext` is an operator's word that nothing needs to be
/// verified; `ca` says whether the connection names an authority.
///
/// # Errors
/// [`Unprotected`] where it would be less than the rule demands, or the URL says what is not known.
pub fn security(spoken: Spoken, url: &Url, plaintext: bool, ca: bool) -> Result<Security, Unprotected> {
    check_settings(spoken, url)?;
    let said = said(spoken, url)?;
    if plaintext {
        return opted_out(said, ca);
    }
    let here = is_here(spoken, url);
    match said {
        Some((Security::Verified, _)) => Ok(Security::Verified),
        Some((weaker, _)) if here => Ok(weaker),
        Some((_, words)) => Err(weak(spoken, &words)),
        // Whoever names an authority means to verify.
        None if here && spoken.words().is_some() && !ca && !names_authority(spoken, url) => Ok(Security::Preferred),
        None => Ok(Security::Verified),
    }
}

/// What the URL itself says, and in which words.
fn said(spoken: Spoken, url: &Url) -> Result<Option<(Security, String)>, Unprotected> {
    match (spoken, url.scheme()) {
        (Spoken::Ldap, "ldaps") => return Ok(Some((Security::Verified, "ldaps://".to_owned()))),
        (Spoken::Http, "https") => return Ok(Some((Security::Verified, "https://".to_owned()))),
        (Spoken::Http, "http") => return Ok(Some((Security::Plain, "http://".to_owned()))),
        // ldap:// is encrypted by StartTLS.
        _ => {}
    }
    let Some(Words { mode: key, modes, .. }) = spoken.words() else { return Ok(None) };
    let Some((_, word)) = url.query_pairs().find(|(name, _)| name == key) else { return Ok(None) };
    match modes.iter().find(|(mode, _)| mode.eq_ignore_ascii_case(&word)) {
        Some((mode, security)) => Ok(Some((*security, format!("{key}={mode}")))),
        None => {
            let words: Vec<&'static str> = modes.iter().map(|(mode, _)| *mode).collect();
            Err(Unprotected {
                part: Part::Url,
                reason: format!("`{key}` must be one of {}", words.join(", ")),
                instead: format!("leave it out, or write {key}={}", words[words.len() - 1]),
                misspelt: Some((word.into_owned(), words)),
            })
        }
    }
}

fn names_authority(spoken: Spoken, url: &Url) -> bool {
    spoken.words().is_some_and(|words| url.query_pairs().any(|(name, _)| name == words.authority))
}

fn opted_out(said: Option<(Security, String)>, ca: bool) -> Result<Security, Unprotected> {
    match said {
        Some((Security::Verified, words)) => Err(Unprotected {
            part: Part::Plaintext,
            reason: format!("`plaintext` contradicts {words}, which is encrypted and verified"),
            instead: "leave out the one or the other".to_owned(),
            misspelt: None,
        }),
        _ if ca => Err(Unprotected {
            part: Part::Ca,
            reason: "`ca` has no meaning with `plaintext`: no certificate is verified".to_owned(),
            instead: "leave out the one or the other".to_owned(),
            misspelt: None,
        }),
        said => Ok(said.map_or(Security::Plain, |(security, _)| security)),
    }
}

fn weak(spoken: Spoken, words: &str) -> Unprotected {
    let (what, instead) = match spoken.words() {
        Some(Words { mode, modes, .. }) => {
            let strict = modes.last().map_or("", |(mode, _)| mode);
            let authority = "`ca = \"…\"` names an authority that is not a public one";
            (
                "does not verify the server's certificate and name",
                format!("write {mode}={strict} or leave it out; {authority}"),
            )
        }
        None if spoken == Spoken::Ldap => ("is not encrypted", "write ldaps://".to_owned()),
        None => ("is not encrypted", "write https://".to_owned()),
    };
    Unprotected {
        part: Part::Url,
        reason: format!(
            "{words} {what}, and the server is on another machine: whoever answers in its place gets the passwords"
        ),
        instead: format!("{instead}; {OTHERWISE}"),
        misspelt: None,
    }
}

/// Refuses what the client would skip, and what could lead elsewhere than the URL says.
fn check_settings(spoken: Spoken, url: &Url) -> Result<(), Unprotected> {
    let allowed = spoken.settings();
    let mut seen = Vec::new();
    for (key, value) in url.query_pairs() {
        let wrong = |reason: String, misspelt| {
            let instead = format!("the URL's settings may be {}", allowed.join(", "));
            Err(Unprotected { part: Part::Url, reason, instead, misspelt })
        };
        if !allowed.contains(&&*key) {
            let misspelt = Some((key.into_owned(), allowed.to_vec()));
            return wrong("the URL has a setting that is not known".to_owned(), misspelt);
        }
        if seen.contains(&key) {
            return wrong(format!("the URL has `{key}` twice"), None);
        }
        if spoken == Spoken::Postgres && key == "host" && !value.starts_with('/') {
            return wrong("`host` in the URL's settings must be the path of a socket's folder".to_owned(), None);
        }
        seen.push(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(spoken: Spoken, url: &str, plaintext: bool, ca: bool) -> Result<Security, Part> {
        security(spoken, &Url::parse(url).unwrap(), plaintext, ca).map_err(|wrong| wrong.part)
    }

    #[test]
    fn another_machine_is_verified_or_refused_whatever_is_spoken() {
        let hosts = [
            "db.example",
            "10.0.0.7",
            "[fd00::7]",
            "localhost.example",
            "127.0.0.1.example",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ];
        for host in hosts {
            for (spoken, scheme, verified, weak) in [
                (
                    Spoken::Postgres,
                    "postgres://u@",
                    vec!["/d", "/d?sslmode=verify-full", "/d?sslrootcert=/ca.pem"],
                    vec![
                        "/d?sslmode=disable",
                        "/d?sslmode=allow",
                        "/d?sslmode=prefer",
                        "/d?sslmode=require",
                        "/d?sslmode=verify-ca",
                        "/d?sslmode=REQUIRE",
                    ],
                ),
                (
                    Spoken::MySql,
                    "mysql://u@",
                    vec!["", "?ssl-mode=VERIFY_IDENTITY", "/d?ssl-ca=/ca.pem"],
                    vec![
                        "?ssl-mode=DISABLED",
                        "?ssl-mode=PREFERRED",
                        "?ssl-mode=REQUIRED",
                        "?ssl-mode=VERIFY_CA",
                        "?ssl-mode=required",
                    ],
                ),
                (Spoken::Ldap, "ldap://", vec![""], vec![]),
                (Spoken::Ldap, "ldaps://", vec![""], vec![]),
                (Spoken::Http, "https://", vec!["/v1"], vec![]),
                (Spoken::Http, "http://", vec![], vec!["/v1"]),
            ] {
                for rest in verified {
                    let url = format!("{scheme}{host}{rest}");
                    assert_eq!(of(spoken, &url, false, false), Ok(Security::Verified), "{url}");
                    assert_eq!(of(spoken, &url, false, true), Ok(Security::Verified), "{url}");
                }
                for rest in weak {
                    let url = format!("{scheme}{host}{rest}");
                    assert_eq!(of(spoken, &url, false, false), Err(Part::Url), "{url}");
                    assert!(of(spoken, &url, true, false).is_ok_and(|security| security < Security::Verified), "{url}");
                }
            }
        }
    }

    #[test]
    fn on_this_machine_the_url_decides() {
        for (spoken, url, expected) in [
            (Spoken::Postgres, "postgres://u@127.0.0.1/d", Security::Preferred),
            (Spoken::Postgres, "postgres://u@LOCALHOST/d", Security::Preferred),
            (Spoken::Postgres, "postgres://u@[::1]/d?sslmode=disable", Security::Plain),
            (Spoken::Postgres, "postgres://u@localhost/d?sslrootcert=/ca.pem", Security::Verified),
            (Spoken::Postgres, "postgres://u@db.example/d?host=/run/postgresql", Security::Preferred),
            (Spoken::Postgres, "postgres://u@%2Frun%2Fpostgresql/d", Security::Preferred),
            (Spoken::MySql, "mysql://u@127.0.0.1", Security::Preferred),
            (Spoken::MySql, "mysql://u@localhost?socket=/run/mysqld.sock", Security::Preferred),
            (Spoken::MySql, "mysql://u@localhost?ssl-ca=/ca.pem", Security::Verified),
            (Spoken::Ldap, "ldap://localhost", Security::Verified),
            (Spoken::Http, "http://127.0.0.1:8200", Security::Plain),
        ] {
            assert_eq!(of(spoken, url, false, false), Ok(expected), "{url}");
        }
        assert_eq!(of(Spoken::Postgres, "postgres://u@127.0.0.1/d", false, true), Ok(Security::Verified));
        assert_eq!(of(Spoken::Ldap, "ldap://localhost", true, false), Ok(Security::Plain));
    }

    #[test]
    fn an_opt_out_contradicts_what_verifies() {
        for (spoken, url, ca, part) in [
            (Spoken::Postgres, "postgres://u@db/d?sslmode=verify-full", false, Part::Plaintext),
            (Spoken::MySql, "mysql://u@db?ssl-mode=VERIFY_IDENTITY", false, Part::Plaintext),
            (Spoken::Ldap, "ldaps://db", false, Part::Plaintext),
            (Spoken::Http, "https://db", false, Part::Plaintext),
            (Spoken::Postgres, "postgres://u@db/d", true, Part::Ca),
            (Spoken::Ldap, "ldap://db", true, Part::Ca),
        ] {
            assert_eq!(of(spoken, url, true, ca), Err(part), "{url}");
        }
    }

    #[test]
    fn a_setting_that_would_be_skipped_or_lead_elsewhere_is_refused() {
        for (spoken, url) in [
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?ssl_mode=verify-full"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?ssl-mode=verify-full"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?hostaddr=10.0.0.7"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?host=db.example"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?port=1"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?user=postgres"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?options=-csearch_path%3Dpublic"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?options[search_path]=public"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?sslmode=verify-full&sslmode=disable"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?sslmode=verifyfull"),
            (Spoken::Postgres, "postgres://u@127.0.0.1/d?sslmode="),
            (Spoken::MySql, "mysql://u@127.0.0.1?sslmode=VERIFY_IDENTITY"),
            (Spoken::MySql, "mysql://u@127.0.0.1?ssl-mode=verify-full"),
            (Spoken::MySql, "mysql://u@127.0.0.1?ssl-mode=REQUIRED&ssl-mode=DISABLED"),
            (Spoken::MySql, "mysql://u@127.0.0.1?timezone=x"),
            (Spoken::Ldap, "ldaps://d?starttls=no"),
            (Spoken::Http, "https://d?insecure=1"),
        ] {
            for plaintext in [false, true] {
                assert_eq!(of(spoken, url, plaintext, false), Err(Part::Url), "{url}");
            }
        }
    }
}
