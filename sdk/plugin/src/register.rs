//! The registration macros: one line that turns a type into a plugin.
//!
//! Only a Wasm build exports anything: native builds of several plugins can be linked into one
//! test binary without their symbols meeting.

/// The contract's version, as a literal for `concat!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract {
    () => {
        "0.1.0"
    };
}
pub(crate) use crate::__contract as contract;

/// What every plugin carries, whatever its kind: the section `jit-plugin`, in which the host reads
/// the plugin's name and the contract's version before it links anything.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_section {
    () => {
        const SECTION: &str = concat!(
            "{\"name\":\"",
            env!("CARGO_PKG_NAME"),
            "\",\"version\":\"",
            env!("CARGO_PKG_VERSION"),
            "\",\"contract\":\"",
            $crate::__contract!(),
            "\"}"
        );
        #[used]
        #[unsafe(link_section = "jit-plugin")]
        static BYTES: [u8; SECTION.len()] = match SECTION.as_bytes().first_chunk() {
            Some(bytes) => *bytes,
            None => panic!("a chunk of its own length"),
        };
    };
}

/// Registers a [`Policy`](crate::Policy) as the plugin of this crate.
#[macro_export]
macro_rules! register_policy {
    ($policy:ty) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Exported = $crate::policy::Exported<$policy>;
            const fn is_a_policy<T: $crate::Policy>() {}
            is_a_policy::<$policy>();
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
        $crate::bindings::policy::export!(Exported with_types_in $crate::bindings::policy);
            };
        };
    };
}

/// Registers a [`Context`](crate::Context) provider as the plugin of this crate.
#[macro_export]
macro_rules! register_context {
    ($context:ty) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Exported = $crate::context::Exported<$context>;
            const fn is_a_context<T: $crate::Context>() {}
            is_a_context::<$context>();
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
        $crate::bindings::context::export!(Exported with_types_in $crate::bindings::context);
            };
        };
    };
}

/// Registers a [`BareDriver`](crate::BareDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_bare_driver {
    ($driver:ty) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Exported = $crate::driver::Exported<$driver>;
            const fn is_a_driver<T: $crate::BareDriver>() {}
            is_a_driver::<$driver>();
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
        $crate::bindings::driver::export!(Exported with_types_in $crate::bindings::driver);
            };
        };
    };
}

/// Registers an [`SqlDriver`](crate::SqlDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_sql_driver {
    ($driver:ty) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Statements = $crate::sql_driver::OnHost<$driver>;
            type Exported = $crate::driver::Exported<Statements>;
            const fn is_a_driver<T: $crate::SqlDriver>() {}
            is_a_driver::<$driver>();
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
        $crate::bindings::driver::export!(Exported with_types_in $crate::bindings::driver);
                $crate::bindings::statements::export!(
                            Statements with_types_in $crate::bindings::statements
                );
            };
        };
    };
}

/// Registers an [`HttpDriver`](crate::HttpDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_http_driver {
    ($driver:ty) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Exported = $crate::driver::Exported<$crate::http_driver::OnHost<$driver>>;
            const fn is_a_driver<T: $crate::HttpDriver>() {}
            is_a_driver::<$driver>();
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
        $crate::bindings::driver::export!(Exported with_types_in $crate::bindings::driver);
            };
        };
    };
}

/// Registers an [`LdapDriver`](crate::LdapDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_ldap_driver {
    ($driver:ty) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Exported = $crate::driver::Exported<$crate::ldap_driver::OnHost<$driver>>;
            const fn is_a_driver<T: $crate::LdapDriver>() {}
            is_a_driver::<$driver>();
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
        $crate::bindings::driver::export!(Exported with_types_in $crate::bindings::driver);
            };
        };
    };
}

#[cfg(test)]
mod tests {
    /// The macros cannot read the contract's version: a new one must be written here too.
    #[test]
    fn the_contracts_version_is_that_of_the_wit() {
        let wit = include_str!("../../../wit/types.wit");
        let package = format!("package jit:plugin@{};", crate::CONTRACT);
        assert!(wit.lines().any(|line| line == package), "{package}");
    }
}
