//! Against a gRPC server on a Unix socket, which checks what it is asked as an agent does.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use h2::server;
use http::Response;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use tokio::net::UnixListener;

use super::*;

/// What the server does.
#[derive(Clone)]
enum Act {
    Answer(Vec<u8>),
    /// In the trailers.
    Status(&'static str),
    /// In the head, without a body.
    HeadOnly(&'static str),
    HangUp,
    Endless,
}

fn length_delimited(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    varint(value.len(), &mut bytes);
    bytes.extend_from_slice(value);
    bytes
}

/// Two identities, each with a hint, in a message with a field of the future.
fn svids(tokens: &[&str]) -> Vec<u8> {
    let mut message = vec![15 << 3, 0x96, 0x01];
    for token in tokens {
        let svid = [
            length_delimited(1, b"spiffe://example.org/app"),
            length_delimited(2, token.as_bytes()),
            length_delimited(3, b"internal"),
        ];
        message.extend(length_delimited(1, &svid.concat()));
    }
    message
}

/// A Workload API for one call.
fn serve(act: Act) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if matches!(act, Act::HangUp) {
            return;
        }
        let mut connection = server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let act = act.clone();
            tokio::spawn(async move {
                assert_eq!(request.uri().path(), METHOD);
                assert_eq!(request.headers()["workload.spiffe.io"], "true");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let mut body = request.into_body();
                let mut asked = Vec::new();
                while let Some(chunk) = body.data().await {
                    asked.extend_from_slice(&chunk.unwrap());
                }
                assert_eq!(&asked[5..], length_delimited(1, b"jit-broker"));
                let head = Response::builder().header("content-type", "application/grpc");
                let trailers = |code: &'static str| {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static(code));
                    trailers.insert("grpc-message", HeaderValue::from_static("said so"));
                    trailers
                };
                match act {
                    Act::HeadOnly(code) => {
                        let head = head.header("grpc-status", code).body(()).unwrap();
                        respond.send_response(head, true).unwrap();
                    }
                    Act::Status(code) => {
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        stream.send_trailers(trailers(code)).unwrap();
                    }
                    Act::Answer(message) => {
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        // In two pieces, as a network may.
                        let whole = framed(&message);
                        let middle = whole.len() / 2;
                        stream.send_data(whole.slice(..middle), false).unwrap();
                        stream.send_data(whole.slice(middle..), false).unwrap();
                        stream.send_trailers(trailers("0")).unwrap();
                    }
                    Act::Endless => {
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        while stream.send_data(Bytes::from_static(&[0; 16_384]), false).is_ok() {
                            tokio::task::yield_now().await;
                        }
                    }
                    Act::HangUp => {}
                }
            });
        }
    });
    (folder, socket)
}

async fn told(act: Act) -> Result<String, String> {
    let (_folder, socket) = serve(act);
    let token = token(&socket, "jit-broker").await;
    token.map(|token| token.expose_secret().to_owned()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_first_identitys_token_is_taken() {
    assert_eq!(told(Act::Answer(svids(&["first.a.b", "second.c.d"]))).await, Ok("first.a.b".to_owned()));
}

#[tokio::test]
async fn what_the_agent_says_instead_is_told() {
    for (act, expected) in [
        (Act::HeadOnly("7"), "is it registered?"),
        (Act::Status("7"), "is it registered?"),
        (Act::Status("14"), "gRPC status 14: said so"),
        (Act::Status("0"), "no whole message"),
        (Act::Answer(svids(&[])), "no SVID"),
        (Act::Answer(svids(&[""])), "is empty"),
        (Act::Answer(svids(&["two words"])), "one word of ASCII"),
        (Act::Answer(vec![0xff; 40]), "its answer"),
        (Act::Endless, "longer than"),
    ] {
        let error = told(act).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(told(Act::HangUp).await.is_err());
    let nobody = token(Path::new("/no/such.sock"), "jit-broker").await.unwrap_err();
    assert!(nobody.to_string().contains("cannot connect") && nobody.is_transient());
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = first_svid(&bytes);
        let _ = message(&bytes);
    }

    #[test]
    fn numbers_are_read_as_they_are_written(value in any::<u32>()) {
        let mut bytes = Vec::new();
        varint(value as usize, &mut bytes);
        let mut rest = &bytes[..];
        prop_assert_eq!(read_varint(&mut rest), Some(u64::from(value)));
        prop_assert!(rest.is_empty());
    }
}
