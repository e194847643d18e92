//! Requests to the connection's HTTP server: data that the host turns into a request. Secrets are
//! placed, and taken out of answers, by the host.

use crate::bindings::host::jit::plugin::http as contract;
use crate::bindings::host::jit::plugin::session;
use crate::driver::{Handle, OwnedSecret, Secret};
use crate::error::Error;

pub use crate::bindings::host::jit::plugin::secrets::{
    Bcrypt, BcryptPrefix, Digest, Encoding, Notation, Pbkdf2, SaltPlace, SaltedDigest,
};
pub use contract::{HttpError, Method};

/// A piece of a header, a field or a body.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// As it is.
    Text(&'a str),
    /// Placed by the host.
    Secret(Secret<'a>),
    /// Placed by the host, in another notation or as a hash: what an API takes in place of a password.
    ///
    /// ```
    /// use jit_plugin::http::{Body, Digest, Encoding, Notation, Part, SaltPlace, SaltedDigest};
    /// use jit_plugin::testing::secret;
    ///
    /// // `password_hash` as RabbitMQ takes it: base64(salt ‖ sha256(salt ‖ password)).
    /// let rabbitmq = Encoding::SaltedDigest(SaltedDigest {
    ///     digest: Digest::Sha256,
    ///     salt_place: SaltPlace::Before,
    ///     salt_bytes: 4,
    ///     notation: Notation::Base64,
    /// });
    /// let user = serde_json::json!({ "password_hash": "", "tags": "" });
    /// let body = Body::Json(user, vec![("/password_hash", Part::Encoded(secret("pw"), rabbitmq))]);
    /// # drop(body);
    /// ```
    Encoded(Secret<'a>, Encoding),
    /// User and secret as the credentials of HTTP Basic (RFC 7617): the host writes `Basic ` and base64.
    /// Use it as the whole value of the header `authorization`.
    Basic(&'a str, Secret<'a>),
}

/// A body.
#[derive(Clone, Debug, Default)]
pub enum Body<'a> {
    /// None.
    #[default]
    None,
    /// JSON, and what stands in the members at these JSON Pointers (RFC 6901), which the text has with
    /// any value. Parts for the same member stand one after the other, such as `{SSHA256}` and a digest.
    Json(serde_json::Value, Vec<(&'a str, Part<'a>)>),
    /// Fields of a form.
    Form(Vec<(&'a str, Part<'a>)>),
    /// `text/plain`.
    Text(Vec<Part<'a>>),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Segments below the connection's base URL; the host escapes each.
    pub path: Vec<&'a str>,
    /// Parameters.
    pub query: Vec<(&'a str, &'a str)>,
    /// Headers, the parts of each value one after the other.
    pub headers: Vec<(&'a str, Vec<Part<'a>>)>,
    /// The body.
    pub body: Body<'a>,
    /// JSON Pointers of the answer's secrets; the empty one is the whole body. A segment `*` stands for
    /// every item of an array and every member of an object; such a pointer gives no handle.
    pub withhold: Vec<&'a str>,
    /// Whether it may change an account or a lease at the backend although it is a GET. Every other method
    /// counts as a change, but for POSTs that the description lists as `harmless-posts`.
    pub changes: bool,
}

impl<'a> Request<'a> {
    /// A request that changes nothing, without headers, parameters and body.
    pub fn new(method: Method, path: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            method,
            path: path.into_iter().collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
            withhold: Vec::new(),
            changes: false,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: impl IntoIterator<Item = Part<'a>>) -> Self {
        self.headers.push((name, value.into_iter().collect()));
        self
    }

    /// With user and secret as HTTP Basic (RFC 7617), in the header `authorization`.
    #[must_use]
    pub fn basic(self, user: &'a str, secret: Secret<'a>) -> Self {
        self.header("authorization", [Part::Basic(user, secret)])
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }

    /// With a parameter.
    #[must_use]
    pub fn query(mut self, name: &'a str, value: &'a str) -> Self {
        self.query.push((name, value));
        self
    }

    /// The answer has a secret there: a JSON Pointer, or one with `*` for every item, such as
    /// `/*/password_hash`.
    #[must_use]
    pub fn withhold(mut self, pointer: &'a str) -> Self {
        self.withhold.push(pointer);
        self
    }

    /// It may change an account or a lease at the backend.
    #[must_use]
    pub fn changing(mut self) -> Self {
        self.changes = true;
        self
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// `content-type`, `retry-after`, `location`, `www-authenticate`, where they are there.
    pub headers: Vec<(String, String)>,
    /// The body without its secrets.
    pub body: String,
    /// One for each pointer that was withheld; none for a pointer with `*`.
    pub withheld: Vec<Option<OwnedSecret>>,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value, Error> {
        serde_json::from_str(&self.body).map_err(|_| Error::Other("the answer is not JSON".into()))
    }

    /// The seconds of `retry-after`, in milliseconds (RFC 9110, section 10.2.3), where it has seconds.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.header("retry-after")?.trim().parse::<u64>().ok()?.checked_mul(1000)
    }
}

/// The connection's HTTP server, and the broker's own credentials for it.
pub trait Http {
    /// Sends a request and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// See [`HttpError`].
    fn send(&mut self, request: &Request<'_>) -> Result<Response, HttpError>;

    /// A secret of the connection's `secrets` table, read now.
    ///
    /// # Errors
    /// In words for the operator, when there is none of that name or it cannot be read.
    fn credential(&mut self, name: &str) -> Result<OwnedSecret, String>;

    /// What is kept under the key, when it is valid for at least so many more seconds.
    fn kept(&mut self, key: &str, at_least_seconds: u64) -> Option<OwnedSecret>;

    /// Keeps a secret that is valid for so many seconds; gives the one that now holds, which is
    /// another call's where that is valid for longer than `unless_valid_for` seconds.
    ///
    /// # Errors
    /// In words for the operator, when it cannot be kept: too many are, or it is too long.
    fn keep(
        &mut self,
        key: &str,
        secret: Secret<'_>,
        valid_seconds: u64,
        unless_valid_for: u64,
    ) -> Result<OwnedSecret, String>;

    /// Forgets what is kept under the key, if it is this secret. Returns whether it was: of several calls,
    /// one takes what is kept.
    fn forget(&mut self, key: &str, secret: Secret<'_>) -> bool;
}

/// A key to keep something under: what it is, and what it belongs to. The host takes 128 bytes at
/// most, and names of a configuration may be longer: they go in as a hash (FNV-1a, 64 bits).
pub fn key(what: &str, of: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in of {
        // No byte of UTF-8 is 0xff: parts do not run into each other.
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{what} {hash:016x}")
}

/// The host's connection.
#[derive(Debug, Default)]
pub struct HostHttp(());

impl Http for HostHttp {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, HttpError> {
        let response = contract::send(&lowered(request)?)?;
        let withheld = response.withheld.into_iter().map(|secret| secret.map(OwnedSecret::of_host)).collect();
        Ok(Response { status: response.status, headers: response.headers, body: response.body, withheld })
    }

    fn credential(&mut self, name: &str) -> Result<OwnedSecret, String> {
        session::credential(name).map(OwnedSecret::of_host)
    }

    fn kept(&mut self, key: &str, at_least_seconds: u64) -> Option<OwnedSecret> {
        session::kept(key, at_least_seconds).map(OwnedSecret::of_host)
    }

    fn keep(
        &mut self,
        key: &str,
        secret: Secret<'_>,
        valid_seconds: u64,
        unless_valid_for: u64,
    ) -> Result<OwnedSecret, String> {
        match secret.0 {
            Handle::Host(handle) => {
                session::keep(key, handle, valid_seconds, unless_valid_for).map(OwnedSecret::of_host)
            }
            Handle::Test(name) => Ok(OwnedSecret::of_test(name)),
        }
    }

    fn forget(&mut self, key: &str, secret: Secret<'_>) -> bool {
        match secret.0 {
            Handle::Host(handle) => session::forget(key, handle),
            Handle::Test(_) => false,
        }
    }
}

/// What every HTTP driver means by it.
impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Unavailable(reason) => Self::retryable(reason),
            HttpError::Unknown(reason) => Self::OutcomeUnknown(reason),
            HttpError::Denied(reason) => Self::Other(reason),
        }
    }
}

fn lowered<'a>(request: &Request<'a>) -> Result<contract::Request<'a>, HttpError> {
    let field = |(name, parts): &(&'a str, Vec<Part<'a>>)| {
        Ok(contract::Field { name: (*name).to_owned(), value: parts.iter().map(part).collect::<Result<_, _>>()? })
    };
    let body = match &request.body {
        Body::None => contract::Body::None,
        Body::Json(value, secrets) => {
            let secrets = members(secrets);
            let secrets = secrets.iter().map(field);
            contract::Body::Json(contract::JsonBody {
                text: value.to_string(),
                secrets: secrets.collect::<Result<_, HttpError>>()?,
            })
        }
        Body::Form(fields) => {
            let fields = fields.iter().map(|(name, value)| field(&(name, vec![*value])));
            contract::Body::Form(fields.collect::<Result<_, HttpError>>()?)
        }
        Body::Text(parts) => contract::Body::Text(parts.iter().map(part).collect::<Result<_, _>>()?),
    };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Ok(contract::Request {
        method: request.method,
        path: request.path.iter().map(|segment| (*segment).to_owned()).collect(),
        query: request.query.iter().map(owned).collect(),
        headers: request.headers.iter().map(field).collect::<Result<_, HttpError>>()?,
        body,
        withhold: request.withhold.iter().map(|pointer| (*pointer).to_owned()).collect(),
        changes: request.changes,
    })
}

