//! The `ldap` capability: operations on the connection's directory.
//!
//! A driver gives names, values and filters as data. The host escapes names (RFC 4514) and filters
//! (RFC 4515), so that nothing in them is syntax; it sends the operation and knows whether it may
//! have changed the directory. Referrals are not followed: they would lead the broker's credential,
//! or an account, to a server that nobody configured.
//!
//! BLIND-PLUGIN: a secret is placed into attributes that hold passwords and nowhere else, and those
//! are never given, nor searched by.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use wasmtime::component::{Linker, Resource};
use zeroize::Zeroizing;

use crate::backend::{Backend, Endpoint, Session};
use crate::bindings::ldap::{
    Attribute, Change, ChangeKind, Condition, Entries, Host, LdapError, Name, Query, ResultError, Scope, Value,
    add_to_linker,
};
use crate::bindings::secrets::Encoding;
use crate::capability::Capability;
use crate::capability::Grant;
use crate::capability::secrets::{self, GuestSecret, Home};
use crate::declared::Declared;
use crate::meter::{Track, millis};
use crate::text::escape;
use crate::view::{HasView, View, ViewOf};
use jit_core::driver::Lane;
use jit_core::secret::AccountSecret;

mod binary;
mod client;
mod connection;
mod entries;
pub(crate) mod name;
mod request;
mod tls;
mod value;

pub use connection::{LdapConnection, LdapConnectionError, LdapConnectionOptions, directory_login};

use client::Lost;
use connection::{MESSAGE, Refused, describe};
use entries::Collector;
use request::{
    Answer, INAPPROPRIATE_AUTHENTICATION, INVALID_CREDENTIALS, Kind, Octets, Request, SIZE_LIMIT_EXCEEDED, SUCCESS,
    Search, UNAVAILABLE, Values,
};

/// Most attributes or changes of one operation, conditions of a filter, attributes of a search.
const ITEMS: usize = 256;

/// Entries of one page.
const PAGE: u32 = 500;

/// So many bytes of a secret in a message are a part of it.
const PART: usize = 4;

/// Registers it.
pub(crate) struct LdapCapability;

impl Capability for LdapCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf<LdapSession>>(linker, |data| data.view().on())
    }
}

impl Backend for LdapConnection {
    fn name(&self) -> &str {
        self.name()
    }

    fn capability(&self) -> &'static str {
        Grant::Ldap.as_str()
    }

    fn session(self: Arc<Self>, lane: Lane, _declared: &Declared) -> Box<dyn Session> {
        Box::new(LdapSession::new(self, lane))
    }

    fn endpoint(&self) -> Option<Endpoint> {
        Some(self.endpoint().clone())
    }
}

impl Session for LdapSession {}

/// What a call needs to work on a directory.
struct LdapSession {
    connection: Arc<LdapConnection>,
    lane: Lane,
    /// The secrets that this call has placed, as they are and as they were written: never to be seen in
    /// an answer.
    placed: Vec<Octets>,
}

/// Why a request cannot be made: the host denies it, or the guest's handle is none.
type Prepared<T> = wasmtime::Result<Result<T, String>>;

