//! Secrets as handles (BLIND-PLUGIN). A guest can pass one on to a host function; there is no
//! function that gives its bytes. Every capability that takes or makes secrets builds on this one.

use secrecy::SecretString;
use wasmtime::component::{Linker, Resource};

use crate::bindings::secrets::{Host, HostSecret, add_to_linker};
use crate::capability::Capability;
use crate::fault::FaultKind;
use crate::view::{HasView, View, ViewOf};

/// Registers it.
pub(crate) struct SecretsCapability;

impl Capability for SecretsCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf>(linker, T::view)
    }
}

/// A secret in a call's table of handles.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GuestSecret(pub(crate) SecretString);

impl Host for View<'_> {}

impl HostSecret for View<'_> {
    fn drop(&mut self, secret: Resource<GuestSecret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl<S: ?Sized> View<'_, S> {
    /// Gives the guest a handle of a secret.
    ///
    /// # Errors
    /// When it holds too many already: the guest traps.
    pub(crate) fn hand_out(&mut self, secret: SecretString) -> wasmtime::Result<Resource<GuestSecret>> {
        self.table.push(GuestSecret(secret)).map_err(|error| {
            let limit = self.meter.limits.resources;
            self.meter.breach(FaultKind::Resources { limit });
            error.into()
        })
    }
}
