//! The `session` capability: the broker's own credentials as handles, and secrets kept between calls.

use std::sync::Arc;

use secrecy::SecretString;
use wasmtime::component::{Linker, Resource};

use crate::bindings::session::{Host, add_to_linker};
use crate::capability::Capability;
use crate::capability::credentials::CredentialsInUse;
use crate::capability::secrets::GuestSecret;
use crate::view::{HasView, View, ViewOf};

/// Registers it.
pub(crate) struct SessionCapability;

impl Capability for SessionCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf>(linker, T::view)
    }
}

impl Host for View<'_> {
    async fn credential(&mut self, name: String) -> wasmtime::Result<Result<Resource<GuestSecret>, String>> {
        self.meter.enter_host(name.len())?;
        let track = Arc::clone(&self.meter.track);
        let read = match self.credentials() {
            Some(credentials) => track.unmetered(credentials.read(&name)).await,
            None => Err("this call has no connection with secrets".to_owned()),
        };
        match read {
            Ok(secret) => Ok(Ok(self.hand_out(secret)?)),
            Err(reason) => {
                self.meter.count_bytes(reason.len())?;
                Ok(Err(reason))
            }
        }
    }

    async fn kept(&mut self, key: String, at_least: u64) -> wasmtime::Result<Option<Resource<GuestSecret>>> {
        self.meter.enter_host(key.len())?;
        let (track, plugin) = self.who();
        let Some(credentials) = self.credentials() else { return Ok(None) };
        let kept = track.unmetered(credentials.kept(&plugin, &key, at_least)).await;
        kept.map(|secret| self.hand_out(secret)).transpose()
    }

    async fn keep(
        &mut self,
        key: String,
        secret: Resource<GuestSecret>,
        valid: u64,
        unless: u64,
    ) -> wasmtime::Result<Result<Resource<GuestSecret>, String>> {
        self.meter.enter_host(key.len())?;
        let mut secret: SecretString = match self.table.get(&secret)?.password() {
            Ok(password) => password.clone(),
            Err(reason) => return Ok(Err(reason)),
        };
        let (track, plugin) = self.who();
        if let Some(credentials) = self.credentials() {
            match track.unmetered(credentials.keep(&plugin, &key, secret, valid, unless)).await {
                Ok(holds) => secret = holds,
                Err(reason) => {
                    self.meter.count_bytes(reason.len())?;
                    return Ok(Err(reason));
                }
            }
        }
        self.hand_out(secret).map(Ok)
    }

    async fn forget(&mut self, key: String, secret: Resource<GuestSecret>) -> wasmtime::Result<bool> {
        self.meter.enter_host(key.len())?;
        let Ok(secret) = self.table.get(&secret)?.password().cloned() else { return Ok(false) };
        let (track, plugin) = self.who();
        let Some(credentials) = self.credentials() else { return Ok(false) };
        Ok(track.unmetered(credentials.forget(&plugin, &key, &secret)).await)
    }
}

impl View<'_> {
    fn credentials(&mut self) -> Option<&mut CredentialsInUse> {
        self.session.as_deref_mut().and_then(|session| session.credentials())
    }

    fn who(&self) -> (Arc<crate::meter::Track>, Arc<str>) {
        (Arc::clone(&self.meter.track), Arc::clone(&self.meter.plugin))
    }
}