/// The members of a JSON body, each with all parts that are for it, in their order.
pub(crate) fn members<'a>(secrets: &[(&'a str, Part<'a>)]) -> Vec<(&'a str, Vec<Part<'a>>)> {
    let mut members: Vec<(&str, Vec<Part<'_>>)> = Vec::new();
    for (pointer, part) in secrets {
        match members.iter_mut().find(|(there, _)| there == pointer) {
            Some((_, parts)) => parts.push(*part),
            None => members.push((pointer, vec![*part])),
        }
    }
    members
}

fn part<'a>(part: &Part<'a>) -> Result<contract::Part<'a>, HttpError> {
    Ok(match part {
        Part::Text(text) => contract::Part::Text((*text).to_owned()),
        Part::Secret(secret) => contract::Part::Secret(handle(*secret)?),
        Part::Encoded(secret, encoding) => contract::Part::Encoded((handle(*secret)?, *encoding)),
        Part::Basic(user, secret) => contract::Part::Basic(((*user).to_owned(), handle(*secret)?)),
    })
}

fn handle(secret: Secret<'_>) -> Result<&crate::bindings::host::jit::plugin::secrets::Secret, HttpError> {
    match secret.0 {
        Handle::Host(handle) => Ok(handle),
        Handle::Test(_) => Err(HttpError::Denied("a test's secret is not the host's".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_are_short_and_tell_owners_apart() {
        assert_eq!(key("token", &[]), "token cbf29ce484222325");
        assert_eq!(key("token", &["a", "b"]), key("token", &["a", "b"]));
        let others =
            [key("token", &["ab"]), key("token", &["a", "b"]), key("token", &["b", "a"]), key("mark", &["ab"])];
        for (index, one) in others.iter().enumerate() {
            assert!(others.iter().skip(index + 1).all(|other| other != one));
        }
        assert!(key("token", &["x".repeat(1_000).as_str()]).len() < 128);
    }
}
