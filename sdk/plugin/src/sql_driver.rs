//! Drivers for backends that speak SQL.

use crate::bindings::statements::exports::jit::plugin::statements::Guest;
use crate::driver_trait::driver_trait;
use crate::sql::{HostSql, Sql};

driver_trait! {
    /// A driver for a backend that speaks SQL. Its verbs are those of
    /// [`BareDriver`](crate::BareDriver), with a connection.
    SqlDriver, sql: Sql on HostSql, {
        /// Every template that the driver will ever run: the list of [`crate::statements!`]. The
        /// host runs no other.
        const STATEMENTS: &'static [&'static str];
    }
}

impl<D: SqlDriver> Guest for OnHost<D> {
    fn templates() -> Vec<String> {
        crate::panic::install();
        D::STATEMENTS.iter().map(|text| (*text).to_owned()).collect()
    }
}
