//! A running dev issuer, asked over HTTP, and its tokens verified by the broker.

#![allow(clippy::unwrap_used)] // a test stops where it fails

use jit_identity::{Evidence, Identity, IdentityOptions, IssuerUrl, JwtIssuer, JwtIssuerConfig, Rejected, Unverified};
use reqwest::{Client, RequestBuilder};
use tokio_util::sync::CancellationToken;

use super::*;

struct Running {
    issuer: DevIssuer,
    client: Client,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DevIssuerError>>,
}

async fn start() -> Running {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (issuer, address) = DevIssuer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert_eq!(issuer.issuer_url(), format!("http://{address}"));
    let stop = CancellationToken::new();
    let task = tokio::spawn(issuer.clone().serve(stop.clone().cancelled_owned()));
    let client = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    Running { issuer, client, stop, task }
}

impl Running {
    fn identity(&self) -> Identity {
        let issuer = IssuerUrl::parse(self.issuer.issuer_url()).unwrap();
        let workload = "{kubernetes.io.serviceaccount.name}".parse().unwrap();
        let mut entry = JwtIssuerConfig::new("dev".to_owned(), issuer, vec!["jit-broker".to_owned()], workload);
        let attributes = [
            ("k8s_namespace", "kubernetes.io.namespace"),
            ("k8s_pod", "kubernetes.io.pod.name"),
            ("env", "env"),
            ("team", "team"),
        ];
        entry.attributes = attributes.map(|(name, path)| (name.to_owned(), path.parse().unwrap())).into();
        let options = IdentityOptions { allow_http_loopback: true, ..Default::default() };
        let issuer = JwtIssuer::new(entry, &options).unwrap();
        Identity::new(vec![Arc::new(issuer)], &options).unwrap()
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.issuer.issuer_url()))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.issuer.issuer_url()))
    }
}

async fn text(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn bearer(token: &str) -> Vec<Evidence> {
    vec![Evidence::Bearer(Unverified::from_header(&format!("Bearer {}", token.trim_end())).unwrap())]
}

#[tokio::test]
async fn its_tokens_are_verified_like_any_issuers() {
    let dev = start().await;
    let identity = dev.identity();
    let (status, token) = text(dev.get("/token?workload=payment-service")).await;
    assert_eq!(status, 200);
    let verified = identity.verify(bearer(&token)).await.unwrap();
    assert_eq!(verified.principal.to_string(), "dev/payment-service");
    assert_eq!(verified.principal.subject, "system:serviceaccount:default:payment-service");
    assert_eq!(verified.attributes["k8s_pod"], "payment-service-dev");
    assert!(!verified.attributes.contains_key("env"));

    let body = r#"{"workload": "a", "namespace": "shop", "pod": "a-1", "env": "prod", "ttl": "1m", "claims": {"team": "blue"}}"#;
    let request = dev.post("/token").header("content-type", "application/json").body(body);
    let (status, reply) = text(request).await;
    assert_eq!(status, 200, "{reply}");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let verified = identity.verify(bearer(reply["token"].as_str().unwrap())).await.unwrap();
    let seen: Vec<_> = verified.attributes.values().map(String::as_str).collect();
    assert_eq!(seen, ["prod", "shop", "a-1", "blue"]);
    let query = "/token?workload=a&namespace=shop&pod=a-1&env=prod&claim.team=blue";
    let (_, token) = text(dev.get(query)).await;
    assert_eq!(identity.verify(bearer(&token)).await.unwrap().attributes, verified.attributes);

    dev.stop.cancel();
    dev.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn rotation_keeps_or_drops_the_old_key() {
    let dev = start().await;
    let identity = dev.identity();
    let token = || {
        let token = dev.issuer.mint(&TokenRequest::new("payment")).unwrap();
        token.expose_secret().to_owned()
    };
    let first = token();
    identity.verify(bearer(&first)).await.unwrap();
    assert_eq!(text(dev.post("/rotate")).await.0, 200);
    let second = token();
    identity.verify(bearer(&second)).await.unwrap();
    identity.verify(bearer(&first)).await.unwrap();
    assert_eq!(text(dev.post("/rotate?drop=1")).await.0, 200);
    identity.verify(bearer(&token())).await.unwrap();
    for old in [first, second] {
        let reason = identity.verify(bearer(&old)).await.unwrap_err();
        assert!(matches!(reason, Rejected::UnknownKey(_)), "{reason}");
    }
}

#[tokio::test]
async fn bad_requests_are_told_why() {
    let dev = start().await;
    for (query, told) in [
        ("", "workload"),
        ("?workload=", "`workload`"),
        ("?workload=a&ttl=2d", "`ttl`"),
        ("?workload=a&ttl=-1", "must be a duration such as"),
        ("?workload=a&admin=true", "admin"),
        ("?workload=a&workload=b", "`workload` is given twice"),
        ("?workload=a&claims=team", "claim.NAME=TEXT"),
        ("?workload=a&claim.=x", "`claim.`"),
        ("?workload=a&claim.iss=x", "`iss`"),
    ] {
        let (status, reply) = text(dev.get(&format!("/token{query}"))).await;
        assert_eq!(status, 400, "{query}");
        assert!(reply.contains(told), "{query}: {reply}");
    }
    for (body, told) in [
        (r#"{"workload": "a", "claims": {"iss": "x"}}"#.to_owned(), "`iss`"),
        (r#"{"workload": "#.to_owned(), "JSON"),
        (format!("{{\"workload\": \"{}\"}}", "a".repeat(MAX_BODY)), "length limit"),
    ] {
        let request = dev.post("/token").header("content-type", "application/json").body(body);
        let (status, reply) = text(request).await;
        assert_eq!(status, 400);
        assert!(reply.contains(told), "{told}: {reply}");
    }
}

#[tokio::test]
async fn it_is_not_for_the_network_nor_for_web_pages() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refused = DevIssuer::bind(address.parse().unwrap()).await;
        assert!(matches!(refused, Err(DevIssuerError::NotLoopback(_))), "{address}");
    }
    let dev = start().await;
    let token = || dev.get("/token?workload=a");
    assert_eq!(text(token()).await.0, 200);
    assert_eq!(text(token().header("origin", "https://evil.example")).await.0, 400);
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"] {
        assert_eq!(text(token().header("host", host)).await.0, 400, "{host}");
    }
    assert_eq!(text(token().header("host", "localhost:1234")).await.0, 200);
    let again = dev.issuer.clone().serve(std::future::ready(())).await;
    assert!(matches!(again, Err(DevIssuerError::AlreadyServing)));
}
