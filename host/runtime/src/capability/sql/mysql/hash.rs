//! What MySQL and MariaDB store of a password, so that one is set without being sent.

use jit_password::mysql::{caching_sha2, native};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::bindings::secrets::Encoding;
use crate::capability::secrets::{Home, foreign};

/// Longest password in bytes that `caching_sha2_password` takes.
const MAX_PASSWORD: usize = 256;

/// A secret as it is placed into a statement.
///
/// # Errors
/// Why it cannot, in words for the driver's author.
pub(crate) async fn encode(
    secret: SecretString,
    encoding: Encoding,
    sets_password: bool,
) -> Result<Zeroizing<String>, String> {
    let length = secret.expose_secret().len();
    if !(1..=MAX_PASSWORD).contains(&length) {
        return Err(format!("a password of MySQL has 1 to {MAX_PASSWORD} bytes"));
    }
    match encoding {
        // Anywhere else a statement could keep it and another show it (BLIND-PLUGIN).
        Encoding::Plain if !sets_password => {
            Err("a plain password goes only after IDENTIFIED BY of CREATE USER or ALTER USER".to_owned())
        }
        Encoding::Plain => Ok(Zeroizing::new(secret.expose_secret().to_owned())),
        Encoding::CachingSha2 => {
            // A millisecond or two.
            let computed = tokio::task::spawn_blocking(move || caching_sha2(&secret)).await;
            computed.map_err(|_| "the hash was not computed".to_owned())
        }
        Encoding::MysqlNative => Ok(native(&secret)),
        other => Err(foreign(other, Home::Mysql)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_plain_password_is_placed_only_where_it_is_hashed() {
        let secret = || SecretString::from("pw");
        assert!(encode(secret(), Encoding::Plain, false).await.is_err());
        assert_eq!(*encode(secret(), Encoding::Plain, true).await.unwrap(), "pw");
        assert!(encode(secret(), Encoding::ScramSha256(1), true).await.is_err());
        assert!(encode(SecretString::from(""), Encoding::MysqlNative, true).await.is_err());
        assert!(encode(SecretString::from("x".repeat(257)), Encoding::Plain, true).await.is_err());
    }
}