impl Host for View<'_, LdapSession> {
    async fn add(&mut self, name: Name, attributes: Vec<Attribute>) -> wasmtime::Result<Result<(), LdapError>> {
        self.meter.enter_host(size_of_name(&name) + attributes.iter().map(size_of_attribute).sum::<usize>())?;
        let request = self.prepare_add(&name, &attributes)?;
        self.change(request).await.map(|changed| changed.map(drop))
    }

    async fn modify(&mut self, name: Name, changes: Vec<Change>) -> wasmtime::Result<Result<(), LdapError>> {
        let size = changes.iter().map(|change| 8 + size_of_attribute(&change.attribute)).sum::<usize>();
        self.meter.enter_host(size_of_name(&name) + size)?;
        let request = self.prepare_modify(&name, &changes)?;
        self.change(request).await.map(|changed| changed.map(drop))
    }

    async fn delete(&mut self, name: Name) -> wasmtime::Result<Result<(), LdapError>> {
        self.meter.enter_host(size_of_name(&name))?;
        let request = entry_name(&name).map(|name| Request::Delete { name });
        self.change(request).await.map(|changed| changed.map(drop))
    }

    async fn search(&mut self, query: Query) -> wasmtime::Result<Result<Entries, LdapError>> {
        let conditions = query.filter.iter().map(size_of_condition).sum::<usize>();
        let attributes = query.attributes.iter().map(|name| 8 + name.len()).sum::<usize>();
        self.meter.enter_host(size_of_name(&query.base) + conditions + attributes)?;
        let most = query.max_entries.min(self.meter.limits.rows);
        let search = match self.prepare_search(&query, most) {
            Ok(search) => search,
            Err(reason) => return self.answered(Err(LdapError::Denied(reason))),
        };
        let room = self.meter.bytes_left();
        let track = Arc::clone(&self.meter.track);
        let Some(session) = self.session.as_deref() else {
            return self.answered(Err(no_directory()));
        };
        let found = track.unmetered(session.search(search, most, room)).await;
        let found = match found {
            Ok((entries, bytes)) => {
                self.meter.count_bytes(bytes)?;
                Ok(entries)
            }
            Err(error) => Err(error),
        };
        self.answered(found)
    }

    async fn refresh(&mut self, name: Name, seconds: u32) -> wasmtime::Result<Result<u32, LdapError>> {
        self.meter.enter_host(size_of_name(&name))?;
        // RFC 2589, section 4.1: from a second to a year.
        let request = match seconds {
            1..=31_557_600 => entry_name(&name).map(|name| Request::Refresh { name, seconds }),
            _ => Err("a dynamic entry lives from one second to a year".to_owned()),
        };
        let changed = self.change(request).await?;
        // A server that says yes and not how much has set what it was asked for, or more.
        Ok(changed.map(|answer| answer.refreshed.unwrap_or(seconds)))
    }

    async fn authenticate(
        &mut self,
        name: Name,
        password: Resource<GuestSecret>,
    ) -> wasmtime::Result<Result<bool, LdapError>> {
        self.meter.enter_host(size_of_name(&name))?;
        let secret = match self.table.get(&password)?.password() {
            Ok(secret) => secret.clone(),
            Err(reason) => return self.answered(Err(LdapError::Denied(reason))),
        };
        let Some(session) = self.session.as_deref_mut() else {
            return self.answered(Err(no_directory()));
        };
        let tried = match session.credentials(&name, &secret) {
            Ok((name, password)) => {
                let track = Arc::clone(&self.meter.track);
                track.unmetered(session.authenticate(&name, password)).await
            }
            Err(reason) => Err(LdapError::Denied(reason)),
        };
        self.answered(tried)
    }
}

