//! What rustls says of a server's certificate, in words by which somebody can act: what is wrong, and where to mend it.
//!
//! The errors come as text: every client library wraps them in its own way, and their text is all that is left at the
//! end. So this looks for the words of rustls, wherever in a text they stand.

use jiff::Timestamp;

/// What the reader has to change: in the words of what they configure.
#[derive(Debug, Clone, Copy)]
pub struct Remedy<'w> {
    /// Where an authority is named, such as "the connection's `ca`".
    pub authority: &'w str,
    /// Where the server's address is written, such as "`url`".
    pub address: &'w str,
}

impl Remedy<'static> {
    /// A `[connections.…]` of the broker.
    pub const CONNECTION: Self = Self { authority: "the connection's `ca`", address: "`url`" };
    /// A `[[identity.jwt]]` of the broker.
    pub const ISSUER: Self = Self { authority: "the issuer's `ca`", address: "`issuer` or `jwks_url`" };
    /// The library for applications.
    pub const CLIENT: Self = Self { authority: "`ca_file` (jit-agent: `--ca-file`)", address: "the broker's address" };
}

/// How the texts of rustls about a certificate begin.
const THEIRS: &str = "invalid peer certificate: ";

/// The text with what rustls says of a certificate in plain words. Texts about something else stay as they are.
#[must_use]
pub fn explained(text: &str, remedy: Remedy<'_>) -> String {
    let Some((before, theirs)) = text.split_once(THEIRS) else { return text.to_owned() };
    let (said, after) = cut(theirs);
    format!("{before}{}{after}", plain(said, remedy))
}

/// What rustls says, and what somebody else wrote behind it.
fn cut(theirs: &str) -> (&str, &str) {
    for end in [" seconds ago)", " seconds in future)"] {
        if let Some(at) = theirs.find(end) {
            return theirs.split_at(at + end.len());
        }
    }
    if theirs.starts_with("certificate ") {
        return (theirs, "");
    }
    let word = |c: char| c.is_ascii_alphanumeric();
    match theirs.strip_prefix("Other(OtherError(") {
        Some(inner) => {
            let end = inner.find("))").unwrap_or(inner.len());
            (&inner[..end], inner.get(end + 2..).unwrap_or(""))
        }
        None => theirs.split_at(theirs.find(|c| !word(c)).unwrap_or(theirs.len())),
    }
}

fn plain(said: &str, Remedy { authority, address }: Remedy<'_>) -> String {
    let is = |word: &str, begins: &str| said == word || said.starts_with(begins);
    if is("UnknownIssuer", "UnknownIssuer") {
        return format!(
            "the server's certificate is not from an authority that is trusted here (UnknownIssuer): name the \
             authority's certificate as {authority}"
        );
    }
    if is("Expired", "certificate expired:") {
        let when = moment(said, "not valid after ").map_or_else(String::new, |at| format!(" on {at}"));
        return format!(
            "the server's certificate has expired{when} (Expired): renew it on the server, and look at this machine's \
             clock if that is wrong"
        );
    }
    if is("NotValidYet", "certificate not valid yet:") {
        let when = moment(said, "not valid before ").map_or_else(String::new, |at| format!(": it begins on {at}"));
        return format!(
            "the server's certificate is not valid yet{when} (NotValidYet): look at the clocks of this machine and of \
             the one that made it"
        );
    }
    if is("NotValidForName", "certificate not valid for name ") {
        return format!(
            "the server's certificate is for another name{} (NotValidForName): write in {address} a name that it has, \
             or give the server a certificate with this name",
            names(said)
        );
    }
    if is("InvalidPurpose", "certificate does not allow extended key usage") {
        return "the server's certificate is not for servers (InvalidPurpose): give the server one whose extended key \
                usage has serverAuth"
            .to_owned();
    }
    match said {
        "BadSignature" => format!(
            "the server's certificate was not signed by the authority whose name it has (BadSignature): {authority} may \
             be an older one of the same name"
        ),
        "CaUsedAsEndEntity" => format!(
            "the server shows the certificate of an authority as its own (CaUsedAsEndEntity): have the authority sign \
             one for the server, and name the authority as {authority}"
        ),
        "EndEntityUsedAsCa" => format!(
            "the server's certificate was signed with one that is no authority's (EndEntityUsedAsCa): have it signed by \
             an authority, and name that as {authority}"
        ),
        "Revoked" => "the server's certificate was revoked (Revoked): give the server a new one".to_owned(),
        "UnsupportedCertVersion" => "the server's certificate is of an old form (UnsupportedCertVersion): make one of \
                                     X.509 version 3"
            .to_owned(),
        other => format!("the server's certificate is refused ({other}): give the server one that is in order"),
    }
}

