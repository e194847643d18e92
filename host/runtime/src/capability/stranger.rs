//! A stranger in the server's place: it refuses TLS and waits for what is said in clear. On another
//! machine it must hear nothing of a password, neither the broker's nor an account's.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::capability::ldap::{LdapConnection, LdapConnectionOptions, directory_login};
use crate::capability::sql::connection::{SqlConnectionOptions, SqlKind};
use crate::capability::sql::dialect::Dialer;
use jit_core::driver::Lane;

const PASSWORD: &str = "S3cr3t-of-the-broker";
/// Most that a test waits for a side that has gone quiet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which way the stranger refuses to encrypt.
#[derive(Clone, Copy, Debug)]
enum Stranger {
    Postgres,
    MySql,
    Ldap,
}

impl Stranger {
    /// Listens, serves one caller, and gives all that it said after it was told that there is no TLS.
    async fn hear(self, listener: &TcpListener) -> Vec<u8> {
        let (mut caller, _) = listener.accept().await.unwrap();
        match self {
            Self::Postgres => {
                let mut request = [0; 8];
                caller.read_exact(&mut request).await.unwrap();
                assert_eq!(request[4..], 80_877_103_u32.to_be_bytes(), "TLS is asked for first");
                caller.write_all(b"N").await.unwrap();
                let mut heard = some(&mut caller).await;
                // AuthenticationCleartextPassword
                let _ = caller.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await;
                heard.extend(some(&mut caller).await);
                heard
            }
            Self::MySql => {
                let _ = caller.write_all(&greeting()).await;
                some(&mut caller).await
            }
            Self::Ldap => {
                let request = some(&mut caller).await;
                if request.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()) {
                    return request;
                }
                // ExtendedResponse: protocolError
                let _ = caller.write_all(&[0x30, 0x0c, 2, 1, 1, 0x78, 7, 0x0a, 1, 2, 4, 0, 4, 0]).await;
                some(&mut caller).await
            }
        }
    }
}

/// What the caller says next; empty when it hangs up.
async fn some(caller: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4_096];
    let read = tokio::time::timeout(PATIENCE, caller.read(&mut bytes)).await.expect("it says something or hangs up");
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// A server of MySQL that cannot encrypt.
fn greeting() -> Vec<u8> {
    // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_WITH_DB; not SSL.
    let capabilities = 0x0008_8208_u32.to_le_bytes();
    let mut payload = b"\x0a8.0.36\0\x01\0\0\0saltsalt\0".to_vec();
    payload.extend_from_slice(&capabilities[..2]);
    payload.extend_from_slice(&[45, 2, 0]);
    payload.extend_from_slice(&capabilities[2..]);
    payload.push(21);
    payload.extend_from_slice(&[0; 10]);
    payload.extend_from_slice(b"saltsaltsalt\0mysql_native_password\0");
    let length = u8::try_from(payload.len()).unwrap();
    [vec![length, 0, 0, 0], payload].concat()
}

/// What the stranger hears when the broker connects to `host` (`own`), or tries an account's login.
async fn heard(stranger: Stranger, host: &str, plaintext: bool, own: bool) -> Vec<u8> {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let password = SecretString::from(PASSWORD);
    let url = |text: String| Url::parse(&text).unwrap();
    let call = async {
        match stranger {
            Stranger::Postgres | Stranger::MySql => {
                let (kind, url) = match stranger {
                    Stranger::MySql => (SqlKind::MySql, url(format!("mysql://broker@{host}:{port}"))),
                    _ => (SqlKind::Postgres, url(format!("postgres://broker@{host}:{port}/inventory"))),
                };
                let options = SqlConnectionOptions { kind, plaintext, ..SqlConnectionOptions::new("it", url, None) };
                let (dialer, _) = Dialer::new(&options).unwrap();
                if own {
                    assert!(dialer.connect(Some(&password), None, Lane::Live).await.is_err());
                } else {
                    assert!(dialer.authenticate("v-account", &password).await.is_err());
                }
            }
            Stranger::Ldap => {
                let url = url(format!("ldap://{host}:{port}"));
                if own {
                    let connection = LdapConnection::new(LdapConnectionOptions {
                        name: "it".to_owned(),
                        url,
                        plaintext,
                        ca: None,
                        bind_dn: "cn=broker".to_owned(),
                        password,
                        max_connections: 1,
                        connect_timeout: PATIENCE,
                        operation_timeout: PATIENCE,
                    });
                    assert!(connection.unwrap().ping().await.is_err());
                } else {
                    assert!(directory_login(&url, None, "cn=v-account", &password, PATIENCE).await.is_err());
                }
            }
        }
    };
    let (heard, ()) = tokio::join!(stranger.hear(&listener), call);
    heard
}

/// Linux takes 0.0.0.0 to its own listener, and it is no loopback address: as good as another machine.
#[tokio::test]
async fn a_server_that_refuses_tls_hears_nothing_on_another_machine() {
    for stranger in [Stranger::Postgres, Stranger::MySql, Stranger::Ldap] {
        for own in [true, false] {
            let heard = heard(stranger, "0.0.0.0", false, own).await;
            assert!(heard.is_empty(), "{stranger:?} heard {:?}", String::from_utf8_lossy(&heard));
        }
    }
}

/// That the stranger would hear it: on this machine, and where an operator says so.
#[tokio::test]
async fn on_this_machine_the_url_decides() {
    let says = |heard: Vec<u8>, word: &str| String::from_utf8_lossy(&heard).contains(word);
    assert!(says(heard(Stranger::Postgres, "127.0.0.1", false, true).await, PASSWORD));
    assert!(says(heard(Stranger::Postgres, "127.0.0.1", false, false).await, PASSWORD));
    assert!(says(heard(Stranger::MySql, "127.0.0.1", false, true).await, "broker"));
    assert!(says(heard(Stranger::MySql, "0.0.0.0", true, true).await, "broker"));
    assert!(says(heard(Stranger::Ldap, "127.0.0.1", true, true).await, PASSWORD));
    assert!(says(heard(Stranger::Ldap, "0.0.0.0", true, true).await, PASSWORD));
}
