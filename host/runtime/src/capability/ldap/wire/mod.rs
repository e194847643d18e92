//! LDAP's messages (RFC 4511): requests as bytes, and what a server answers.
//!
//! Filters and values are written as elements, never as text: nothing in them can be taken for
//! syntax. Only distinguished names are texts, see [`super::name`].

use zeroize::Zeroizing;

pub(crate) mod ber;
pub(crate) mod client;
pub(crate) mod tls;

use ber::{ENUMERATED, HEADER, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, SET, Writer};

/// Result codes (RFC 4511, appendix A.2).
pub(crate) const SUCCESS: u32 = 0;
pub(crate) const SIZE_LIMIT_EXCEEDED: u32 = 4;
pub(crate) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
pub(crate) const INVALID_CREDENTIALS: u32 = 49;

/// StartTLS (RFC 4511, section 4.14).
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// Refresh (RFC 2589).
const REFRESH: &str = "1.3.6.1.4.1.1466.101.119.1";
/// Simple paged results (RFC 2696).
const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";

/// Tags of the protocol's operations.
const BIND: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND: u8 = 0x42;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const MODIFY: u8 = 0x66;
const MODIFY_RESPONSE: u8 = 0x67;
const ADD: u8 = 0x68;
const ADD_RESPONSE: u8 = 0x69;
const DELETE: u8 = 0x4a;
const DELETE_RESPONSE: u8 = 0x6b;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const INTERMEDIATE: u8 = 0x79;
const CONTROLS: u8 = 0xa0;

/// A value as it is sent.
pub(crate) type Octets = Zeroizing<Vec<u8>>;

/// An attribute with its values.
pub(crate) struct Values {
    pub(crate) name: String,
    pub(crate) values: Vec<Octets>,
}

/// A change of an attribute: 0 adds, 1 deletes, 2 replaces.
pub(crate) struct Modification {
    pub(crate) kind: i64,
    pub(crate) values: Values,
}

/// A condition of a filter.
pub(crate) enum Filter {
    Equals(String, Octets),
    StartsWith(String, String),
    Present(String),
    AtLeast(String, Octets),
}

/// A search, a page at a time.
pub(crate) struct Search {
    pub(crate) base: String,
    /// 0 base, 1 one level, 2 subtree.
    pub(crate) scope: i64,
    pub(crate) filter: Vec<Filter>,
    pub(crate) attributes: Vec<String>,
    /// Entries that the server gives at most.
    pub(crate) size_limit: u32,
    /// Seconds that the server may take.
    pub(crate) time_limit: u32,
}

/// A request.
pub(crate) enum Request {
    Bind { name: String, password: Octets },
    Add { name: String, attributes: Vec<Values> },
    Modify { name: String, changes: Vec<Modification> },
    Delete { name: String },
    Search { search: Search, page: u32, cookie: Vec<u8> },
    Refresh { name: String, seconds: u32 },
    StartTls,
}

