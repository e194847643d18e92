//! The contract as Rust types, generated once from `wit/`.
//!
//! One synthetic world holds every interface, so that a type which several kinds of plugins share
//! exists once here. No plugin implements that world: which exports a component has is its kind,
//! and what it may import is its grant (see [`crate::load`]).
//!
//! Without the `tracing` option of `bindgen!`: it would print arguments, and some of those stand
//! beside secrets.

#[allow(missing_docs, unreachable_pub, reason = "generated; the contract's own documentation is in wit/")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package jit:host;

            world everything {
                import jit:plugin/types@0.2.0;
                import jit:plugin/request@0.2.0;
                import jit:plugin/log@0.2.0;
                import jit:plugin/secrets@0.2.0;
                import jit:plugin/sql@0.2.0;
                import jit:plugin/session@0.2.0;
                import jit:plugin/http@0.2.0;
                import jit:plugin/ldap@0.2.0;
                export jit:plugin/policy@0.2.0;
                export jit:plugin/usage@0.2.0;
                export jit:plugin/context@0.2.0;
                export jit:plugin/driver@0.2.0;
                export jit:plugin/statements@0.2.0;
            }
        ",
        imports: {
            "jit:plugin/sql@0.2.0": async | trappable,
            "jit:plugin/session@0.2.0": async | trappable,
            "jit:plugin/http@0.2.0": async | trappable,
            "jit:plugin/ldap@0.2.0": async | trappable,
            default: trappable,
        },
        exports: {
            "jit:plugin/driver@0.2.0": async,
            "jit:plugin/statements@0.2.0": async,
        },
        with: {
            "jit:plugin/request.request": crate::request::GuestRequest,
            "jit:plugin/secrets.secret": crate::capability::secrets::GuestSecret,
        },
        require_store_data_send: true,
    });
}

pub(crate) use generated::exports::jit::plugin::{context, driver, policy, statements, usage};
pub(crate) use generated::jit::plugin::{http, ldap, log, request, secrets, session, sql, types};

/// The package whose interfaces the contract is made of.
pub(crate) const PACKAGE: &str = "jit:plugin";

/// The contract's version that this host speaks.
pub(crate) const VERSION: &str = "0.2.0";
