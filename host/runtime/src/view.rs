//! What a host function sees of its call. A capability implements its interface for a [`View`] of its own
//! session, and is linked with the way from the store's data to that view: it knows neither the call nor
//! another capability.

use std::any::Any;

use wasmtime::component::{HasData, ResourceTable};

use crate::backend::Session;
use crate::meter::Meter;

/// A call as one capability sees it; `S` is the session that it works on.
pub(crate) struct View<'a, S: ?Sized = dyn Session> {
    pub(crate) meter: &'a mut Meter,
    /// The handles that the guest holds.
    pub(crate) table: &'a mut ResourceTable,
    /// None where the call has no backend, or one of another capability.
    pub(crate) session: Option<&'a mut S>,
}

impl<'a> View<'a> {
    /// As the capability sees it that works on sessions of that type.
    pub(crate) fn on<S: Session>(self) -> View<'a, S> {
        let Self { meter, table, session } = self;
        View { meter, table, session: session.and_then(|session| (session as &mut dyn Any).downcast_mut()) }
    }
}

/// The data of a store that has a view.
pub(crate) trait HasView: Send + 'static {
    /// The call as it is now.
    fn view(&mut self) -> View<'_>;
}

/// Says to the linker that host functions work on a view.
pub(crate) struct ViewOf<S: ?Sized = dyn Session>(std::marker::PhantomData<fn() -> Box<S>>);

impl<S: ?Sized + 'static> HasData for ViewOf<S> {
    type Data<'a> = View<'a, S>;
}
