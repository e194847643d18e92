//! Against known vectors, and through the whole of a request.
#![allow(clippy::unwrap_used, reason = "tests")]

use url::Url;
use wasmtime::component::Resource;

use super::super::case::Case;
use super::super::compose::{Composed, compose};
use super::*;
use crate::bindings::http::{Field, JsonBody};

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn of(text: &str, encoding: Encoding) -> String {
    written(&secret(text), encoding).unwrap().expose_secret().to_owned()
}

fn refused(text: &str, encoding: Encoding) -> String {
    written(&secret(text), encoding).unwrap_err()
}

#[test]
fn basic_is_that_of_the_rfc() {
    // RFC 7617, sections 2 and 2.1.
    let example = basic("Aladdin", &secret("open sesame")).unwrap();
    assert_eq!(example.expose_secret(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let example = basic("test", &secret("123\u{a3}")).unwrap();
    assert_eq!(example.expose_secret(), "Basic dGVzdDoxMjPCow==");
    assert_eq!(basic("", &secret("a:b")).unwrap().expose_secret(), "Basic OmE6Yg==");
    for (user, password) in [("a:b", "pw"), ("a\n", "pw"), ("a", "canary\r\nx: y"), ("a", "canary\0")] {
        let reason = basic(user, &secret(password)).unwrap_err();
        assert!(!reason.contains("canary"), "{reason}");
    }
}

#[test]
fn notations_and_digests_are_the_published_ones() {
    // RFC 4648, section 10.
    assert_eq!(of("foobar", Encoding::Written(Notation::Base64)), "Zm9vYmFy");
    assert_eq!(of("foob", Encoding::Written(Notation::Base64)), "Zm9vYg==");
    assert_eq!(of("foob", Encoding::Written(Notation::Base64url)), "Zm9vYg");
    assert_eq!(of("foobar", Encoding::Written(Notation::Hex)), "666f6f626172");
    assert_eq!(of("foobar", Encoding::Plain), "foobar");
    // FIPS 180-4, "abc".
    for (digest, expected) in [
        (Digest::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Digest::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Digest::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Digest::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
             454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ] {
        assert_eq!(of("abc", Encoding::Digest((digest, Notation::Hex))), expected);
    }
    assert_eq!(
        of("abc", Encoding::Digest((Digest::Sha256, Notation::Base64))),
        "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    );
}

#[test]
fn salted_digests_are_those_that_rabbitmq_and_directories_store() {
    let form =
        |digest, salt_place, salt_bytes| SaltedDigest { digest, salt_place, salt_bytes, notation: Notation::Base64 };
    // The example of RabbitMQ's documentation, "Computing Password Hash": test12 with the salt 908D C60A.
    let rabbitmq = form(Digest::Sha256, SaltPlace::Before, 4);
    let hash = salted(b"test12", rabbitmq, &[0x90, 0x8d, 0xc6, 0x0a]).unwrap();
    assert_eq!(hash.expose_secret(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    // sha1sum of "secretsaltsalt", then the salt.
    let hash = salted(b"secret", form(Digest::Sha1, SaltPlace::After, 8), b"saltsalt").unwrap();
    let decoded = STANDARD.decode(hash.expose_secret()).unwrap();
    assert_eq!(hex::encode(&decoded[..20]), "d46f74e272e44e41968ca36742e07f8695970bf8");
    assert_eq!(&decoded[20..], b"saltsalt");
    // The salt is random, and has the length that was asked for.
    let two = [(), ()].map(|()| of("secret", Encoding::SaltedDigest(rabbitmq)));
    assert_ne!(two[0], two[1]);
    assert_eq!(STANDARD.decode(&two[0]).unwrap().len(), 4 + 32);
    for wrong in [0, 3, 65] {
        let form = form(Digest::Sha256, SaltPlace::Before, wrong);
        assert_eq!(refused("secret", Encoding::SaltedDigest(form)), "a salt has 4 to 64 bytes");
    }
}

#[test]
fn stretched_hashes_are_the_published_ones() {
    // Openwall's test vector for bcrypt: its salt is "CCCCCCCCCCCCCCCCCCCCC." in bcrypt's own base64.
    let salt = [0x10, 0x41, 0x04, 0x10, 0x41, 0x04, 0x10, 0x41, 0x04, 0x10, 0x41, 0x04, 0x10, 0x41, 0x04, 0x10];
    let form = |prefix, cost| Bcrypt { prefix, cost };
    let hash = bcrypt(b"U*U", form(BcryptPrefix::TwoA, 5), salt).unwrap();
    assert_eq!(hash.expose_secret(), "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
    assert!(of("secret", Encoding::Bcrypt(form(BcryptPrefix::TwoB, 4))).starts_with("$2b$04$"));
    assert!(of("secret", Encoding::Bcrypt(form(BcryptPrefix::TwoY, 4))).starts_with("$2y$04$"));
    let stored = of("secret", Encoding::Bcrypt(form(BcryptPrefix::TwoB, 4)));
    assert!(bcrypt::verify("secret", &stored).unwrap() && !bcrypt::verify("other", &stored).unwrap());
    for (text, cost) in [("secret", 3), ("secret", 13), (&"x".repeat(73), 4), ("a\0b", 4)] {
        assert!(refused(text, Encoding::Bcrypt(form(BcryptPrefix::TwoA, cost))).contains("bcrypt"), "{cost}");
    }

    // RFC 7914, section 11, has PBKDF2-HMAC-SHA-256 of "passwd" with "salt" and one iteration: the first 32 of its
    // 64 bytes.
    let hash = pbkdf2(b"passwd", Pbkdf2 { digest: Digest::Sha256, iterations: 1 }, b"salt").unwrap();
    let key = STANDARD_NO_PAD.decode(hash.expose_secret().rsplit('$').next().unwrap()).unwrap();
    assert_eq!(hex::encode(key), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    assert!(hash.expose_secret().starts_with("$pbkdf2-sha256$i=1,l=32$c2FsdA$"), "{}", hash.expose_secret());
    for wrong in [(Digest::Sha1, 1), (Digest::Sha256, 0), (Digest::Sha256, 1_000_001)] {
        assert!(refused("a", Encoding::Pbkdf2(Pbkdf2 { digest: wrong.0, iterations: wrong.1 })).contains("pbkdf2"));
    }
}

#[test]
fn what_belongs_to_other_backends_and_empty_secrets_are_refused() {
    for encoding in [Encoding::ScramSha256(4_096), Encoding::CachingSha2, Encoding::MysqlNative] {
        assert_eq!(refused("pw", encoding), "an encoding of SQL, not of HTTP");
    }
    for encoding in [Encoding::Utf16leQuoted, Encoding::SaltedSha1] {
        assert_eq!(refused("pw", encoding), "an encoding of LDAP, not of HTTP");
    }
    assert_eq!(refused("", Encoding::Written(Notation::Hex)), "the secret is empty");
}

impl Case {
    fn encoded(&mut self, text: &str, encoding: Encoding) -> Part {
        Part::Encoded((self.secret(text), encoding))
    }

    async fn encode_and_compose(&self) -> Result<Composed, String> {
        let words = |unfit| match unfit {
            Unfit::Denied(reason) => reason,
            Unfit::Handle(error) => error.to_string(),
        };
        let encoded = encode(wanted(&self.request, &self.handles).map_err(words)?).await?;
        let base = Url::parse("https://api.example").unwrap();
        compose(&base, &self.request, &self.handles, encoded).map_err(words)
    }
}

fn field(name: &str, value: Vec<Part>) -> Field {
    Field { name: name.to_owned(), value }
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

#[tokio::test]
async fn each_part_gets_its_own_encoding_wherever_it_stands() {
    let mut case = Case::new();
    let admin = case.secret("admin-canary");
    let one = case.encoded("one-canary", Encoding::Written(Notation::Hex));
    let two = case.encoded("two-canary", Encoding::Written(Notation::Base64));
    let three = case.encoded("three-canary", Encoding::Digest((Digest::Sha256, Notation::Hex)));
    let plain = case.secret("plain-canary");
    case.request.headers = vec![
        field("x-one", vec![text("<"), one, text(">")]),
        field("authorization", vec![Part::Basic(("admin".to_owned(), admin))]),
    ];
    let secrets =
        vec![field("/b", vec![text("{B}"), two]), field("/c", vec![Part::Secret(plain)]), field("/a/0", vec![three])];
    case.request.body = Body::Json(JsonBody { text: r#"{"a":[""],"b":"","c":""}"#.to_owned(), secrets });
    let composed = case.encode_and_compose().await.unwrap();
    let headers = composed.request.headers();
    assert_eq!(headers["x-one"], format!("<{}>", hex::encode("one-canary")));
    assert_eq!(headers["authorization"], format!("Basic {}", STANDARD.encode("admin:admin-canary")));
    assert!(headers["authorization"].is_sensitive() && headers["x-one"].is_sensitive());
    let sent: serde_json::Value = serde_json::from_slice(composed.request.body().unwrap().as_bytes().unwrap()).unwrap();
    let sum = hex::encode(digest::digest(&digest::SHA256, b"three-canary"));
    let two = STANDARD.encode("two-canary");
    assert_eq!(sent, serde_json::json!({ "a": [sum], "b": format!("{{B}}{two}"), "c": "plain-canary" }));

    // What the backend quotes back is blotted: the secrets, and what was made of them.
    let quoted = format!(
        "admin-canary Basic {} {sum} {two} one-canary {} plain-canary",
        STANDARD.encode("admin:admin-canary"),
        hex::encode_upper("one-canary")
    );
    let shown = super::super::blot::blot(&quoted, &composed.placed);
    assert!(!shown.contains("canary") && !shown.contains(&sum) && !shown.contains(&two), "{shown}");
    assert_eq!(shown.split(' ').collect::<Vec<_>>(), ["***"; 7], "{shown}");
    assert!(!format!("{composed:?}").contains("canary"));
}

#[tokio::test]
async fn texts_and_forms_take_encodings_too() {
    let mut case = Case::new();
    let part = case.encoded("foobar", Encoding::Written(Notation::Base64));
    case.request.body = Body::Form(vec![field("h", vec![part]), field("u", vec![text("a b")])]);
    let composed = case.encode_and_compose().await.unwrap();
    assert_eq!(composed.request.body().unwrap().as_bytes().unwrap(), b"h=Zm9vYmFy&u=a+b");
    let part = case.encoded("foobar", Encoding::Written(Notation::Hex));
    case.request.body = Body::Text(vec![text("h="), part]);
    let composed = case.encode_and_compose().await.unwrap();
    assert_eq!(composed.request.body().unwrap().as_bytes().unwrap(), b"h=666f6f626172");
}

#[tokio::test]
async fn what_a_request_may_cost_is_bounded() {
    let bcrypt = Encoding::Bcrypt(Bcrypt { prefix: BcryptPrefix::TwoB, cost: 4 });
    let mut case = Case::new();
    let parts = (0..3).map(|_| case.encoded("canary", bcrypt)).collect();
    case.request.body = Body::Text(parts);
    let denied = case.encode_and_compose().await.unwrap_err();
    assert_eq!(denied, "more than 2 of bcrypt and pbkdf2 in one request");
    let parts = (0..17).map(|_| case.encoded("canary", Encoding::Written(Notation::Hex))).collect();
    case.request.body = Body::Text(parts);
    assert_eq!(case.encode_and_compose().await.unwrap_err(), "more than 16 encoded secrets in one request");
    let part = case.encoded(&"canary".repeat(20), bcrypt);
    case.request.body = Body::Text(vec![part]);
    let denied = case.encode_and_compose().await.unwrap_err();
    assert!(denied.contains("72 bytes") && !denied.contains("canary"), "{denied}");
    // A handle that is not the call's is a fault of the guest.
    case.request.body = Body::Text(vec![Part::Basic(("a".to_owned(), Resource::new_borrow(77)))]);
    assert!(matches!(wanted(&case.request, &case.handles), Err(Unfit::Handle(_))));
}