/// The names of a certificate for other names, and the one that was wanted, where rustls tells them.
fn names(said: &str) -> String {
    let told = said.strip_prefix("certificate not valid for name ").and_then(|rest| rest.split_once("; certificate "));
    match told {
        None => String::new(),
        Some((wanted, presented)) => match presented.strip_prefix("is only valid for ") {
            Some(names) => format!(" than {wanted}: {names}"),
            None => format!(" than {wanted}: it has none at all"),
        },
    }
}

/// The time behind those words, in seconds since the Unix epoch.
fn moment(said: &str, before: &str) -> Option<Timestamp> {
    let (_, rest) = said.split_once(before)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Timestamp::from_second(digits.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError as Error, ExtendedKeyPurpose, OtherError};

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn other(said: &'static str) -> Error {
        #[derive(Debug)]
        struct Said(&'static str);
        impl std::fmt::Display for Said {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for Said {}
        // As webpki's own errors are written: by their names.
        struct Named(Said);
        impl std::fmt::Debug for Named {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0.0)
            }
        }
        impl std::fmt::Display for Named {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::error::Error for Named {}
        Error::Other(OtherError(std::sync::Arc::new(Named(Said(said)))))
    }

    fn wrong_name(presented: &[&str]) -> Error {
        Error::NotValidForNameContext {
            expected: ServerName::try_from("db.example.com").unwrap().to_owned(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn each_fault_is_told_with_what_to_do() {
        let cases = [
            (Error::UnknownIssuer, "name the authority's certificate as the connection's `ca`"),
            (Error::Expired, "has expired (Expired): renew it on the server"),
            (Error::ExpiredContext { time: at(1_800_000_000), not_after: at(1_700_000_000) }, "expired on 2023-11-14T"),
            (Error::NotValidYet, "is not valid yet (NotValidYet): look at the clocks"),
            (
                Error::NotValidYetContext { time: at(1_700_000_000), not_before: at(1_800_000_000) },
                "not valid yet: it begins on 2027-01-15T",
            ),
            (Error::NotValidForName, "is for another name (NotValidForName): write in `url` a name that it has"),
            (
                wrong_name(&["DnsName(\"a\")", "DnsName(\"b\")"]),
                "than \"db.example.com\": DnsName(\"a\") or DnsName(\"b\")",
            ),
            (wrong_name(&[]), "it has none at all"),
            (Error::InvalidPurpose, "has serverAuth"),
            (
                Error::InvalidPurposeContext {
                    required: ExtendedKeyPurpose::ServerAuth,
                    presented: vec![ExtendedKeyPurpose::ClientAuth],
                },
                "has serverAuth",
            ),
            (Error::BadSignature, "may be an older one of the same name"),
            (Error::Revoked, "was revoked"),
            (Error::BadEncoding, "is refused (BadEncoding)"),
            (other("CaUsedAsEndEntity"), "shows the certificate of an authority as its own"),
            (other("EndEntityUsedAsCa"), "signed with one that is no authority's"),
            (other("UnsupportedCertVersion"), "make one of X.509 version 3"),
        ];
        for (error, says) in cases {
            let theirs = rustls::Error::InvalidCertificate(error).to_string();
            let plain = explained(&format!("cannot connect: {theirs}"), Remedy::CONNECTION);
            assert!(plain.starts_with("cannot connect: the server") && plain.contains(says), "{theirs}: {plain}");
            assert!(!plain.contains("peer") && !plain.contains("OtherError") && !plain.contains("UNIX"), "{plain}");
        }
    }

    #[test]
    fn what_stands_around_it_stays_and_so_do_other_texts() {
        let remedy = Remedy { authority: "`--ca-file`", address: "`--broker`" };
        let told = explained("a (invalid peer certificate: UnknownIssuer), b", remedy);
        assert!(told.starts_with("a (the server's") && told.ends_with("as `--ca-file`), b"), "{told}");
        let told = explained("x: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity)); y", remedy);
        assert!(told.ends_with("; y"), "{told}");
        for cut_off in ["invalid peer certificate: Other(OtherError(", "invalid peer certificate: "] {
            assert!(explained(cut_off, remedy).starts_with("the server's certificate is refused"));
        }
        assert_eq!(explained("connection refused", remedy), "connection refused");
    }
}
