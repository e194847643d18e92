//! A strict little API of accounts, in this process, on loopback: what an HTTP driver of somebody else's would
//! speak to. Administration takes a bearer token, accounts log in by HTTP Basic. It holds accounts to what it
//! was told: another password, an expired account and an empty password are refused.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use axum::{Router, routing::any};
use axum_server::Handle;
use base64::Engine as _;
use serde_json::{Value, json};
use url::Url;

use super::KitFixture;
use crate::random_name;

/// The longest body that is read, in bytes.
const MOST_BODY: usize = 64 * 1024;
/// Names of one page.
const PAGE: usize = 5;
/// The groups that there are.
const GROUPS: [&str; 2] = ["readers", "administrators"];

struct User {
    group: String,
    password: String,
    expires_at: i64,
    hidden: bool,
    /// Its owner has changed its password.
    changed: bool,
}

struct Server {
    token: String,
    users: Mutex<BTreeMap<String, User>>,
}

/// A running server. Dropped, it stops.
pub struct People {
    address: SocketAddr,
    token: String,
    handle: Handle<SocketAddr>,
}

impl Drop for People {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl People {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let token = random_name();
        let server = Arc::new(Server { token: token.clone(), users: Mutex::default() });
        let router = Router::new().fallback(any(answer)).with_state(server);
        let handle = Handle::new();
        let serving = axum_server::from_tcp(listener)?.handle(handle.clone()).serve(router.into_make_service());
        tokio::spawn(serving);
        Ok(Self { address, token, handle })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The token of who administers it.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A fixture for it. `mistake` is the driver's; `login` is the section `[conformance.login]`, if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fixture(&self, mistake: &str, login: &str) -> Result<KitFixture> {
        let fixture = KitFixture::new()?;
        fixture.secret("token", &self.token)?;
        let address = self.address;
        let login = login.replace("{address}", &address.to_string());
        ensure!(!login.contains("{address}"), "the address is filled in");
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "http"
url = "http://{address}"
secrets = {{ token = {{ file = "token" }} }}
[targets.people]
connection = "backend"
default_role = "reader"
config = {{ mistake = "{mistake}" }}
roles.reader = {{ group = "readers" }}
roles.missing = {{ group = "" }}
[conformance]
refused_roles = ["missing"]
{login}
"#
        ))?;
        Ok(fixture)
    }
}

/// How accounts of it log in, by requests.
pub const BY_REQUESTS: &str = r#"
[conformance.login]
kind = "http"
url = "http://{address}"
request = { path = "/me", basic = true }
allowed = [{ path = "/reports", basic = true }]
refused = [{ path = "/admin", basic = true }]
change_password = { method = "PUT", path = "/me", basic = true, json = { password = "{new}" } }
"#;

fn lock(server: &Server) -> MutexGuard<'_, BTreeMap<String, User>> {
    server.users.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else { return reply(413, &json!({})) };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let path = head.uri.path().to_owned();
    if !path.starts_with("/users") {
        return own(&server, (&head.method, &path), authorization, &body);
    }
    if authorization != format!("Bearer {}", server.token) {
        return reply(401, &json!({}));
    }
    let queries = Url::parse(&format!("http://people{}", head.uri)).map(|url| {
        url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect::<BTreeMap<_, _>>()
    });
    let queries = queries.unwrap_or_default();
    let mut users = lock(&server);
    let name = path.strip_prefix("/users/").unwrap_or_default();
    match (&head.method, name) {
        (&Method::GET, "") => page(&users, &queries),
        (&Method::POST, "") => create(&mut users, &body),
        (_, "") => reply(405, &json!({})),
        (&Method::GET, name) => match users.get(name).filter(|user| !user.hidden) {
            Some(user) => reply(200, &json!({"name": name, "expires_at": user.expires_at})),
            None => reply(404, &json!({})),
        },
        // A precondition that only an account that nobody changed meets.
        (&Method::DELETE, name)
            if queries.contains_key("unchanged") && users.get(name).is_some_and(|it| it.changed) =>
        {
            reply(412, &json!({}))
        }
        (&Method::DELETE, name) => reply(if users.remove(name).is_some() { 200 } else { 404 }, &json!({})),
        (&Method::PATCH, name) => {
            let Some(user) = users.get_mut(name) else { return reply(404, &json!({})) };
            user.expires_at = body["expires_at"].as_i64().unwrap_or(user.expires_at);
            user.hidden = body["hidden"].as_bool().unwrap_or(user.hidden);
            reply(200, &json!({}))
        }
        _ => reply(405, &json!({})),
    }
}

fn create(users: &mut BTreeMap<String, User>, body: &Value) -> Response {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let (name, group, expires_at) = (text("name"), text("group"), body["expires_at"].as_i64());
    let (Some(expires_at), true, false) = (expires_at, GROUPS.contains(&group.as_str()), name.is_empty()) else {
        return reply(400, &json!({}));
    };
    if users.contains_key(&name) {
        return reply(409, &json!({}));
    }
    users.insert(name, User { group, password: text("password"), expires_at, hidden: false, changed: false });
    reply(201, &json!({}))
}

fn page(users: &BTreeMap<String, User>, queries: &BTreeMap<String, String>) -> Response {
    let query = |key: &str| queries.get(key).map(String::as_str).unwrap_or_default();
    let (prefix, after) = (query("prefix"), query("after"));
    let shown = users.iter().filter(|(name, user)| !user.hidden && name.starts_with(prefix) && name.as_str() > after);
    let names: Vec<&String> = shown.map(|(name, _)| name).take(PAGE + 1).collect();
    let more = names.len() > PAGE;
    let names = &names[..names.len().min(PAGE)];
    reply(200, &json!({"names": names, "next": if more { names.last() } else { None }}))
}

/// What accounts ask for.
fn own(server: &Server, (method, path): (&Method, &str), authorization: &str, body: &Value) -> Response {
    let given = authorization.strip_prefix("Basic ").and_then(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (name, password) = text.split_once(':')?;
        Some((name.to_owned(), password.to_owned()))
    });
    let now = jiff::Timestamp::now().as_second();
    let mut users = lock(server);
    let user = given.and_then(|(name, password)| {
        let known = users.get_mut(&name);
        known.filter(|user| !password.is_empty() && user.password == password && now < user.expires_at)
    });
    match (user, path) {
        (None, _) => reply(401, &json!({})),
        (Some(user), "/me") if method == Method::PUT => {
            user.password = body["password"].as_str().unwrap_or_default().to_owned();
            user.changed = true;
            reply(200, &json!({}))
        }
        (Some(user), "/admin") if user.group != "administrators" => reply(403, &json!({})),
        (Some(_), "/me" | "/reports" | "/admin") => reply(200, &json!({})),
        _ => reply(404, &json!({})),
    }
}
