//! The durable record of a rotating account. Times and numbers stand in it in clear, so that
//! operators see them and a lost key does not lose them; passwords are sealed, each for its account
//! and number (NO-STORED-SECRET).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jit_core::account::AccountName;
use jit_core::lease::DriverRef;
use jit_core::name::{RoleName, TargetName};
use jit_core::rotation::{Generation, Held, Phase, Rotation};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Site;
use crate::sealing::{Label, SealError, Sealer, UnsealError};
use jit_ledger::{SealedWrite, Store, StoreError};

/// What these values are in the store.
pub const PURPOSE: &str = "rotation";

/// A sealed password.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(Vec<u8>);

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelope")
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What the store has of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The target through which it was rotated last.
    pub target: TargetName,
    /// The role that handed it out then.
    pub role: RoleName,
    /// The account.
    pub account: AccountName,
    /// Who rotated it: who ends the overlap when the configuration no longer has the role.
    pub driver: DriverRef,
    /// Where it stands.
    #[serde(flatten)]
    pub rotation: Rotation<Envelope>,
}

impl Record {
    /// Of an account that was never rotated, or as it stands, at its present site.
    pub(super) fn at(site: &Site, rotation: Rotation<Envelope>) -> Self {
        Self {
            target: site.target.clone(),
            role: site.role.clone(),
            account: site.account.clone(),
            driver: site.driver_ref.clone(),
            rotation,
        }
    }

    /// The record as it is written, its passwords sealed anew where a former key did it.
    ///
    /// # Errors
    /// When something cannot be sealed or written as JSON.
    pub(super) fn write(mut self, name: &str, sealer: &Sealer) -> Result<SealedWrite, StoreError> {
        let failed = |error: &dyn fmt::Display| StoreError::Failed(format!("a rotation's record: {error}"));
        let mut held: Vec<&mut Held<Envelope>> = self.rotation.current.iter_mut().collect();
        if let Phase::Staging { next, .. } = &mut self.rotation.phase {
            held.push(next);
        }
        for held in held.into_iter().filter(|held| sealer.is_former(&held.secret.0)) {
            // What a lost key sealed stays as it is.
            if let Ok(secret) = unseal(sealer, name, held) {
                held.secret = seal(sealer, name, held.generation, &secret).map_err(|error| failed(&error))?;
            }
        }
        let value = serde_json::to_vec(&self).map_err(|error| failed(&error))?;
        Ok(SealedWrite { purpose: PURPOSE, name: name.to_owned(), value: Some(value) })
    }
}

/// Seals a password of an account.
pub(super) fn seal(
    sealer: &Sealer,
    name: &str,
    generation: Generation,
    secret: &SecretString,
) -> Result<Envelope, SealError> {
    let label = Label { purpose: PURPOSE, names: &[name], number: generation.number() };
    sealer.seal(label, secret).map(Envelope)
}

/// Unseals a held password of an account.
///
/// # Errors
/// [`UnsealError`], when its key is lost or it is not of this account and number.
pub fn unseal(sealer: &Sealer, name: &str, held: &Held<Envelope>) -> Result<SecretString, UnsealError> {
    let label = Label { purpose: PURPOSE, names: &[name], number: held.generation.number() };
    sealer.unseal(label, &held.secret.0)
}

/// An account's record; none when it was never rotated.
///
/// # Errors
/// When the store fails or the record cannot be read.
pub async fn load(store: &dyn Store, name: &str) -> Result<Option<Record>, StoreError> {
    let value = store.sealed(PURPOSE, name).await?;
    value.map(|value| parse(name, &value)).transpose()
}

/// All records, by name. One that cannot be read does not hide the others, but is told.
///
/// # Errors
/// When the store fails.
pub async fn all(store: &dyn Store) -> Result<Vec<(String, Record)>, StoreError> {
    let values = store.sealed_of(PURPOSE).await?;
    let readable = values.into_iter().filter_map(|(name, value)| match parse(&name, &value) {
        Ok(record) => Some((name, record)),
        Err(error) => {
            tracing::error!(%error, "a rotation's record is left out");
            None
        }
    });
    Ok(readable.collect())
}

fn parse(name: &str, value: &[u8]) -> Result<Record, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::Failed(format!("the rotation of {:?} is unreadable: {error}", name)))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jit_core::rotation::Schedule;
    use jit_core::ttl::Ttl;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn record(sealer: &Sealer) -> Record {
        let ttl = |seconds| Ttl::from_seconds(seconds).unwrap();
        let schedule = Schedule::new(ttl(60), ttl(5)).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let sealed = |number, secret: &str| {
            seal(sealer, "shop\napp_user", Generation::from_number(number), &secret.into()).unwrap()
        };
        let first = Rotation::default().begin(sealed(1, "first-password"), schedule, now).unwrap();
        let rotation = first.staged(now, now).unwrap().discarded().unwrap();
        Record {
            target: TargetName::new("shop_db").unwrap(),
            role: RoleName::new("app").unwrap(),
            account: AccountName::from_backend("app_user"),
            driver: DriverRef {
                plugin: "mysql".into(),
                connection: Some("shop".into()),
                sha256: "00".into(),
                name: None,
                config: None,
                place: None,
            },
            rotation: rotation.begin(sealed(2, "second-password"), schedule, now).unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_has_no_password_in_it() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let record = record(&sealer);
        let value = record.clone().write("shop\napp_user", &sealer).unwrap().value.unwrap();
        let text = String::from_utf8(value.clone()).unwrap();
        assert!(!text.contains("password"), "{text}");
        assert_eq!(parse("x", &value).unwrap(), record);
        assert!(!format!("{record:?}").contains("password"));
    }

    #[test]
    fn passwords_are_sealed_anew_when_the_key_has_changed() {
        let old = Sealer::new(&[7; 32]).unwrap();
        let both = Sealer::new(&[8; 32]).unwrap().with_former(&[7; 32]).unwrap();
        let new = Sealer::new(&[8; 32]).unwrap();
        let name = "shop\napp_user";
        let rewritten = record(&old).write(name, &both).unwrap().value.unwrap();
        let rewritten = parse(name, &rewritten).unwrap();
        let current = rewritten.rotation.current.as_ref().unwrap();
        assert_eq!(unseal(&new, name, current).unwrap().expose_secret(), "first-password");
        let Phase::Staging { next, .. } = &rewritten.rotation.phase else { panic!() };
        assert_eq!(unseal(&new, name, next).unwrap().expose_secret(), "second-password");
        // What the new one alone cannot open stays as it is.
        let lost = parse(name, &record(&old).write(name, &new).unwrap().value.unwrap()).unwrap();
        assert!(unseal(&old, name, lost.rotation.current.as_ref().unwrap()).is_ok());
    }

    #[test]
    fn a_password_of_another_account_or_number_is_refused() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let record = record(&sealer);
        let mut held = record.rotation.current.unwrap();
        assert!(unseal(&sealer, "shop\nother_user", &held).is_err());
        held.generation = Generation::from_number(2);
        assert!(unseal(&sealer, "shop\napp_user", &held).is_err());
    }
}