impl Request {
    /// The whole message.
    pub(crate) fn encode(&self, id: i32) -> Octets {
        let mut writer = Writer::with_room(64 + self.room());
        writer.constructed(SEQUENCE, |w| {
            w.integer(INTEGER, i64::from(id));
            self.write(w);
        });
        writer.finish()
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::Bind { name, password } => w.constructed(BIND, |w| {
                w.integer(INTEGER, 3);
                w.octets(OCTETS, name.as_bytes());
                w.octets(0x80, password);
            }),
            Self::Add { name, attributes } => w.constructed(ADD, |w| {
                w.octets(OCTETS, name.as_bytes());
                w.constructed(SEQUENCE, |w| attributes.iter().for_each(|values| write_values(w, values)));
            }),
            Self::Modify { name, changes } => w.constructed(MODIFY, |w| {
                w.octets(OCTETS, name.as_bytes());
                w.constructed(SEQUENCE, |w| {
                    for change in changes {
                        w.constructed(SEQUENCE, |w| {
                            w.integer(ENUMERATED, change.kind);
                            write_values(w, &change.values);
                        });
                    }
                });
            }),
            Self::Delete { name } => w.octets(DELETE, name.as_bytes()),
            Self::Search { search, page, cookie } => {
                write_search(w, search);
                w.constructed(CONTROLS, |w| {
                    // Not critical: a server without it gives all that the size limit leaves.
                    w.constructed(SEQUENCE, |w| {
                        w.octets(OCTETS, PAGED_RESULTS.as_bytes());
                        let mut value = Writer::with_room(32 + cookie.len());
                        value.constructed(SEQUENCE, |w| {
                            w.integer(INTEGER, i64::from(*page));
                            w.octets(OCTETS, cookie);
                        });
                        w.octets(OCTETS, &value.finish());
                    });
                });
            }
            Self::Refresh { name, seconds } => w.constructed(EXTENDED, |w| {
                w.octets(0x80, REFRESH.as_bytes());
                let mut value = Writer::with_room(32 + name.len());
                value.constructed(SEQUENCE, |w| {
                    w.octets(0x80, name.as_bytes());
                    w.integer(0x81, i64::from(*seconds));
                });
                w.octets(0x81, &value.finish());
            }),
            Self::StartTls => w.constructed(EXTENDED, |w| w.octets(0x80, START_TLS.as_bytes())),
        }
    }

    /// About how many bytes it takes: enough where it holds a secret.
    fn room(&self) -> usize {
        let values = |values: &Values| {
            values.name.len() + 3 * HEADER + values.values.iter().map(|value| value.len() + HEADER).sum::<usize>()
        };
        match self {
            Self::Bind { name, password } => name.len() + password.len() + 4 * HEADER,
            Self::Add { name, attributes } => name.len() + attributes.iter().map(values).sum::<usize>(),
            Self::Modify { name, changes } => {
                name.len() + changes.iter().map(|change| values(&change.values) + 2 * HEADER).sum::<usize>()
            }
            _ => 256,
        }
    }

    /// Whether the directory may be another one after it.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self, Self::Add { .. } | Self::Modify { .. } | Self::Delete { .. } | Self::Refresh { .. })
    }

    fn answered_by(&self) -> u8 {
        match self {
            Self::Bind { .. } => BIND_RESPONSE,
            Self::Add { .. } => ADD_RESPONSE,
            Self::Modify { .. } => MODIFY_RESPONSE,
            Self::Delete { .. } => DELETE_RESPONSE,
            Self::Search { .. } => SEARCH_DONE,
            Self::Refresh { .. } | Self::StartTls => EXTENDED_RESPONSE,
        }
    }
}

/// Ends the connection (RFC 4511, section 4.3).
pub(crate) fn unbind(id: i32) -> Octets {
    let mut writer = Writer::with_room(16);
    writer.constructed(SEQUENCE, |w| {
        w.integer(INTEGER, i64::from(id));
        w.octets(UNBIND, &[]);
    });
    writer.finish()
}

fn write_values(w: &mut Writer, values: &Values) {
    w.constructed(SEQUENCE, |w| {
        w.octets(OCTETS, values.name.as_bytes());
        w.constructed(SET, |w| values.values.iter().for_each(|value| w.octets(OCTETS, value)));
    });
}

fn write_search(w: &mut Writer, search: &Search) {
    w.constructed(SEARCH, |w| {
        w.octets(OCTETS, search.base.as_bytes());
        w.integer(ENUMERATED, search.scope);
        // Aliases are not followed: they lead out of the subtree that was asked for.
        w.integer(ENUMERATED, 0);
        w.integer(INTEGER, i64::from(search.size_limit));
        w.integer(INTEGER, i64::from(search.time_limit));
        w.boolean(false);
        w.constructed(0xa0, |w| search.filter.iter().for_each(|filter| write_filter(w, filter)));
        w.constructed(SEQUENCE, |w| search.attributes.iter().for_each(|name| w.octets(OCTETS, name.as_bytes())));
    });
}

fn write_filter(w: &mut Writer, filter: &Filter) {
    let assertion = |w: &mut Writer, tag, name: &str, value: &[u8]| {
        w.constructed(tag, |w| {
            w.octets(OCTETS, name.as_bytes());
            w.octets(OCTETS, value);
        });
    };
    match filter {
        Filter::Equals(name, value) => assertion(w, 0xa3, name, value),
        Filter::AtLeast(name, value) => assertion(w, 0xa5, name, value),
        Filter::Present(name) => w.octets(0x87, name.as_bytes()),
        Filter::StartsWith(name, start) => w.constructed(0xa4, |w| {
            w.octets(OCTETS, name.as_bytes());
            w.constructed(SEQUENCE, |w| w.octets(0x80, start.as_bytes()));
        }),
    }
}

