//! The durable record of a rotating account. Times and numbers stand in it in clear, so that
//! operators see them and a lost key does not lose them; passwords are sealed, each for its account
//! and number (NO-STORED-SECRET).
//!
//! ```text
//! value = {"format":2,"number":N,"seal":"…"} ‖ line feed ‖ the record as JSON
//! ```
//! The seal is over the whole record, its account's name and its number: nobody without the key changes a
//! field, mixes two records, or gives one account's record to another. Each write has the next number; a
//! record that was set back shows by what [`super::trust`] holds against it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jit_core::account::AccountName;
use jit_core::lease::DriverRef;
use jit_core::name::{RoleName, TargetName};
use jit_core::place::Place;
use jit_core::rotation::{Generation, Held, Phase, Rotation};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Site;
use crate::sealing::{Label, SealError, Sealer, UnsealError};
use jit_ledger::{SealedWrite, StoreError};

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
    /// Of an account at its present site, which is in that place as far as is known.
    pub(super) fn at(site: &Site, place: Option<Place>, rotation: Rotation<Envelope>) -> Self {
        Self {
            target: site.target.clone(),
            role: site.role.clone(),
            account: site.account.clone(),
            driver: DriverRef { place, ..site.driver_ref.clone() },
            rotation,
        }
    }

    /// The record as it is written under that number, its passwords sealed anew where a former key did it.
    ///
    /// # Errors
    /// When something cannot be sealed or written as JSON.
    pub(super) fn write(mut self, name: &str, sealer: &Sealer, number: u64) -> Result<SealedWrite, StoreError> {
        let failed = |error: &dyn fmt::Display| StoreError::Failed(format!("a rotation's record: {error}"));
        for held in self.held_mut().filter(|held| sealer.is_former(&held.secret.0)) {
            // What a lost key sealed stays as it is.
            if let Ok(secret) = unseal(sealer, name, held) {
                held.secret = seal(sealer, name, held.generation, &secret).map_err(|error| failed(&error))?;
            }
        }
        let body = serde_json::to_string(&self).map_err(|error| failed(&error))?;
        let label = Label { purpose: WHOLE, names: &[name, &body], number };
        let seal = sealer.seal(label, &SecretString::default()).map_err(|error| failed(&error))?;
        let head = Head { format: FORMAT, number, seal: Envelope(seal) };
        let head = serde_json::to_string(&head).map_err(|error| failed(&error))?;
        let value = format!("{head}\n{body}").into_bytes();
        Ok(SealedWrite { purpose: PURPOSE, name: name.to_owned(), value: Some(value) })
    }

    fn held_mut(&mut self) -> impl Iterator<Item = &mut Held<Envelope>> {
        let next = match &mut self.rotation.phase {
            Phase::Staging { next, .. } => Some(next),
            _ => None,
        };
        self.rotation.current.iter_mut().chain(next)
    }
}

/// What the seal of a whole record is for.
const WHOLE: &str = "rotation-record";

/// The form of a value that this release writes. The one before had no head and no seal.
const FORMAT: u8 = 2;

/// What stands before the record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u8,
    number: u64,
    seal: Envelope,
}

/// A record as it was read, not yet believed.
pub(super) struct Found {
    /// The record.
    pub record: Record,
    /// Under which number it was written; none of an earlier release, which did not count.
    pub number: Option<u64>,
    /// Whether its seal holds, and not merely cannot be opened.
    pub sealed: bool,
}

