//! The verbs of a driver that works through a capability, written once: each capability's trait is
//! [`BareDriver`](crate::BareDriver) with a connection.

/// Declares the trait of drivers for a capability, and `OnHost`, which gives such a driver the
/// host's connection.
macro_rules! driver_trait {
    (
        $(#[$doc:meta])*
        $name:ident, $backend:ident: $capability:ident on $host:ty
        $(, { $($extra:tt)* })?
    ) => {
        $(#[$doc])*
        pub trait $name {
            /// The target's `config` table. Give it `#[serde(deny_unknown_fields)]`.
            type Target: serde::de::DeserializeOwned;
            /// A role's table. Give it `#[serde(deny_unknown_fields)]`.
            type Role: serde::de::DeserializeOwned;

            $($($extra)*)?

            /// See [`BareDriver::describe`](crate::BareDriver::describe).
            fn describe() -> crate::Description;

            /// See [`BareDriver::validate`](crate::BareDriver::validate); with a connection it can
            /// look whether what the configuration names exists.
            ///
            /// # Errors
            /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) with what to mend.
            fn validate(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                roles: &[crate::Role<Self::Role>],
            ) -> Result<(), crate::Error>;

            /// See [`BareDriver::create`](crate::BareDriver::create).
            ///
            /// # Errors
            /// [`Error::Conflict`](crate::Error::Conflict) when the name exists.
            fn create(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                role: &crate::Role<Self::Role>,
                account: &crate::Account,
                password: crate::Secret<'_>,
            ) -> Result<crate::Issued, crate::Error>;

            /// See [`BareDriver::renew`](crate::BareDriver::renew).
            ///
            /// # Errors
            /// [`Error::NotFound`](crate::Error::NotFound) when the account is not there.
            fn renew(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                role: &crate::Role<Self::Role>,
                account: &crate::Account,
            ) -> Result<u64, crate::Error>;

            /// See [`BareDriver::rotate`](crate::BareDriver::rotate).
            ///
            /// # Errors
            /// [`Error::NotFound`](crate::Error::NotFound) when the account is not there.
            fn rotate(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                account: &crate::Account,
                step: crate::RotationStep,
                password: Option<crate::Secret<'_>>,
            ) -> Result<(), crate::Error> {
                let _ = ($backend, target, account, step, password);
                Err(crate::Error::Other("this driver does not rotate".into()))
            }

            /// See [`BareDriver::revoke`](crate::BareDriver::revoke).
            ///
            /// # Errors
            /// Any but [`Error::NotFound`](crate::Error::NotFound), which the host takes for success.
            fn revoke(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                account: &crate::Account,
            ) -> Result<(), crate::Error>;

            /// See [`BareDriver::inspect`](crate::BareDriver::inspect).
            ///
            /// # Errors
            /// [`Error::NotFound`](crate::Error::NotFound) when it is not there.
            fn inspect(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                name: &str,
            ) -> Result<crate::AccountState, crate::Error>;

            /// See [`BareDriver::list_accounts`](crate::BareDriver::list_accounts).
            ///
            /// # Errors
            /// When the backend does not answer.
            fn list_accounts(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
                prefix: &str,
                cursor: Option<&str>,
            ) -> Result<crate::AccountPage, crate::Error>;

            /// See [`BareDriver::maintain`](crate::BareDriver::maintain).
            ///
            /// # Errors
            /// When the backend does not answer; the host calls again.
            fn maintain(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
            ) -> Result<u64, crate::Error> {
                let _ = ($backend, target);
                Err(crate::Error::Other("this driver has nothing to maintain".into()))
            }

            /// See [`BareDriver::place`](crate::BareDriver::place).
            ///
            /// # Errors
            /// When the backend does not answer; the host then removes nothing.
            fn place(
                $backend: &mut dyn $capability,
                target: &crate::Target<Self::Target>,
            ) -> Result<Vec<(String, String)>, crate::Error> {
                let _ = ($backend, target);
                Ok(Vec::new())
            }
        }

        /// What the registration macro exports: the driver on the host's connection.
        #[doc(hidden)]
        pub struct OnHost<D>(std::marker::PhantomData<D>);

        impl<D: $name> crate::BareDriver for OnHost<D> {
            type Target = D::Target;
            type Role = D::Role;

            fn describe() -> crate::Description {
                D::describe()
            }

            fn validate(
                target: &crate::Target<D::Target>,
                roles: &[crate::Role<D::Role>],
            ) -> Result<(), crate::Error> {
                D::validate(&mut <$host>::default(), target, roles)
            }

            fn create(
                target: &crate::Target<D::Target>,
                role: &crate::Role<D::Role>,
                account: &crate::Account,
                password: crate::Secret<'_>,
            ) -> Result<crate::Issued, crate::Error> {
                D::create(&mut <$host>::default(), target, role, account, password)
            }

            fn renew(
                target: &crate::Target<D::Target>,
                role: &crate::Role<D::Role>,
                account: &crate::Account,
            ) -> Result<u64, crate::Error> {
                D::renew(&mut <$host>::default(), target, role, account)
            }

            fn rotate(
                target: &crate::Target<D::Target>,
                account: &crate::Account,
                step: crate::RotationStep,
                password: Option<crate::Secret<'_>>,
            ) -> Result<(), crate::Error> {
                D::rotate(&mut <$host>::default(), target, account, step, password)
            }

            fn revoke(target: &crate::Target<D::Target>, account: &crate::Account) -> Result<(), crate::Error> {
                D::revoke(&mut <$host>::default(), target, account)
            }

            fn inspect(target: &crate::Target<D::Target>, name: &str) -> Result<crate::AccountState, crate::Error> {
                D::inspect(&mut <$host>::default(), target, name)
            }

            fn list_accounts(
                target: &crate::Target<D::Target>,
                prefix: &str,
                cursor: Option<&str>,
            ) -> Result<crate::AccountPage, crate::Error> {
                D::list_accounts(&mut <$host>::default(), target, prefix, cursor)
            }

            fn maintain(target: &crate::Target<D::Target>) -> Result<u64, crate::Error> {
                D::maintain(&mut <$host>::default(), target)
            }

            fn place(target: &crate::Target<D::Target>) -> Result<Vec<(String, String)>, crate::Error> {
                D::place(&mut <$host>::default(), target)
            }
        }
    };
}
pub(crate) use driver_trait;
