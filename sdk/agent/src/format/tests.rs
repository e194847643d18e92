#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use jit_client::{Connection, Credential, Lease};
use proptest::prelude::*;

use super::*;

pub(crate) fn credential(username: &str, password: &str) -> Credential {
    let time = |text: &str| text.parse().unwrap();
    let lease: Lease = serde_json::from_value(serde_json::json!({
        "lease_id": "lease_01jd3x7k2m9v5q8w4r6t0y1z3b", "target": "inventory_db", "role": "app_read_only",
        "ephemeral_id": username, "issued_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-02T04:04:05Z",
        "ttl_seconds": 3600, "renew_after": "2026-01-02T03:52:05Z", "max_expires_at": "2026-01-02T11:04:05Z",
        "renewable": true, "state": "active",
    }))
    .unwrap();
    assert_eq!(lease.term.issued_at, time("2026-01-02T03:04:05Z"));
    Credential {
        lease,
        username: username.to_owned(),
        password: password.into(),
        connection: Some(Connection {
            host: "db.example.com".into(),
            port: 5432,
            database: Some("inventory".into()),
            uri: "postgres://v:p@db.example.com:5432/inventory".into(),
        }),
        properties: std::collections::BTreeMap::new(),
        revocable: true,
        previous_valid_until: None,
    }
}

