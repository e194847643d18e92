//! The addresses that keys may come from: whoever can change what they answer can be any workload.

use std::fmt;

use url::{Host, Url};

/// The longest issuer, in bytes.
const MAX_ISSUER: usize = 1024;

/// Why a text is not an address for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyUrlError {
    /// Not a URL at all.
    #[error("this is not a URL")]
    Syntax,
    /// Too long.
    #[error("it must have at most {MAX_ISSUER} bytes")]
    Length,
    /// No host.
    #[error("the host is missing")]
    Host,
    /// A user or password.
    #[error("it must not have a user or password")]
    User,
    /// A query or fragment.
    #[error("it must not have a query or fragment")]
    Query,
    /// `http` to another machine.
    #[error("http is for 127.0.0.1 and localhost only: on a network, anybody in between could name any workload")]
    Plain,
    /// Another scheme.
    #[error("it must begin with https://")]
    Scheme,
}

/// An `https` URL, or an `http` one on loopback, which only `jit-broker dev` accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUrl(Url);

impl KeyUrl {
    /// Checks a key set's address, which may have a query.
    ///
    /// # Errors
    /// [`KeyUrlError`], which says what to change.
    pub fn parse(text: &str) -> Result<Self, KeyUrlError> {
        let url = Url::parse(text).map_err(|_| KeyUrlError::Syntax)?;
        let loopback = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(KeyUrlError::Host),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(KeyUrlError::User);
        }
        if url.fragment().is_some() {
            return Err(KeyUrlError::Query);
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if loopback => Ok(Self(url)),
            "http" => Err(KeyUrlError::Plain),
            _ => Err(KeyUrlError::Scheme),
        }
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether it is on loopback without TLS.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }
}

/// An issuer: the address whose discovery document names the keys, and the exact text of the tokens' `iss`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerUrl {
    text: String,
    url: KeyUrl,
}

impl IssuerUrl {
    /// Checks an issuer, which has no query.
    ///
    /// # Errors
    /// [`KeyUrlError`], which says what to change.
    pub fn parse(text: &str) -> Result<Self, KeyUrlError> {
        let url = KeyUrl::parse(text)?;
        if url.0.query().is_some() {
            return Err(KeyUrlError::Query);
        }
        if text.len() > MAX_ISSUER {
            return Err(KeyUrlError::Length);
        }
        Ok(Self { text: text.to_owned(), url })
    }

    /// As it was written: a trailing slash is another issuer.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is on loopback without TLS.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.url.is_plain()
    }

    /// The address of its discovery document (OpenID Connect Discovery section 4).
    pub(super) fn discovery(&self) -> Result<KeyUrl, KeyUrlError> {
        KeyUrl::parse(&format!("{}/.well-known/openid-configuration", self.text.trim_end_matches('/')))
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for (text, error) in [
            ("keys", KeyUrlError::Syntax),
            ("", KeyUrlError::Syntax),
            ("data:text/plain,x", KeyUrlError::Host),
            ("https://u@example.com/", KeyUrlError::User),
            ("https://:p@example.com/", KeyUrlError::User),
            ("https://example.com/#x", KeyUrlError::Query),
            ("http://example.com/", KeyUrlError::Plain),
            ("http://127.0.0.1.example.com/", KeyUrlError::Plain),
            ("http://128.0.0.1/", KeyUrlError::Plain),
            ("http://localhost.example.com", KeyUrlError::Plain),
            ("http://[::2]/", KeyUrlError::Plain),
            ("spiffe://shop/payment", KeyUrlError::Scheme),
            ("ftp://127.0.0.1/", KeyUrlError::Scheme),
        ] {
            assert_eq!(KeyUrl::parse(text), Err(error), "{text}");
            assert_eq!(IssuerUrl::parse(text), Err(error), "{text}");
        }
        for (text, plain) in [
            ("https://example.com", false),
            ("https://127.0.0.1", false),
            ("http://127.0.0.1:8080", true),
            ("http://LOCALHOST/realm/", true),
            ("http://[::1]:1", true),
        ] {
            assert_eq!(KeyUrl::parse(text).map(|url| url.is_plain()), Ok(plain), "{text}");
            assert_eq!(IssuerUrl::parse(text).map(|url| url.is_plain()), Ok(plain), "{text}");
        }
    }

    #[test]
    fn an_issuer_is_kept_as_it_was_written() {
        assert!(KeyUrl::parse("https://example.com/keys?tenant=1").is_ok());
        assert_eq!(IssuerUrl::parse("https://example.com/keys?tenant=1"), Err(KeyUrlError::Query));
        let long = format!("https://example.com/{}", "a".repeat(MAX_ISSUER));
        assert_eq!(IssuerUrl::parse(&long), Err(KeyUrlError::Length));
        for text in ["https://Example.com", "https://example.com/", "https://example.com/realm/"] {
            assert_eq!(IssuerUrl::parse(text).map(|issuer| issuer.as_str().to_owned()), Ok(text.to_owned()));
        }
    }
}
