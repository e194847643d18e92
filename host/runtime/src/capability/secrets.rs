//! Secrets as handles (BLIND-PLUGIN). A guest can pass one on to a host function; there is no
//! function that gives its bytes.

use secrecy::SecretString;
use wasmtime::component::Resource;

use crate::bindings::secrets::{Host, HostSecret};
use crate::call::Call;
use crate::fault::FaultKind;

/// A secret in a call's table of handles.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GuestSecret(pub(crate) SecretString);

impl Host for Call {}

impl HostSecret for Call {
    fn drop(&mut self, secret: Resource<GuestSecret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl Call {
    /// Gives the guest a handle of a secret.
    ///
    /// # Errors
    /// When it holds too many already: the guest traps.
    pub(crate) fn hand_out(&mut self, secret: SecretString) -> wasmtime::Result<Resource<GuestSecret>> {
        self.table.push(GuestSecret(secret)).map_err(|error| {
            let limit = self.limits.resources;
            self.breach(FaultKind::Resources { limit });
            error.into()
        })
    }
}