pub(super) fn written(format: Format, password: &str) -> Result<String, AgentError> {
    let fields = Fields::of(&credential("v-app", password));
    render(format, "DB_", None, &fields).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn forms_are_what_programs_expect() {
    for (format, expected) in [
        (
            Format::Env,
            "DB_USERNAME=v-app\nDB_PASSWORD=geheim\nDB_HOST=db.example.com\nDB_PORT=5432\nDB_NAME=inventory\n\
             DB_URL=postgres://v:p@db.example.com:5432/inventory\n",
        ),
        (Format::Pgenv, "PGUSER=v-app\nPGPASSWORD=geheim\nPGHOST=db.example.com\nPGPORT=5432\nPGDATABASE=inventory\n"),
        (Format::Pgpass, "db.example.com:5432:inventory:v-app:geheim\n"),
        (Format::Uri, "postgres://v:p@db.example.com:5432/inventory"),
        (Format::MyCnf, "[client]\nuser=\"v-app\"\npassword=\"geheim\"\nhost=\"db.example.com\"\nport=\"5432\"\n"),
    ] {
        assert_eq!(written(format, "geheim").unwrap(), expected, "{format:?}");
    }
    let json: serde_json::Value = serde_json::from_str(&written(Format::Json, "geheim").unwrap()).unwrap();
    assert_eq!((&json["username"], &json["port"]), (&"v-app".into(), &5432.into()));
    assert_eq!(json["max_expires_at"], "2026-01-02T11:04:05Z");
    let properties = written(Format::Properties, "geheim").unwrap();
    assert!(
        properties.contains("DB_password=geheim\n") && properties.contains("DB_host=db.example.com\n"),
        "{properties}"
    );
}

#[test]
fn what_the_target_has_not_is_left_out() {
    let bare = Credential { connection: None, ..credential("v-app", "x") };
    let fields = Fields::of(&bare);
    let text = render(Format::Env, "LDAP_", None, &fields).unwrap();
    assert_eq!(&text[..], b"LDAP_USERNAME=v-app\nLDAP_PASSWORD=x\n");
    assert_eq!(&render(Format::Pgpass, "", None, &fields).unwrap()[..], b"*:*:*:v-app:x\n");
    let told = render(Format::Uri, "", None, &fields).unwrap_err().to_string();
    assert!(told.contains("uri") && told.contains("no connection"), "{told}");
}

#[test]
fn what_a_form_cannot_hold_is_an_error_that_does_not_show_it() {
    for (format, password) in [
        (Format::Env, "geheim\0"),
        (Format::Env, "geheim'\""),
        (Format::Env, "geheim\u{7}"),
        (Format::EnvSh, "geheim\0"),
        (Format::EnvSystemd, "geheim\u{7}"),
        (Format::Dotenv, "geheim\r"),
        (Format::DockerEnv, "geheim\n"),
        (Format::Pgpass, "geheim\nx"),
        (Format::Pgpass, "geheim\r"),
        (Format::MyCnf, "geheim\0"),
    ] {
        let told = written(format, password).unwrap_err().to_string();
        assert!(!told.contains("geheim"), "{told}");
    }
    assert!(written(Format::Json, "geheim\0").is_ok());
}

/// What a shell makes of a file that it reads.
fn through_sh(file: &str) -> Vec<u8> {
    let mut shell = Command::new("sh")
        .args(["-c", ". /dev/stdin && printf %s \"$DB_PASSWORD\""])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
    shell.wait_with_output().unwrap().stdout
}

/// `java.util.Properties.load`, as its documentation says, of a file without continuation lines.
fn properties(file: &str) -> Vec<(String, String)> {
    file.lines()
        .map(|line| {
            assert!(!line.starts_with([' ', '#', '!']));
            let mut parts = [Vec::new(), Vec::new()];
            let mut part = 0;
            let mut rest = line.chars();
            while let Some(character) = rest.next() {
                match character {
                    '\\' => match rest.next().unwrap() {
                        'u' => {
                            let digits: String = rest.by_ref().take(4).collect();
                            parts[part].push(u16::from_str_radix(&digits, 16).unwrap());
                        }
                        't' => parts[part].push(u16::from(b'\t')),
                        'n' => parts[part].push(u16::from(b'\n')),
                        'r' => parts[part].push(u16::from(b'\r')),
                        'f' => parts[part].push(0xc),
                        other => parts[part].push(u16::try_from(u32::from(other)).unwrap()),
                    },
                    '=' | ':' if part == 0 => part = 1,
                    ' ' if part == 0 => panic!("a blank ends a key"),
                    ' ' if parts[1].is_empty() => {}
                    other => {
                        assert!(u32::from(other) < 0x7f);
                        parts[part].push(u16::try_from(u32::from(other)).unwrap());
                    }
                }
            }
            let [key, value] = parts.map(|units| String::from_utf16(&units).unwrap());
            (key, value)
        })
        .collect()
}

/// The fields of a line of a password file, as libpq's `pwdfMatchesString` reads them.
fn pgpass(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = line.trim_end_matches('\n').chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => fields.last_mut().unwrap().extend(rest.next()),
            ':' => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    fields
}

/// A value of an option file, as `my_getopt` reads it.
fn option(value: &str) -> String {
    let inside = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
    let mut text = String::new();
    let mut rest = inside.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => text.push(match rest.next().unwrap() {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                's' => ' ',
                other => other,
            }),
            other => text.push(other),
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// By a real shell.
    #[test]
    fn a_shell_reads_what_was_meant(password in "[^\\x00]{0,40}") {
        prop_assume!(!password.is_empty());
        prop_assert_eq!(through_sh(&written(Format::EnvSh, &password).unwrap()), password.into_bytes());
    }
}

proptest! {
    #[test]
    fn every_other_form_gives_back_what_was_meant(password in "[^\\x00\\r\\n]{1,40}", lines in "(?s)[^\\x00]{1,40}") {
        let json: serde_json::Value = serde_json::from_str(&written(Format::Json, &lines).unwrap()).unwrap();
        prop_assert_eq!(json["password"].as_str().unwrap(), lines.as_str());
        let read = properties(&written(Format::Properties, &lines).unwrap());
        let found = read.iter().find(|(key, _)| key == "DB_password").map(|(_, value)| value.as_str());
        prop_assert_eq!(found, Some(lines.as_str()));
        let line = written(Format::Pgpass, &password).unwrap();
        prop_assert_eq!(line.matches('\n').count(), 1);
        prop_assert_eq!(pgpass(&line), ["db.example.com", "5432", "inventory", "v-app", password.as_str()]);
        let file = written(Format::MyCnf, &lines).unwrap();
        let value = file.lines().find_map(|line| line.strip_prefix("password=")).unwrap();
        prop_assert_eq!(option(value), lines);
    }
}