/// Reads a value. Its seal holds, or its key is lost: then nothing in the record is certain, and none of its
/// passwords can be used, not even one that another key opens.
///
/// # Errors
/// In words, when it is no record or its seal does not hold.
pub(super) fn read(sealer: Option<&Sealer>, name: &str, value: &[u8]) -> Result<Found, String> {
    let no_record = |error: &dyn fmt::Display| format!("it is unreadable: {error}");
    let text = std::str::from_utf8(value).map_err(|error| no_record(&error))?;
    let Some((head, body)) = text.split_once('\n') else {
        let record = serde_json::from_str(text).map_err(|error| no_record(&error))?;
        return Ok(Found { record, number: None, sealed: false });
    };
    let head: Head = serde_json::from_str(head).map_err(|error| no_record(&error))?;
    if head.format != FORMAT {
        return Err(format!("it has the format {}, which this release does not know", head.format));
    }
    let label = Label { purpose: WHOLE, names: &[name, body], number: head.number };
    let opened = sealer.map(|sealer| sealer.unseal(label, &head.seal.0));
    let mut record: Record = serde_json::from_str(body).map_err(|error| no_record(&error))?;
    let sealed = matches!(opened, Some(Ok(_)));
    match opened {
        Some(Ok(_)) => {}
        Some(Err(UnsealError::UnknownKey(_))) | None => {
            let opens = |held: &Held<Envelope>| sealer.is_some_and(|sealer| sealer.knows(&held.secret.0));
            record.held_mut().filter(|held| opens(held)).for_each(|held| held.secret = Envelope(Vec::new()));
        }
        Some(Err(error)) => return Err(error.to_string()),
    }
    Ok(Found { record, number: Some(head.number), sealed })
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

#[cfg(test)]
pub(crate) mod tests {
    use jiff::Timestamp;
    use jit_core::rotation::Schedule;
    use jit_core::ttl::Ttl;
    use secrecy::ExposeSecret as _;

    use super::*;

    pub(crate) const NAME: &str = "shop\napp_user";

    pub(crate) fn record(sealer: &Sealer) -> Record {
        let ttl = |seconds| Ttl::from_seconds(seconds).unwrap();
        let schedule = Schedule::new(ttl(60), ttl(5)).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let sealed =
            |number, secret: &str| seal(sealer, NAME, Generation::from_number(number), &secret.into()).unwrap();
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
        let value = record.clone().write(NAME, &sealer, 7).unwrap().value.unwrap();
        let text = String::from_utf8(value.clone()).unwrap();
        assert!(!text.contains("password"), "{text}");
        let found = read(Some(&sealer), NAME, &value).unwrap();
        assert_eq!((found.record, found.number), (record.clone(), Some(7)));
        assert!(!format!("{record:?}").contains("password"));
    }

    #[test]
    fn passwords_are_sealed_anew_when_the_key_has_changed() {
        let old = Sealer::new(&[7; 32]).unwrap();
        let both = Sealer::new(&[8; 32]).unwrap().with_former(&[7; 32]).unwrap();
        let new = Sealer::new(&[8; 32]).unwrap();
        let written = |record: Record, sealer: &Sealer| record.write(NAME, sealer, 1).unwrap().value.unwrap();
        let rewritten = read(Some(&new), NAME, &written(record(&old), &both)).unwrap().record;
        let current = rewritten.rotation.current.as_ref().unwrap();
        assert_eq!(unseal(&new, NAME, current).unwrap().expose_secret(), "first-password");
        let Phase::Staging { next, .. } = &rewritten.rotation.phase else { panic!() };
        assert_eq!(unseal(&new, NAME, next).unwrap().expose_secret(), "second-password");
        // What the new one alone cannot open stays as it is.
        let lost = read(Some(&new), NAME, &written(record(&old), &new)).unwrap().record;
        assert!(unseal(&old, NAME, lost.rotation.current.as_ref().unwrap()).is_ok());
    }

    /// Every single byte of the value counts, and so do whose it is and under which number.
    #[test]
    fn no_changed_byte_of_a_record_goes_unseen() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let value = record(&sealer).write(NAME, &sealer, 7).unwrap().value.unwrap();
        assert!(read(Some(&sealer), NAME, &value).is_ok());
        assert!(read(Some(&sealer), "shop\nother_user", &value).is_err());
        let renumbered = String::from_utf8(value.clone()).unwrap().replace("\"number\":7", "\"number\":8");
        assert!(read(Some(&sealer), NAME, renumbered.as_bytes()).is_err());
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            // A seal that names another key is one of a key that is lost: then no password can be used.
            let Ok(found) = read(Some(&sealer), NAME, &changed) else { continue };
            let current = found.record.rotation.current.unwrap();
            assert!(unseal(&sealer, NAME, &current).is_err(), "byte {at}: {}", String::from_utf8_lossy(&changed));
        }
    }

    /// Each field by its meaning: what somebody would change to gain by it.
    #[test]
    fn a_record_with_a_changed_field_or_mixed_of_two_is_refused() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let before = record(&sealer);
        let text = |record: &Record| {
            String::from_utf8(record.clone().write(NAME, &sealer, 7).unwrap().value.unwrap()).unwrap()
        };
        let whole = text(&before);
        for (from, to) in [
            ("\"phase\":\"staging\"", "\"phase\":\"stable\""),
            ("\"generation\":1", "\"generation\":9"),
            ("shop_db", "shop_dc"),
            ("\"role\":\"app\"", "\"role\":\"ape\""),
            ("\"account\":\"app_user\"", "\"account\":\"root\""),
            ("\"connection\":\"shop\"", "\"connection\":\"shoo\""),
            ("\"asked\":false", "\"asked\":true"),
            ("2027-01-15T08:00:00Z", "2037-01-15T08:00:00Z"),
        ] {
            let changed = whole.replacen(from, to, 1);
            assert_ne!(changed, whole, "{from} stands in {whole}");
            assert!(read(Some(&sealer), NAME, changed.as_bytes()).is_err(), "{to}");
        }
        // Head of one, body of the other: both are of this account.
        let later =
            Record { rotation: before.rotation.staged(Timestamp::UNIX_EPOCH, Timestamp::MAX).unwrap(), ..before };
        let (head, _) = whole.split_once('\n').unwrap();
        let later = text(&later);
        let (_, body) = later.split_once('\n').unwrap();
        assert!(read(Some(&sealer), NAME, format!("{head}\n{body}").as_bytes()).is_err());
    }

    /// A forged record under a key that nobody has cannot bring an old, authentic password back.
    #[test]
    fn a_record_whose_key_is_lost_gives_no_password() {
        let ours = Sealer::new(&[7; 32]).unwrap();
        let strangers = Sealer::new(&[9; 32]).unwrap();
        let forged = record(&ours).write(NAME, &strangers, 99).unwrap().value.unwrap();
        let found = read(Some(&ours), NAME, &forged).unwrap();
        assert!(unseal(&ours, NAME, found.record.rotation.current.as_ref().unwrap()).is_err());
        let Phase::Staging { next, .. } = &found.record.rotation.phase else { panic!() };
        assert!(unseal(&ours, NAME, next).is_err());
    }

    #[test]
    fn a_record_of_an_earlier_release_is_read() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let value = serde_json::to_vec(&record(&sealer)).unwrap();
        let found = read(Some(&sealer), NAME, &value).unwrap();
        assert_eq!((found.record, found.number), (record_again(&value), None));
    }

    fn record_again(value: &[u8]) -> Record {
        serde_json::from_slice(value).unwrap()
    }

    #[test]
    fn a_password_of_another_account_or_number_is_refused() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let record = record(&sealer);
        let mut held = record.rotation.current.unwrap();
        assert!(unseal(&sealer, "shop\nother_user", &held).is_err());
        held.generation = Generation::from_number(2);
        assert!(unseal(&sealer, NAME, &held).is_err());
    }
}