impl View<'_, LdapSession> {
    /// Sends what changes the directory.
    async fn change(&mut self, request: Result<Request, String>) -> wasmtime::Result<Result<Answer, LdapError>> {
        let request = match request {
            Ok(request) => request,
            Err(reason) => return self.answered(Err(LdapError::Denied(reason))),
        };
        let track = Arc::clone(&self.meter.track);
        let Some(session) = self.session.as_deref() else {
            return self.answered(Err(no_directory()));
        };
        let result = track.unmetered(session.change(&track, request)).await;
        self.answered(result)
    }

    /// Counts what an error takes to the guest.
    fn answered<T>(&mut self, result: Result<T, LdapError>) -> wasmtime::Result<Result<T, LdapError>> {
        match &result {
            Ok(_) => self.meter.track.set_answered(true),
            Err(LdapError::Refused(error)) => self.meter.track.set_answered(error.code != UNAVAILABLE),
            Err(LdapError::Unavailable(_)) => self.meter.track.set_answered(false),
            Err(LdapError::Unknown(_) | LdapError::Denied(_)) => {}
        }
        let bytes = match &result {
            Ok(_) => 0,
            Err(LdapError::Refused(error)) => error.message.len(),
            Err(LdapError::Unavailable(text) | LdapError::Unknown(text) | LdapError::Denied(text)) => text.len(),
        };
        self.meter.count_bytes(bytes)?;
        Ok(result)
    }

    fn prepare_add(&mut self, name: &Name, attributes: &[Attribute]) -> Prepared<Request> {
        if attributes.is_empty() || attributes.len() > ITEMS {
            return Ok(Err(format!("an entry has 1 to {ITEMS} attributes")));
        }
        let name = match entry_name(name) {
            Ok(name) => name,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut values = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            if attribute.values.is_empty() {
                return Ok(Err(format!("{} has no value", escape(&attribute.name, 64))));
            }
            match self.prepare_values(attribute)? {
                Ok(prepared) => values.push(prepared),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(Request::Add { name, attributes: values }))
    }

    fn prepare_modify(&mut self, name: &Name, changes: &[Change]) -> Prepared<Request> {
        if changes.is_empty() || changes.len() > ITEMS {
            return Ok(Err(format!("1 to {ITEMS} changes can be made at once")));
        }
        let name = match entry_name(name) {
            Ok(name) => name,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut prepared = Vec::with_capacity(changes.len());
        for change in changes {
            let kind = match change.kind {
                ChangeKind::Add if change.attribute.values.is_empty() => {
                    return Ok(Err(format!("{} has no value to add", escape(&change.attribute.name, 64))));
                }
                ChangeKind::Add => Kind::Add,
                ChangeKind::Delete => Kind::Delete,
                ChangeKind::Replace => Kind::Replace,
            };
            match self.prepare_values(&change.attribute)? {
                Ok(values) => prepared.push((kind, values)),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(Request::Modify { name, changes: prepared }))
    }

    fn prepare_values(&mut self, attribute: &Attribute) -> Prepared<Values> {
        if let Err(reason) = name::check_attribute(&attribute.name) {
            return Ok(Err(reason));
        }
        let mut values = Vec::with_capacity(attribute.values.len());
        for value in &attribute.values {
            let prepared = match value {
                Value::Secret((handle, encoding)) => {
                    let secret = self.table.get(handle)?.account_secret().clone();
                    self.place(&attribute.name, &secret, *encoding)
                }
                other => plain(other).map(|text| Zeroizing::new(text.into_bytes())),
            };
            match prepared {
                Ok(value) => values.push(value),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(Values { name: attribute.name.clone(), values }))
    }

    /// A secret as the value of an attribute.
    fn place(&mut self, attribute: &str, secret: &AccountSecret, encoding: Encoding) -> Result<Octets, String> {
        let Some(session) = self.session.as_deref_mut() else {
            return Err("this call has no directory".to_owned());
        };
        if !name::holds_passwords(attribute) {
            let shown = escape(attribute, 64);
            return Err(format!("{shown} can be read: a secret goes into attributes that hold passwords only"));
        }
        match secret {
            AccountSecret::Password(password) => {
                let secret = password.text();
                let value = value::secret(secret, encoding, session.connection.is_encrypted())?;
                session.remember(secret, Some(&value));
                Ok(value)
            }
            AccountSecret::Verifier(verifier) => {
                let text = secrets::place(verifier, encoding, Home::Ldap, &self.meter.track)?;
                session.remember(verifier.stored(), None);
                Ok(Zeroizing::new(text.as_bytes().to_vec()))
            }
        }
    }

    fn prepare_search(&self, query: &Query, most: u32) -> Result<Search, String> {
        if most == 0 {
            return Err("a search for no entry".to_owned());
        }
        if query.filter.is_empty() || query.filter.len() > ITEMS {
            return Err(format!("a filter has 1 to {ITEMS} conditions"));
        }
        if query.attributes.is_empty() || query.attributes.len() > ITEMS {
            return Err(format!("a search names 1 to {ITEMS} attributes"));
        }
        let base = name::text(&query.base)?;
        let scope = match query.scope {
            Scope::Base => ldap3::Scope::Base,
            _ if base.is_empty() => return Err("without a base, only the root DSE can be read".to_owned()),
            Scope::One => ldap3::Scope::OneLevel,
            Scope::Subtree => ldap3::Scope::Subtree,
        };
        query.attributes.iter().try_for_each(|name| open_attribute(name))?;
        let conditions = query.filter.iter().map(condition).collect::<Result<String, _>>()?;
        let filter = format!("(&{conditions})");
        let time_limit = self.session.as_ref().map_or(1, |session| {
            let seconds = session.connection.operation_timeout().as_secs().max(1);
            u32::try_from(seconds).unwrap_or(u32::MAX)
        });
        let attributes = query.attributes.clone();
        Ok(Search { base, scope, filter, attributes, size_limit: most.saturating_add(1), time_limit })
    }
}

impl LdapSession {
    fn new(connection: Arc<LdapConnection>, lane: Lane) -> Self {
        Self { connection, lane, placed: Vec::new() }
    }

    /// Notes a secret, and what it was written as.
    fn remember(&mut self, secret: &SecretString, written: Option<&Octets>) {
        let plain: Octets = Zeroizing::new(secret.expose_secret().as_bytes().to_vec());
        for seen in [Some(&plain), written].into_iter().flatten() {
            if !self.placed.contains(seen) {
                self.placed.push(seen.clone());
            }
        }
    }

    async fn change(&self, track: &Track, request: Request) -> Result<Answer, LdapError> {
        let mut lease = self.connection.acquire(self.lane).await.map_err(|error| LdapError::Unavailable(error.0))?;
        // From here on it may take effect, until the server says that it did not.
        let before = track.set_effect_possible(true);
        let limit = self.connection.operation_timeout();
        let asked = tokio::time::timeout(limit, lease.client().ask(request)).await;
        let reason = match asked {
            Ok(Ok(answer)) => {
                lease.give_back();
                if answer.code == SUCCESS {
                    return Ok(answer);
                }
                track.set_effect_possible(before);
                return Err(LdapError::Refused(self.shown(answer)));
            }
            Ok(Err(lost)) => describe(&lost),
            Err(_) => format!("no answer within {} ms", millis(limit)),
        };
        if !lease.client().has_unanswered_change() {
            track.set_effect_possible(before);
            return Err(LdapError::Unavailable(format!("the connection was lost before anything was sent: {reason}")));
        }
        Err(LdapError::Unknown(format!("sent, and no answer came: {reason}")))
    }

    /// All pages of a search, and how many bytes its entries took.
    async fn search(&self, search: Search, most: u32, room: usize) -> Result<(Entries, usize), LdapError> {
        let mut lease = self.connection.acquire(self.lane).await.map_err(|error| LdapError::Unavailable(error.0))?;
        let limit = self.connection.operation_timeout();
        let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
        let mut collector = Collector::new(&self.placed, most, room);
        let (mut cookie, mut cut_off) = (Vec::new(), false);
        // Each page but the last brings an entry.
        for _ in 0..=most {
            let wanted = collector.wanted();
            let page = u32::try_from(wanted).unwrap_or(u32::MAX).min(PAGE);
            let asked = lease.client().search(&search, page, cookie, wanted, collector.room());
            let page = match tokio::time::timeout(limit, asked).await {
                Ok(Ok(page)) => page,
                Ok(Err(Lost::TooLong(left))) => {
                    return Err(LdapError::Denied(Lost::TooLong(left).to_string()));
                }
                Ok(Err(lost)) => return Err(LdapError::Unknown(describe(&lost))),
                Err(_) => return Err(LdapError::Unknown(format!("no answer within {} ms", millis(limit)))),
            };
            collector.take(page.entries, page.bytes);
            // Without one it was stopped: the server gives more than it was asked for.
            let Some(answer) = page.answer else { break };
            match (answer.code, page.cookie) {
                (SUCCESS, Some(next)) if collector.wanted() > 0 => cookie = next,
                (SUCCESS, _) => break,
                (SIZE_LIMIT_EXCEEDED, _) => {
                    cut_off = true;
                    break;
                }
                _ => {
                    lease.give_back();
                    return Err(LdapError::Refused(self.shown(answer)));
                }
            }
        }
        lease.give_back();
        Ok(collector.finish(cut_off))
    }

    /// What a login is tried with.
    fn credentials(&mut self, name: &Name, secret: &SecretString) -> Result<(String, Octets), String> {
        let name = entry_name(name)?;
        if secret.expose_secret().is_empty() {
            return Err("a bind without a password proves nothing".to_owned());
        }
        let password = value::secret(secret, Encoding::Plain, self.connection.is_encrypted())?;
        self.remember(secret, None);
        Ok((name, password))
    }

    async fn authenticate(&self, name: &str, password: Octets) -> Result<bool, LdapError> {
        match self.connection.try_login(name, password).await {
            Ok(Ok(())) => Ok(true),
            // The second: the entry has no password.
            Ok(Err(Refused { code: INVALID_CREDENTIALS | INAPPROPRIATE_AUTHENTICATION, .. })) => Ok(false),
            Ok(Err(Refused { code, message })) => {
                let answer = Answer { code, message, refreshed: None };
                Err(LdapError::Refused(self.shown(answer)))
            }
            Err(error) => Err(LdapError::Unavailable(error.0)),
        }
    }

    /// The server's own no, without anything of a secret.
    fn shown(&self, answer: Answer) -> ResultError {
        let Answer { code, message, .. } = answer;
        let message = if self.placed.iter().any(|secret| quotes(message.as_bytes(), secret)) {
            "(message withheld: it quotes a secret)".to_owned()
        } else {
            match escape(message.trim_end_matches('\0'), MESSAGE) {
                empty if empty.trim().is_empty() => meaning(code).to_owned(),
                message => message,
            }
        };
        ResultError { code, message }
    }
}

/// Whether a message holds the secret or a part of it.
fn quotes(message: &[u8], secret: &[u8]) -> bool {
    let part = secret.len().min(PART);
    part > 0 && secret.windows(part).any(|part| message.windows(part.len()).any(|window| window == part))
}

/// What a code means, for servers that say nothing beside it (RFC 4511, appendix A.2).
fn meaning(code: u32) -> &'static str {
    match code {
        2 => "protocol error",
        3 => "time limit exceeded",
        8 => "stronger authentication required",
        10 => "referral: another server has it, and referrals are not followed",
        11 => "administrative limit exceeded",
        13 => "confidentiality required",
        16 => "no such attribute",
        17 => "undefined attribute type",
        19 => "constraint violation",
        20 => "attribute or value exists",
        21 => "invalid attribute syntax",
        32 => "no such object",
        34 => "invalid DN syntax",
        48 => "inappropriate authentication",
        49 => "invalid credentials",
        50 => "insufficient access rights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwilling to perform",
        64 => "naming violation",
        65 => "object class violation",
        66 => "not allowed on an entry with entries below it",
        68 => "entry already exists",
        _ => "refused",
    }
}

/// The text of a name that is not empty.
fn entry_name(name: &Name) -> Result<String, String> {
    match name::text(name)? {
        text if text.is_empty() => Err("the root of a directory is no entry".to_owned()),
        text => Ok(text),
    }
}

/// An attribute that a plugin may see.
fn open_attribute(name: &str) -> Result<(), String> {
    name::check_attribute(name)?;
    if name::holds_passwords(name) {
        return Err(format!("{} holds passwords", escape(name, 64)));
    }
    Ok(())
}

/// A value that is no secret.
fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Name(name) => name::text(name),
        Value::GeneralizedTime(seconds) => value::generalized_time(*seconds),
        Value::FileTime(seconds) => value::file_time(*seconds),
        Value::Secret(_) => Err("a secret is no condition: the answer would tell it".to_owned()),
    }
}

