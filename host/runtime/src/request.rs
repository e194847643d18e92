//! The request that a policy or a context provider reads, field by field. Every read is noted
//! ([`LookedAt`]), and counts as a call to the host with its bytes.

use jit_core::looked_at::{Field, List, LookedAt};
use jit_core::policy::PolicyRequest;
use wasmtime::component::Resource;

use crate::bindings::request::{Host, HostRequest};
use crate::call::Call;
use crate::remembered::Reads;

/// What the guest's handle stands for. The request itself is part of the call, which has one at most; so the
/// handle carries nothing, and there is no table that a guest could fill.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GuestRequest;

/// The handle that a guest gets for as long as one call of its lasts: the canonical ABI refuses a guest that
/// still has it when it returns.
pub(crate) fn handle() -> Resource<GuestRequest> {
    Resource::new_borrow(0)
}

/// The request of a call, and what has been read of it.
#[derive(Debug)]
pub(crate) struct Asked {
    request: PolicyRequest,
    pub(crate) looked_at: LookedAt,
    /// What was read, in order, if the decision may be remembered.
    pub(crate) reads: Option<Reads>,
}

impl Asked {
    pub(crate) fn new(request: &PolicyRequest) -> Self {
        Self { request: request.clone(), looked_at: LookedAt::default(), reads: None }
    }

    /// Also takes down in which order things are read.
    pub(crate) fn in_order(request: &PolicyRequest) -> Self {
        Self { reads: Some(Reads::default()), ..Self::new(request) }
    }
}

impl Call {
    fn asked(&mut self) -> wasmtime::Result<&mut Asked> {
        // Without a request there is no handle of one, so no guest comes here.
        self.asked.as_mut().ok_or_else(|| wasmtime::Error::msg("this call has no request"))
    }

    fn text(&mut self, field: Field, value: impl FnOnce(&PolicyRequest) -> String) -> wasmtime::Result<String> {
        let text = value(self.note(field)?);
        self.meter.enter_host(text.len())?;
        Ok(text)
    }

    fn maybe(
        &mut self,
        field: Field,
        value: impl FnOnce(&PolicyRequest) -> Option<String>,
    ) -> wasmtime::Result<Option<String>> {
        let text = value(self.note(field)?);
        self.meter.enter_host(text.as_ref().map_or(0, String::len))?;
        Ok(text)
    }

    fn seconds(&mut self, field: Field, value: impl FnOnce(&PolicyRequest) -> u64) -> wasmtime::Result<u64> {
        let seconds = value(self.note(field)?);
        self.meter.enter_host(size_of::<u64>())?;
        Ok(seconds)
    }

    fn one(&mut self, list: List, name: &str) -> wasmtime::Result<Option<String>> {
        // Before anything is done with the name, which may have megabytes.
        self.meter.enter_host(name.len())?;
        let asked = self.asked()?;
        asked.looked_at.note_name(list, name);
        if let Some(reads) = &mut asked.reads {
            reads.name(list, name);
        }
        let value = list.of(&asked.request).get(name).cloned();
        self.meter.count_bytes(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn all(&mut self, list: List) -> wasmtime::Result<Vec<(String, String)>> {
        let asked = self.asked()?;
        asked.looked_at.note_all(list);
        if let Some(reads) = &mut asked.reads {
            reads.all(list);
        }
        let pairs: Vec<_> = list.of(&asked.request).iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        self.meter.enter_host(pairs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        Ok(pairs)
    }

    fn note(&mut self, field: Field) -> wasmtime::Result<&PolicyRequest> {
        let asked = self.asked()?;
        asked.looked_at.note(field);
        if let Some(reads) = &mut asked.reads {
            reads.field(field);
        }
        Ok(&asked.request)
    }
}

type This = Resource<GuestRequest>;
type Text = wasmtime::Result<String>;
type Maybe = wasmtime::Result<Option<String>>;
type Pairs = wasmtime::Result<Vec<(String, String)>>;

impl Host for Call {}

impl HostRequest for Call {
    fn operation(&mut self, _: This) -> Text {
        self.text(Field::Operation, |request| request.operation.as_str().to_owned())
    }

    fn time(&mut self, _: This) -> wasmtime::Result<u64> {
        self.seconds(Field::Time, |request| request.time)
    }

    fn workload(&mut self, _: This) -> Text {
        self.text(Field::Workload, |request| request.workload.clone())
    }

    fn issuer(&mut self, _: This) -> Text {
        self.text(Field::Issuer, |request| request.issuer.clone())
    }

    fn target(&mut self, _: This) -> Text {
        self.text(Field::Target, |request| request.target.clone())
    }

    fn role(&mut self, _: This) -> Text {
        self.text(Field::Role, |request| request.role.clone())
    }

    fn ttl_seconds(&mut self, _: This) -> wasmtime::Result<u64> {
        self.seconds(Field::Ttl, |request| request.ttl_seconds)
    }

    fn reason(&mut self, _: This) -> Maybe {
        self.maybe(Field::Reason, |request| request.reason.clone())
    }

    fn ticket(&mut self, _: This) -> Maybe {
        self.maybe(Field::Ticket, |request| request.ticket.clone())
    }

    fn caller_address(&mut self, _: This) -> Maybe {
        self.maybe(Field::CallerAddress, |request| request.caller_address.map(|address| address.to_string()))
    }

    fn attribute(&mut self, _: This, name: String) -> Maybe {
        self.one(List::Attributes, &name)
    }

    fn attributes(&mut self, _: This) -> Pairs {
        self.all(List::Attributes)
    }

    fn metadata(&mut self, _: This, name: String) -> Maybe {
        self.one(List::Metadata, &name)
    }

    fn all_metadata(&mut self, _: This) -> Pairs {
        self.all(List::Metadata)
    }

    fn fact(&mut self, _: This, name: String) -> Maybe {
        self.one(List::Facts, &name)
    }

    fn facts(&mut self, _: This) -> Pairs {
        self.all(List::Facts)
    }

    fn resource(&mut self, _: This, name: String) -> Maybe {
        self.one(List::Resource, &name)
    }

    fn whole_resource(&mut self, _: This) -> Pairs {
        self.all(List::Resource)
    }

    fn drop(&mut self, _: This) -> wasmtime::Result<()> {
        // A guest never owns a request, so it never ends one.
        Ok(())
    }
}
