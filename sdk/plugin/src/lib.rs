//! sdk/plugin
#[doc(hidden)]
pub mod bindings;
