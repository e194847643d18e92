//! Fixture: creation and removal run the steps of the target's configuration and end with `other`,
//! whose text is all that the driver saw. Whether the host makes a refusal or an unknown outcome
//! of that shows whether it thinks that the backend may have been changed.
//!
//! ```toml
//! [targets.t.config]
//! steps = [
//!     { credential = { name = "token", as = "t" } },
//!     { send = { method = "post", path = ["login"], headers = [["authorization", [{ text = "Bearer " }, { secret = "t" }]]] } },
//! ]
//! ```

use std::collections::BTreeMap;

use jit_plugin::http::{
    Bcrypt, BcryptPrefix, Body, Digest, Encoding, HttpError, Method, Notation, Part, Request, SaltPlace, SaltedDigest,
};
use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Http, HttpDriver, Issued, OwnedSecret, Role,
    Secret, Target,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// `[targets.T.config]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    steps: Vec<Step>,
    /// The secret, by its name here, that creation gives as the account's.
    issue: Option<String>,
    /// What creation makes of it all: `refused` or `retryable` say that nothing was done.
    end: Option<String>,
}

/// `[targets.T.roles.R]`: nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {}

/// One thing to do. `as` is the name under which a secret is found again; `password` is creation's own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A request.
    Send(Send),
    /// Reads a credential.
    Credential {
        /// Its name in the connection's table.
        name: String,
        /// Its name here.
        r#as: String,
    },
    /// Asks for what is kept.
    Kept {
        /// The key.
        key: String,
        /// Seconds.
        at_least: u64,
        /// Its name here.
        r#as: String,
    },
    /// Keeps.
    Keep {
        /// The key.
        key: String,
        /// Which secret.
        secret: String,
        /// Seconds.
        valid: u64,
        /// Seconds.
        unless: u64,
        /// What now holds.
        r#as: String,
    },
    /// Forgets.
    Forget {
        /// The key.
        key: String,
        /// Which secret.
        secret: String,
    },
    /// Panics.
    Trap,
}

/// A request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    #[serde(default)]
    method: String,
    #[serde(default)]
    path: Vec<String>,
    #[serde(default)]
    query: Vec<(String, String)>,
    #[serde(default)]
    headers: Vec<(String, Vec<Piece>)>,
    json: Option<Value>,
    /// Where secrets stand in `json`.
    #[serde(default)]
    secrets: Vec<(String, Placed)>,
    form: Option<Vec<(String, Piece)>>,
    text: Option<Vec<Piece>>,
    #[serde(default)]
    withhold: Vec<String>,
    /// Names here of what was withheld.
    #[serde(default)]
    r#as: Vec<String>,
    #[serde(default)]
    changes: bool,
}

/// A secret of the body: by its name here, or a piece.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Placed {
    /// As it is.
    Name(String),
    /// Any piece.
    Piece(Piece),
}

/// A text or a secret.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    /// As it is.
    Text(String),
    /// By its name here.
    Secret(String),
    /// User, and a secret by its name here.
    Basic(String, String),
    /// In hexadecimal.
    Hex(String),
    /// As RabbitMQ takes it.
    Salted(String),
    /// With that cost.
    Bcrypt(String, u8),
}

/// The driver.
#[derive(Debug)]
pub struct Told;

/// The secrets of a call by their names here.
struct Known<'a> {
    password: Option<Secret<'a>>,
    others: BTreeMap<String, OwnedSecret>,
}

impl Known<'_> {
    fn get(&self, name: &str) -> Result<Secret<'_>, Error> {
        match self.password {
            Some(password) if name == "password" => Ok(password),
            _ => {
                let secret = self.others.get(name).map(OwnedSecret::borrow);
                secret.ok_or_else(|| Error::Refused(format!("the script has no secret {name}")))
            }
        }
    }

    fn piece<'s>(&'s self, piece: &'s Piece) -> Result<Part<'s>, Error> {
        Ok(match piece {
            Piece::Text(text) => Part::Text(text),
            Piece::Secret(name) => Part::Secret(self.get(name)?),
            Piece::Basic(user, name) => Part::Basic(user, self.get(name)?),
            Piece::Hex(name) => Part::Encoded(self.get(name)?, Encoding::Written(Notation::Hex)),
            Piece::Salted(name) => Part::Encoded(
                self.get(name)?,
                Encoding::SaltedDigest(SaltedDigest {
                    digest: Digest::Sha256,
                    salt_place: SaltPlace::Before,
                    salt_bytes: 4,
                    notation: Notation::Base64,
                }),
            ),
            Piece::Bcrypt(name, cost) => {
                Part::Encoded(self.get(name)?, Encoding::Bcrypt(Bcrypt { prefix: BcryptPrefix::TwoB, cost: *cost }))
            }
        })
    }
}

