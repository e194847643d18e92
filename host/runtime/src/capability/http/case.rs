//! A request and the secrets that it names, for unit tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use secrecy::SecretString;
use wasmtime::component::{Resource, ResourceTable};

use crate::bindings::http::{Body, Method, Request};
use crate::capability::secrets::GuestSecret;

/// A request, and the handles that it names.
pub(super) struct Case {
    pub(super) handles: ResourceTable,
    pub(super) request: Request,
}

impl Case {
    pub(super) fn new() -> Self {
        let request = Request {
            method: Method::Post,
            path: vec!["a".to_owned()],
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
            withhold: Vec::new(),
            changes: false,
        };
        Self { handles: ResourceTable::new(), request }
    }

    /// A handle of a secret.
    pub(super) fn secret(&mut self, secret: &str) -> Resource<GuestSecret> {
        self.handles.push(GuestSecret::from(SecretString::from(secret))).unwrap()
    }
}
