//! What `wit-bindgen` generates from the contract in `wit/`: the only place of the SDK where it does.
//!
//! Everything that a plugin may import is generated once (`host`), so that all kinds share the
//! types. What a plugin exports is generated per world, because the export macro of a world also
//! carries the section that tells the component's type: a policy must not claim to be a driver.
//!
//! A driver for SQL is a `bare-driver` that also imports `sql` and exports `statements`; those two
//! are one world here, merged by the component builder, so that all driver worlds share the types. So
//! it is with a policy that counts: a `policy-plugin` that also exports `usage`.
//! A driver for HTTP or a directory is a `bare-driver` with one more import, which `host` has.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated: the canonical ABI passes raw pointers between guest and host; the suites \
              of the host run every import and export"
)]

/// Imports and the types of the contract.
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package jit:sdk;
            world host {
                import jit:plugin/types@0.2.0;
                import jit:plugin/request@0.2.0;
                import jit:plugin/log@0.2.0;
                import jit:plugin/secrets@0.2.0;
                import jit:plugin/sql@0.2.0;
                import jit:plugin/session@0.2.0;
                import jit:plugin/http@0.2.0;
                import jit:plugin/ldap@0.2.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq, Clone],
        additional_derives_ignore: [
            "param", "statement", "part", "field", "json-body", "body", "request", "response", "value", "attribute",
            "change", "condition", "query",
        ],
    });
}

/// World `policy-plugin`.
pub mod policy {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "policy-plugin",
        with: {
            "jit:plugin/types@0.2.0": crate::bindings::host::jit::plugin::types,
            "jit:plugin/request@0.2.0": crate::bindings::host::jit::plugin::request,
            "jit:plugin/log@0.2.0": crate::bindings::host::jit::plugin::log,
        },
        additional_derives: [PartialEq, Clone],
        pub_export_macro: true,
    });
}

/// What world `usage-policy-plugin` has beyond `policy-plugin`.
pub mod usage {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package jit:sdk;
            world policy-usage {
                export jit:plugin/usage@0.2.0;
            }
        ",
        pub_export_macro: true,
    });
}

/// World `context-plugin`.
pub mod context {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "context-plugin",
        with: {
            "jit:plugin/types@0.2.0": crate::bindings::host::jit::plugin::types,
            "jit:plugin/request@0.2.0": crate::bindings::host::jit::plugin::request,
            "jit:plugin/log@0.2.0": crate::bindings::host::jit::plugin::log,
            "jit:plugin/secrets@0.2.0": crate::bindings::host::jit::plugin::secrets,
            "jit:plugin/session@0.2.0": crate::bindings::host::jit::plugin::session,
            "jit:plugin/http@0.2.0": crate::bindings::host::jit::plugin::http,
        },
        pub_export_macro: true,
    });
}

/// World `bare-driver`.
pub mod driver {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "bare-driver",
        with: {
            "jit:plugin/types@0.2.0": crate::bindings::host::jit::plugin::types,
            "jit:plugin/log@0.2.0": crate::bindings::host::jit::plugin::log,
            "jit:plugin/secrets@0.2.0": crate::bindings::host::jit::plugin::secrets,
        },
        additional_derives: [PartialEq, Clone],
        additional_derives_ignore: ["issued"],
        pub_export_macro: true,
    });
}

/// What world `sql-driver` has beyond `bare-driver`.
pub mod statements {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package jit:sdk;
            world sql-statements {
                import jit:plugin/sql@0.2.0;
                export jit:plugin/statements@0.2.0;
            }
        ",
        with: {
            "jit:plugin/secrets@0.2.0": crate::bindings::host::jit::plugin::secrets,
            "jit:plugin/sql@0.2.0": crate::bindings::host::jit::plugin::sql,
        },
        pub_export_macro: true,
    });
}