/// A result: the last answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u32,
    pub(crate) message: String,
    /// An extended operation's value.
    pub(crate) value: Option<Vec<u8>>,
    /// Where the next page of a search begins; none at its end.
    pub(crate) cookie: Option<Vec<u8>>,
}

/// What the server says in the course of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// An entry: its name, its attributes and their values, as they are.
    Entry(RawEntry),
    /// A search goes on elsewhere, where we do not follow; or a progress report.
    Aside,
    Answer(Answer),
}

/// An entry as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

/// Reads a message: whose it is (0: nobody's, the server is about to close) and its rest.
pub(crate) fn decode(message: &[u8]) -> Result<(u32, Reader<'_>), Malformed> {
    let mut outer = Reader::new(message);
    let mut message = outer.nested(SEQUENCE)?;
    let id = message.number(INTEGER)?;
    Ok((id, message))
}

impl Request {
    /// What the rest of a message says to this request.
    pub(crate) fn understand(&self, mut rest: Reader<'_>) -> Result<Said, Malformed> {
        let (tag, content) = rest.any()?;
        match tag {
            ENTRY if matches!(self, Self::Search { .. }) => entry(content).map(Said::Entry),
            REFERENCE if matches!(self, Self::Search { .. }) => Ok(Said::Aside),
            INTERMEDIATE => Ok(Said::Aside),
            tag if tag == self.answered_by() => {
                let mut answer = answer(content)?;
                if let Some(controls) = rest.optional(CONTROLS)? {
                    answer.cookie = cookie(controls)?;
                }
                Ok(Said::Answer(answer))
            }
            _ => Err(Malformed),
        }
    }
}

/// The text of a message that is nobody's answer: the server's reason to close.
pub(crate) fn notice(mut rest: Reader<'_>) -> Option<Answer> {
    answer(rest.element(EXTENDED_RESPONSE).ok()?).ok()
}

fn answer(content: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = Reader::new(content);
    let code = reader.number(ENUMERATED)?;
    reader.element(OCTETS)?;
    let message = String::from_utf8_lossy(reader.element(OCTETS)?).into_owned();
    let mut value = None;
    while !reader.is_empty() {
        // Referrals (0xa3), SASL's (0x87) and an extended operation's name (0x8a) are not used.
        if let (0x8b, content) = reader.any()? {
            value = Some(content.to_vec());
        }
    }
    Ok(Answer { code, message, value, cookie: None })
}

fn entry(content: &[u8]) -> Result<RawEntry, Malformed> {
    let mut reader = Reader::new(content);
    let name = reader.element(OCTETS)?.to_vec();
    let mut list = reader.nested(SEQUENCE)?;
    let mut attributes = Vec::new();
    while !list.is_empty() {
        let mut attribute = list.nested(SEQUENCE)?;
        let name = attribute.element(OCTETS)?.to_vec();
        let mut set = attribute.nested(SET)?;
        let mut values = Vec::new();
        while !set.is_empty() {
            values.push(set.element(OCTETS)?.to_vec());
        }
        attributes.push((name, values));
    }
    Ok(RawEntry { name, attributes })
}

/// The paged results' cookie; none when it is empty, or when the server does not page.
fn cookie(controls: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut controls = Reader::new(controls);
    while !controls.is_empty() {
        let mut control = controls.nested(SEQUENCE)?;
        if control.element(OCTETS)? != PAGED_RESULTS.as_bytes() {
            continue;
        }
        control.optional(ber::BOOLEAN)?;
        let mut value = Reader::new(control.element(OCTETS)?);
        let mut value = value.nested(SEQUENCE)?;
        value.element(INTEGER)?;
        let cookie = value.element(OCTETS)?;
        return Ok((!cookie.is_empty()).then(|| cookie.to_vec()));
    }
    Ok(None)
}

/// The time that a refresh set, in seconds.
pub(crate) fn refreshed(answer: &Answer) -> Option<u32> {
    let mut value = Reader::new(answer.value.as_deref()?);
    value.nested(SEQUENCE).ok()?.number(0x81).ok()
}

#[cfg(test)]
mod tests;
