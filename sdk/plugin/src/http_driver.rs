//! Drivers for backends behind an HTTP API.

use crate::driver_trait::driver_trait;
use crate::http::{HostHttp, Http};

driver_trait! {
    /// A driver for a backend behind an HTTP API. Its verbs are those of
    /// [`BareDriver`](crate::BareDriver), with a connection.
    HttpDriver, http: Http on HostHttp
}
