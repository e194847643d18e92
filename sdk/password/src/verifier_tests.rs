use proptest::prelude::*;

use super::*;
use crate::generate_password;

fn parse(kind: VerifierKind, text: &str) -> Result<Verifier, WeakVerifier> {
    Verifier::parse(kind, &SecretString::from(text))
}

fn scram(text: &str) -> Result<Verifier, WeakVerifier> {
    parse(VerifierKind::ScramSha256, text)
}

/// What each kind is made with in these tests.
fn usual(kind: VerifierKind) -> u32 {
    least_iterations(kind)
}

#[test]
fn what_is_made_of_a_password_verifies_it_and_no_other() {
    for kind in VerifierKind::ALL {
        let (password, other) = (generate_password(), generate_password());
        let verifier = Verifier::of(kind, &password, usual(kind)).unwrap();
        assert_eq!(verifier.kind(), kind);
        assert!(verifier.verifies(password.expose_secret()), "{kind}");
        assert!(!verifier.verifies(other.expose_secret()) && !verifier.verifies(""), "{kind}");
        let again = Verifier::parse(kind, &verifier.text()).unwrap();
        assert_eq!(again.stored().expose_secret(), verifier.stored().expose_secret());
        assert_eq!(again.digest(), verifier.digest());
        let salted_anew = Verifier::of(kind, &password, usual(kind)).unwrap();
        assert_ne!(salted_anew.digest(), verifier.digest(), "{kind} has a new salt each time");
        let shown = format!("{verifier:?}");
        assert!(shown.contains("kind") && !shown.contains(verifier.stored().expose_secret()), "{shown}");
    }
}

#[test]
fn the_verifier_of_an_empty_password_is_found_out() {
    let salt = [7; 20];
    for (kind, stored) in [
        (VerifierKind::ScramSha256, scram::unchecked("", 4_096, &salt)),
        (VerifierKind::CachingSha2, mysql::caching_sha2_with("", b"abcdefghijklmnopqrst", 5)),
        (VerifierKind::Ssha, salted::with_salt(salted::SSHA, &SHA1_FOR_LEGACY_USE_ONLY, "", &salt)),
        (VerifierKind::Ssha512, salted::with_salt(salted::SSHA512, &SHA512, "", &salt)),
    ] {
        let written = match kind {
            VerifierKind::CachingSha2 => hex::encode(stored.as_bytes()),
            _ => stored.to_string(),
        };
        let verifier = parse(kind, &written).unwrap();
        assert_eq!(verifier.check_not_empty(), Err(WeakVerifier::Empty), "{kind}");
        let good = Verifier::of(kind, &generate_password(), usual(kind)).unwrap();
        assert_eq!(good.check_not_empty(), Ok(()), "{kind}");
        let made = Verifier::of_empty_password(kind, usual(kind)).unwrap();
        assert_eq!(made.check_not_empty(), Err(WeakVerifier::Empty), "{kind}");
        let other = Verifier::of_empty_password(kind, usual(kind)).unwrap();
        assert_ne!(made.digest(), other.digest(), "{kind} has a new salt each time");
    }
    assert!(Verifier::of_empty_password(VerifierKind::ScramSha256, 4_095).is_none());
}

