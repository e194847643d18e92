//! Values as a directory stores them.

use jit_password::salted::{ssha, ssha512};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::request::Octets;
use crate::bindings::secrets::Encoding;
use crate::capability::secrets::{Home, foreign, is_ssha512};

/// The latest time that is written: the last of `jiff`, on the 30th of December 9999, in seconds since
/// the Unix epoch.
const LATEST: u64 = 253_402_207_200;

/// Seconds from 1601 to 1970.
const FILE_TIME_EPOCH: u64 = 11_644_473_600;

/// GeneralizedTime in UTC (RFC 4517, section 3.3.13).
///
/// # Errors
/// After the year 9999.
pub(crate) fn generalized_time(seconds: u64) -> Result<String, String> {
    let time = i64::try_from(seconds).ok().filter(|_| seconds <= LATEST);
    let time = time.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let time = time.ok_or_else(|| "a time is after the year 9999".to_owned())?;
    Ok(time.strftime("%Y%m%d%H%M%SZ").to_string())
}

/// Active Directory's FILETIME: 100 ns since 1601, in UTC.
///
/// # Errors
/// After the year 9999.
pub(crate) fn file_time(seconds: u64) -> Result<String, String> {
    if seconds > LATEST {
        return Err("a time is after the year 9999".to_owned());
    }
    Ok(((seconds + FILE_TIME_EPOCH) * 10_000_000).to_string())
}

/// A secret as it is placed.
///
/// # Errors
/// When the encoding is not LDAP's, or would show the password on a connection that is not encrypted.
pub(crate) fn secret(secret: &SecretString, encoding: Encoding, is_encrypted: bool) -> Result<Octets, String> {
    let bytes = secret.expose_secret();
    if bytes.is_empty() {
        return Err("an empty secret".to_owned());
    }
    match encoding {
        Encoding::Plain | Encoding::Utf16leQuoted if !is_encrypted => {
            Err("the connection is not encrypted: the password itself is not sent on it".to_owned())
        }
        Encoding::Plain => Ok(Zeroizing::new(bytes.as_bytes().to_vec())),
        Encoding::Utf16leQuoted => {
            let mut out = Zeroizing::new(Vec::with_capacity(2 * bytes.len() + 4));
            for unit in std::iter::once('"').chain(bytes.chars()).chain(std::iter::once('"')) {
                let mut units = [0; 2];
                unit.encode_utf16(&mut units).iter().for_each(|unit| out.extend_from_slice(&unit.to_le_bytes()));
            }
            Ok(out)
        }
        Encoding::SaltedSha1 => Ok(Zeroizing::new(ssha(secret).as_bytes().to_vec())),
        Encoding::SaltedDigest(form) if is_ssha512(form) => Ok(Zeroizing::new(ssha512(secret).as_bytes().to_vec())),
        other => Err(foreign(other, Home::Ldap)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_as_directories_write_them() {
        assert_eq!(generalized_time(0).unwrap(), "19700101000000Z");
        assert_eq!(generalized_time(1_800_000_000).unwrap(), "20270115080000Z");
        assert_eq!(generalized_time(LATEST).unwrap(), "99991230220000Z");
        assert_eq!(file_time(0).unwrap(), "116444736000000000");
        assert_eq!(file_time(1_800_000_000).unwrap(), "134444736000000000");
        assert!(generalized_time(LATEST + 1).is_err() && generalized_time(u64::MAX).is_err());
        assert!(file_time(LATEST + 1).is_err() && file_time(u64::MAX).is_err());
    }

    #[test]
    fn passwords_as_directories_take_them() {
        let password = SecretString::from("a\"é");
        let utf16 = secret(&password, Encoding::Utf16leQuoted, true).unwrap();
        assert_eq!(&utf16[..], [0x22, 0, 0x61, 0, 0x22, 0, 0xe9, 0, 0x22, 0]);
        assert_eq!(&secret(&password, Encoding::Plain, true).unwrap()[..], "a\"é".as_bytes());
        let twice = [(), ()].map(|()| secret(&password, Encoding::SaltedSha1, true).unwrap());
        assert_ne!(twice[0], twice[1]);
    }

    #[test]
    fn a_password_itself_does_not_go_over_an_open_connection() {
        let password = SecretString::from("pw");
        assert!(secret(&password, Encoding::Plain, false).is_err());
        assert!(secret(&password, Encoding::Utf16leQuoted, false).is_err());
        assert!(secret(&password, Encoding::SaltedSha1, false).is_ok());
        for sql in [Encoding::ScramSha256(4096), Encoding::CachingSha2, Encoding::MysqlNative] {
            assert!(secret(&password, sql, true).is_err());
        }
        assert!(secret(&SecretString::from(""), Encoding::Plain, true).is_err());
    }
}
