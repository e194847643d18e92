//! Secrets as handles (BLIND-PLUGIN). A guest can pass one on to a host function; there is no
//! function that gives its bytes.

use secrecy::SecretString;
use wasmtime::component::Resource;

use crate::bindings::secrets::{Host, HostSecret};
use crate::call::Call;

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