#[test]
fn weak_and_malformed_verifiers_are_refused_by_rule() {
    let (salt, key) = ("W22ZaJ0SNY7soEsUEjb6gQ==", "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
    let form = WeakVerifier::Form(VerifierKind::ScramSha256);
    assert!(scram(&format!("SCRAM-SHA-256$4096:{salt}${key}:{key}")).is_ok());
    let short = STANDARD.encode([1; 15]);
    let long = STANDARD.encode([1; 65]);
    for (text, rule) in [
        (String::new(), form),
        ("x".to_owned(), form),
        (format!("SCRAM-SHA-1$4096:{salt}${key}:{key}"), form),
        (format!("scram-sha-256$4096:{salt}${key}:{key}"), form),
        (format!(" SCRAM-SHA-256$4096:{salt}${key}:{key}"), form),
        (format!("SCRAM-SHA-256$4096:{salt}${key}:{key} "), form),
        (format!("SCRAM-SHA-256$4096:{salt}${key}:{key}\n"), form),
        (format!("SCRAM-SHA-256$+4096:{salt}${key}:{key}"), form),
        (format!("SCRAM-SHA-256$04096:{salt}${key}:{key}"), form),
        (format!("SCRAM-SHA-256$-1:{salt}${key}:{key}"), form),
        (format!("SCRAM-SHA-256$99999999999:{salt}${key}:{key}"), form),
        (format!("SCRAM-SHA-256$:{salt}${key}:{key}"), form),
        (format!("SCRAM-SHA-256$4096:{salt}${key}"), form),
        (format!("SCRAM-SHA-256$4096:{salt}${key}:{key}:{key}"), form),
        (format!("SCRAM-SHA-256$4096:{salt}'${key}:{key}"), form),
        // The last character has bits that no byte has: another text for the same keys.
        (format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gR==${key}:{key}"), form),
        (format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ${key}:{key}"), form),
        (format!("SCRAM-SHA-256$4096:{short}${key}:{key}"), WeakVerifier::Salt),
        (format!("SCRAM-SHA-256$4096:{long}${key}:{key}"), WeakVerifier::Salt),
        (format!("SCRAM-SHA-256$4096:${key}:{key}"), WeakVerifier::Salt),
        (format!("SCRAM-SHA-256$4096:{salt}${short}:{key}"), WeakVerifier::Keys),
        (format!("SCRAM-SHA-256$4096:{salt}${key}:{long}"), WeakVerifier::Keys),
        (format!("SCRAM-SHA-256$4096:{salt}$:"), WeakVerifier::Keys),
        (format!("SCRAM-SHA-256$4096:{salt}${key}:{key}{}", "x".repeat(MAX_TEXT)), form),
        ("größe".to_owned(), form),
    ] {
        assert_eq!(scram(&text).map(|_| ()), Err(rule), "{text:?}");
        let said = rule.to_string();
        assert!(!said.contains(key) && !said.contains(salt), "{said}");
    }
}

#[test]
fn iterations_are_bounded_from_both_sides() {
    let with = |iterations: u32| {
        let text = scram::unchecked("x", 1, &[1; 16]).replacen("$1:", &format!("${iterations}:"), 1);
        scram(&text).unwrap()
    };
    assert_eq!(with(4_096).check_iterations(1), Ok(()));
    assert_eq!(with(10_000).check_iterations(10_000), Ok(()));
    assert_eq!(with(1_000_000).check_iterations(4_096), Ok(()));
    for (iterations, least) in [(1, 1), (4_095, 1), (4_096, 10_000), (1_000_001, 1), (999_999_999, 1)] {
        let said = with(iterations).check_iterations(least).unwrap_err();
        assert_eq!(said, WeakVerifier::Iterations { least: least.max(4_096), most: 1_000_000 });
    }
    let password = generate_password();
    assert!(Verifier::of(VerifierKind::ScramSha256, &password, 4_095).is_err());
    assert!(Verifier::of(VerifierKind::CachingSha2, &password, 5_500).is_err());
    assert!(Verifier::of(VerifierKind::ScramSha256, &SecretString::from(""), 4_096).is_err());
    assert_eq!(Verifier::of(VerifierKind::CachingSha2, &password, 6_000).unwrap().iterations(), 6_000);
}

#[test]
fn a_verifier_of_mysql_has_the_servers_form_in_hexadecimal() {
    let kind = VerifierKind::CachingSha2;
    let good = mysql::caching_sha2_with("x", b"abcdefghijklmnopqrst", 5);
    let hexed = |text: &str| hex::encode(text);
    assert!(parse(kind, &hexed(&good)).is_ok());
    assert!(parse(kind, &hexed(&good).to_uppercase()).is_ok(), "the same verifier");
    for (text, rule) in [
        (good.to_string(), WeakVerifier::Form(kind)),
        (format!("0x{}", hexed(&good)), WeakVerifier::Form(kind)),
        (hexed(&good.replacen("$A$005", "$A$05", 1)), WeakVerifier::Form(kind)),
        (hexed(&good.replacen("$A$005", "$A$00a", 1)), WeakVerifier::Form(kind)),
        (hexed(&good.replacen("$A$", "$B$", 1)), WeakVerifier::Form(kind)),
        (hexed("$A$005$abc"), WeakVerifier::Form(kind)),
        (hexed(&good.replacen("abcd", "ab'd", 1)), WeakVerifier::SaltCharacters),
        (hexed(&good.replacen("abcd", "ab\0d", 1)), WeakVerifier::SaltCharacters),
        (hexed(&good.replacen("abcd", "ab$d", 1)), WeakVerifier::SaltCharacters),
        (hexed(&good[..69]), WeakVerifier::Keys),
        (hexed(&format!("{}a", &*good)), WeakVerifier::Keys),
        (hexed(&format!("{}z", &good[..69])), WeakVerifier::Keys),
        (hexed(&format!("{}=", &good[..69])), WeakVerifier::Keys),
    ] {
        assert_eq!(parse(kind, &text).map(|_| ()), Err(rule), "{text}");
    }
    let few = parse(kind, &hexed(&good.replacen("$A$005", "$A$004", 1))).unwrap();
    assert!(few.check_iterations(0).is_err());
    let many = parse(kind, &hexed(&good.replacen("$A$005", "$A$FFF", 1))).unwrap();
    assert!(many.check_iterations(0).is_err());
}

#[test]
fn a_salted_digest_has_its_scheme_and_a_salt() {
    let kind = VerifierKind::Ssha512;
    let of = |bytes: usize| format!("{{SSHA512}}{}", STANDARD.encode(vec![3; bytes]));
    assert!(parse(kind, &of(64 + 16)).is_ok());
    for (text, rule) in [
        (of(63), WeakVerifier::Keys),
        (of(64), WeakVerifier::Salt),
        (of(64 + 15), WeakVerifier::Salt),
        (of(64 + 65), WeakVerifier::Salt),
        (of(64 + 16).replace("SSHA512", "SHA512"), WeakVerifier::Form(kind)),
        (of(64 + 16).replace("SSHA512", "ssha512"), WeakVerifier::Form(kind)),
        (of(64 + 16).replace("{SSHA512}", "{CLEARTEXT}"), WeakVerifier::Form(kind)),
    ] {
        assert_eq!(parse(kind, &text).map(|_| ()), Err(rule), "{text}");
    }
    assert!(parse(VerifierKind::Ssha, &of(64 + 16)).is_err(), "another kind's");
}

proptest! {
    /// Nothing that comes in makes it panic, and what is taken is what was sent.
    #[test]
    fn any_text_is_taken_whole_or_refused(text in "\\PC{0,600}", kind in prop::sample::select(&VerifierKind::ALL)) {
        if let Ok(verifier) = parse(kind, &text) {
            let text_again = verifier.text();
            prop_assert_eq!(text_again.expose_secret(), text.as_str());
        }
    }

    /// One changed character of a good verifier is another verifier or none: never the same.
    #[test]
    fn one_other_character_makes_another_verifier(at in any::<prop::sample::Index>(), to in 0x20_u8..0x7f) {
        let good = scram::unchecked("x", 4_096, &[9; 16]);
        let mut bytes = good.as_bytes().to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let good = scram(&good).unwrap();
        if let Ok(other) = scram(std::str::from_utf8(&bytes).unwrap()) {
            prop_assert_ne!(other.digest(), good.digest());
        }
    }
}
