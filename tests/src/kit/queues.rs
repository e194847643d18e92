//! A strict imitation of RabbitMQ's management API, in this process, on loopback: what the example driver speaks to.
//! `PUT` makes or overwrites, a list has no pages and shows hashes, nothing expires. It believes nothing that it is
//! told: the administrator logs in by HTTP Basic, and a password counts only if its salted hash is the stored one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use axum::{Router, routing::any};
use axum_server::Handle;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::KitFixture;
use crate::random_name;

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of salt, as RabbitMQ has it.
const SALT: usize = 4;
/// The virtual hosts that there are.
const VHOSTS: [&str; 2] = ["/", "shop/eu"];
/// The broker's own user.
const ADMINISTRATOR: &str = "jit broker";

struct User {
    /// Salt, and SHA-256 of salt and password.
    hash: Vec<u8>,
    tags: String,
}

#[derive(Default)]
struct Held {
    users: BTreeMap<String, User>,
    /// Virtual host and user.
    permissions: BTreeMap<(String, String), Value>,
}

/// A running server. Dropped, it stops.
pub struct Queues {
    address: SocketAddr,
    password: String,
    handle: Handle<SocketAddr>,
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl Queues {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let password = random_name();
        let mut held = Held::default();
        let administrator = User { hash: salted(b"salt", &password), tags: "administrator".to_owned() };
        held.users.insert(ADMINISTRATOR.to_owned(), administrator);
        // Somebody else's, which no removal may touch.
        held.users.insert("guest".to_owned(), User { hash: salted(b"salt", "guest"), tags: String::new() });
        let router = Router::new().fallback(any(answer)).with_state(Arc::new(Mutex::new(held)));
        let handle = Handle::new();
        let serving = axum_server::from_tcp(listener)?.handle(handle.clone()).serve(router.into_make_service());
        tokio::spawn(serving);
        Ok(Self { address, password, handle })
    }

    /// A fixture for it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fixture(&self) -> Result<KitFixture> {
        let fixture = KitFixture::new()?;
        fixture.secret("password", &self.password)?;
        fixture.secret("guest", "guest")?;
        let address = self.address;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "http"
url = "http://{address}/api"
secrets = {{ password = {{ file = "password" }} }}
[targets.queues]
connection = "backend"
default_role = "writer"
config = {{ user = "{ADMINISTRATOR}" }}
roles.writer = {{ vhost = "shop/eu", write = "^orders$", management = true }}
roles.nowhere = {{ vhost = "shop/us" }}
[conformance]
refused_roles = ["nowhere"]
[conformance.login]
kind = "http"
url = "http://{address}/api"
request = {{ path = "/whoami", basic = true }}
refused_with = [401]
allowed = [{{ path = "/vhosts", basic = true }}]
refused = [{{ path = "/users", basic = true, status = [401] }}]
"#
        ))?;
        Ok(fixture)
    }
}

/// As RabbitMQ stores a password.
fn salted(salt: &[u8], password: &str) -> Vec<u8> {
    let sum = digest(&SHA256, &[salt, password.as_bytes()].concat());
    [salt, sum.as_ref()].concat()
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(status: u16, body: &Value) -> Response {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn problem(status: u16, reason: &str) -> Response {
    reply(status, &json!({ "error": "bad_request", "reason": reason }))
}

/// The tags of the user that the header proves.
fn tags_of(held: &Held, authorization: &str) -> Option<(String, String)> {
    let decoded = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    let (name, password) = pair.split_once(':')?;
    let user = held.users.get(name)?;
    let salt = user.hash.get(..SALT)?;
    (!password.is_empty() && salted(salt, password) == user.hash).then(|| (name.to_owned(), user.tags.clone()))
}

async fn answer(State(held): State<Arc<Mutex<Held>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else { return problem(413, "too long") };
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut held = lock(&held);
    let Some((caller, tags)) = tags_of(&held, authorization).filter(|(_, tags)| !tags.is_empty()) else {
        return reply(401, &json!({ "error": "not_authorized", "reason": "Login failed" }));
    };
    let Some(path) = head.uri.path().strip_prefix("/api/") else { return problem(404, "no such path") };
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (&head.method, &segments[..]) {
        (&Method::GET, ["whoami"]) => return reply(200, &json!({ "name": caller, "tags": tags })),
        (&Method::GET, ["vhosts"]) => return reply(200, &json!(VHOSTS.map(|name| json!({ "name": name })))),
        (&Method::GET, ["vhosts", vhost]) => {
            return reply(if VHOSTS.contains(vhost) { 200 } else { 404 }, &json!({ "name": vhost }));
        }
        _ if tags != "administrator" => {
            return reply(401, &json!({ "error": "not_authorized", "reason": "Not administrator user" }));
        }
        _ => {}
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (&head.method, &segments[..]) {
        (&Method::GET, ["users"]) => {
            let row = |(name, user): (&String, &User)| json!({ "name": name, "password_hash": STANDARD.encode(&user.hash), "tags": user.tags });
            // Without an order, as far as a caller can rely on one.
            reply(200, &json!(held.users.iter().rev().map(row).collect::<Vec<_>>()))
        }
        (&Method::GET, ["users", name]) => match held.users.get(*name) {
            Some(user) => reply(200, &json!({ "name": name, "password_hash": STANDARD.encode(&user.hash) })),
            None => reply(404, &json!({ "error": "Object Not Found", "reason": "Not Found" })),
        },
        (&Method::PUT, ["users", name]) => put_user(&mut held, name, &body),
        (&Method::DELETE, ["users", name]) => {
            held.permissions.retain(|(_, user), _| user != name);
            match held.users.remove(*name) {
                Some(_) => reply(204, &Value::Null),
                None => reply(404, &json!({ "error": "Object Not Found", "reason": "Not Found" })),
            }
        }
        (&Method::PUT, ["permissions", vhost, name]) => {
            if !VHOSTS.contains(vhost) || !held.users.contains_key(*name) {
                return problem(400, "vhost_or_user_not_found");
            }
            if !["configure", "write", "read"].iter().all(|right| body[right].is_string()) {
                return problem(400, "configure, write and read must be given");
            }
            let before = held.permissions.insert(((*vhost).to_owned(), (*name).to_owned()), body);
            reply(if before.is_some() { 204 } else { 201 }, &Value::Null)
        }
        (&Method::DELETE, ["connections", "username", _]) => reply(204, &Value::Null),
        _ => problem(405, "no such path or method"),
    }
}

fn put_user(held: &mut Held, name: &str, body: &Value) -> Response {
    let hash = body["password_hash"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let hash = hash.filter(|hash| hash.len() == SALT + SHA256.output_len());
    let (Some(hash), Some(tags)) = (hash, body["tags"].as_str()) else {
        return problem(400, "password_hash and tags must be given");
    };
    if body["hashing_algorithm"] != "rabbit_password_hashing_sha256" || !["", "management"].contains(&tags) {
        return problem(400, "another algorithm, or a tag that accounts do not have");
    }
    let user = User { hash, tags: tags.to_owned() };
    let before = held.users.insert(name.to_owned(), user);
    reply(if before.is_some() { 204 } else { 201 }, &Value::Null)
}
