//! The registration macros: one line that turns a type into a plugin.
//!
//! Only a Wasm build exports anything: native builds of several plugins can be linked into one
//! test binary without their symbols meeting.

/// The contract's version, as a literal for `concat!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract {
    () => {
        "0.2.0"
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

/// What each registration is made of: the exported type, the trait that the plugin's own type must
/// have, the world whose exports it has, and what else it exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($plugin:ty: $trait:ident, $exported:ty, $world:ident $(, $more:ty as $other:ident)?) => {
        #[allow(unsafe_code, reason = "generated: exports of the canonical ABI, and a section")]
        const _: () = {
            type Exported = $exported;
            const fn is_one<T: $crate::$trait>() {}
            is_one::<$plugin>();
            $(type More = $more;)?
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                $crate::__plugin_section!();
                $crate::bindings::$world::export!(Exported with_types_in $crate::bindings::$world);
                $($crate::bindings::$other::export!(More with_types_in $crate::bindings::$other);)?
            };
        };
    };
}

/// Registers a [`Policy`](crate::Policy) as the plugin of this crate.
#[macro_export]
macro_rules! register_policy {
    ($policy:ty) => {
        $crate::__register!($policy: Policy, $crate::policy::Exported<$policy>, policy);
    };
}

/// Registers a [`UsagePolicy`](crate::UsagePolicy) as the plugin of this crate.
#[macro_export]
macro_rules! register_usage_policy {
    ($policy:ty) => {
        $crate::__register!(
            $policy: UsagePolicy, $crate::policy::Exported<$policy>, policy, $crate::usage::Exported<$policy> as usage
        );
    };
}

/// Registers a [`Context`](crate::Context) provider as the plugin of this crate.
#[macro_export]
macro_rules! register_context {
    ($context:ty) => {
        $crate::__register!($context: Context, $crate::context::Exported<$context>, context);
    };
}

/// Registers a [`BareDriver`](crate::BareDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_bare_driver {
    ($driver:ty) => {
        $crate::__register!($driver: BareDriver, $crate::driver::Exported<$driver>, driver);
    };
}

/// Registers an [`SqlDriver`](crate::SqlDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_sql_driver {
    ($driver:ty) => {
        $crate::__register!(
            $driver: SqlDriver, $crate::driver::Exported<$crate::sql_driver::OnHost<$driver>>, driver,
            $crate::sql_driver::OnHost<$driver> as statements
        );
    };
}

/// Registers an [`HttpDriver`](crate::HttpDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_http_driver {
    ($driver:ty) => {
        $crate::__register!($driver: HttpDriver, $crate::driver::Exported<$crate::http_driver::OnHost<$driver>>, driver);
    };
}

/// Registers an [`LdapDriver`](crate::LdapDriver) as the plugin of this crate.
#[macro_export]
macro_rules! register_ldap_driver {
    ($driver:ty) => {
        $crate::__register!($driver: LdapDriver, $crate::driver::Exported<$crate::ldap_driver::OnHost<$driver>>, driver);
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