impl Send {
    fn request<'s>(&'s self, known: &'s Known<'_>) -> Result<Request<'s>, Error> {
        let method = match self.method.as_str() {
            "" | "get" => Method::Get,
            "post" => Method::Post,
            "put" => Method::Put,
            "patch" => Method::Patch,
            "delete" => Method::Delete,
            other => return Err(Error::Refused(format!("no method {other}"))),
        };
        let mut request = Request::new(method, self.path.iter().map(String::as_str));
        request.query = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for (name, pieces) in &self.headers {
            let parts = pieces.iter().map(|piece| known.piece(piece)).collect::<Result<Vec<_>, _>>()?;
            request = request.header(name, parts);
        }
        if let Some(json) = &self.json {
            let placed = |placed: &'s Placed| match placed {
                Placed::Name(name) => Ok(Part::Secret(known.get(name)?)),
                Placed::Piece(piece) => known.piece(piece),
            };
            let secrets = self.secrets.iter().map(|(pointer, it)| Ok((pointer.as_str(), placed(it)?)));
            request.body = Body::Json(json.clone(), secrets.collect::<Result<_, Error>>()?);
        } else if let Some(form) = &self.form {
            let fields = form.iter().map(|(name, piece)| Ok((name.as_str(), known.piece(piece)?)));
            request.body = Body::Form(fields.collect::<Result<_, Error>>()?);
        } else if let Some(text) = &self.text {
            request.body = Body::Text(text.iter().map(|piece| known.piece(piece)).collect::<Result<_, _>>()?);
        }
        request.withhold = self.withhold.iter().map(String::as_str).collect();
        request.changes = self.changes;
        Ok(request)
    }
}

fn play(http: &mut dyn Http, steps: &[Step], known: &mut Known<'_>) -> Result<Vec<Value>, Error> {
    let mut seen = Vec::new();
    for step in steps {
        seen.push(match step {
            Step::Send(send) => match http.send(&send.request(known)?) {
                Ok(response) => {
                    let withheld: Vec<bool> = response.withheld.iter().map(Option::is_some).collect();
                    for (name, secret) in send.r#as.iter().zip(response.withheld) {
                        known.others.extend(secret.map(|secret| (name.clone(), secret)));
                    }
                    json!({
                        "status": response.status,
                        "headers": response.headers,
                        "body": response.body,
                        "withheld": withheld,
                    })
                }
                Err(HttpError::Unavailable(text)) => json!({ "unavailable": text }),
                Err(HttpError::Unknown(text)) => json!({ "unknown": text }),
                Err(HttpError::Denied(text)) => json!({ "denied": text }),
            },
            Step::Credential { name, r#as } => match http.credential(name) {
                Ok(secret) => {
                    known.others.insert(r#as.clone(), secret);
                    json!("credential")
                }
                Err(text) => json!({ "no_credential": text }),
            },
            Step::Kept { key, at_least, r#as } => match http.kept(key, *at_least) {
                Some(secret) => {
                    known.others.insert(r#as.clone(), secret);
                    json!("kept")
                }
                None => json!("not kept"),
            },
            Step::Keep { key, secret, valid, unless, r#as } => {
                match http.keep(key, known.get(secret)?, *valid, *unless) {
                    Ok(holds) => {
                        known.others.insert(r#as.clone(), holds);
                        json!("holds")
                    }
                    Err(reason) => json!({ "no_room": reason }),
                }
            }
            Step::Forget { key, secret } => {
                json!(if http.forget(key, known.get(secret)?) { "forgotten" } else { "not there" })
            }
            Step::Trap => panic!("as configured"),
        });
    }
    Ok(seen)
}

fn tell(seen: Vec<Value>) -> Error {
    Error::Other(Value::Array(seen).to_string())
}

impl HttpDriver for Told {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let mut description = Description::new(name, version, 63, &[Feature::ListAccounts]);
        let properties = [("harmless-posts", "login harmless/*/login"), ("own-errors", "/errors")];
        description.properties.extend(properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        description
    }

    fn validate(_: &mut dyn Http, _: &Target<TargetConfig>, _: &[Role<RoleConfig>]) -> Result<(), Error> {
        Ok(())
    }

    fn create(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        _: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        let mut known = Known { password: Some(password), others: BTreeMap::new() };
        let seen = play(http, &target.config.steps, &mut known)?;
        match target.config.issue.as_ref().and_then(|name| known.others.remove(name)) {
            Some(secret) => Ok(Issued { secret: Some(secret), ..Issued::default() }),
            None => Err(match (target.config.end.as_deref(), tell(seen)) {
                (Some("refused"), Error::Other(text)) => Error::Refused(text),
                (Some("retryable"), Error::Other(text)) => Error::retryable(text),
                (_, told) => told,
            }),
        }
    }

    fn renew(
        _: &mut dyn Http,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        Ok(account.expires_at)
    }

    fn revoke(http: &mut dyn Http, target: &Target<TargetConfig>, _: &Account) -> Result<(), Error> {
        let mut known = Known { password: None, others: BTreeMap::new() };
        Err(tell(play(http, &target.config.steps, &mut known)?))
    }

    fn inspect(_: &mut dyn Http, _: &Target<TargetConfig>, _: &str) -> Result<AccountState, Error> {
        Err(Error::NotFound)
    }

    fn list_accounts(
        _: &mut dyn Http,
        _: &Target<TargetConfig>,
        _: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        Ok(AccountPage { names: Vec::new(), next: None })
    }
}

jit_plugin::register_http_driver!(Told);