/// A condition as RFC 4515 writes it.
fn condition(condition: &Condition) -> Result<String, String> {
    let escaped = |name: &str, value: &Value| {
        let text = plain(value)?;
        let bytes = binary::asserted(name, &text);
        bytes.unwrap_or_else(|| Ok(ldap3::ldap_escape(text).into_owned()))
    };
    Ok(match condition {
        Condition::Equals((name, value)) => {
            open_attribute(name)?;
            format!("({name}={})", escaped(name, value)?)
        }
        Condition::AtLeast((name, value)) => {
            open_attribute(name)?;
            format!("({name}>={})", escaped(name, value)?)
        }
        Condition::Present(name) => {
            open_attribute(name)?;
            format!("({name}=*)")
        }
        Condition::StartsWith((_, start)) if start.is_empty() => {
            return Err("everything starts with nothing: use present".to_owned());
        }
        Condition::StartsWith((name, start)) => {
            open_attribute(name)?;
            format!("({name}={}*)", ldap3::ldap_escape(start.as_str()))
        }
    })
}

fn no_directory() -> LdapError {
    LdapError::Denied("this call has no directory".to_owned())
}

fn size_of_name(name: &Name) -> usize {
    name.base.len() + name.rdns.iter().map(|(attribute, value)| 16 + attribute.len() + value.len()).sum::<usize>()
}

fn size_of_value(value: &Value) -> usize {
    8 + match value {
        Value::Text(text) => text.len(),
        Value::Name(name) => size_of_name(name),
        Value::GeneralizedTime(_) | Value::FileTime(_) | Value::Secret(_) => 8,
    }
}

fn size_of_attribute(attribute: &Attribute) -> usize {
    attribute.name.len() + attribute.values.iter().map(size_of_value).sum::<usize>()
}

fn size_of_condition(condition: &Condition) -> usize {
    8 + match condition {
        Condition::Equals((name, value)) | Condition::AtLeast((name, value)) => name.len() + size_of_value(value),
        Condition::StartsWith((name, start)) => name.len() + start.len(),
        Condition::Present(name) => name.len(),
    }
}

#[cfg(test)]
mod tests;
