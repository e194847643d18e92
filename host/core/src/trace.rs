//! For whom a call to a backend is made, so that the backend's own log and a trace can name it.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use crate::id::{LeaseId, RequestId};

/// A place in a trace (W3C Trace Context, section 3.2): which trace, and which of its spans is the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: NonZeroU128,
    /// The span that what comes next belongs to.
    pub parent: NonZeroU64,
    /// Whether the caller keeps what it traces.
    pub sampled: bool,
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: expected version, trace id, parent id and flags in hexadecimal (W3C Trace Context)")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// A later version may say more after the flags; what is known of it is read.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut parts = text.splitn(5, '-');
        let mut part = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length).ok_or(NoTraceParent)?;
            let lower = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if lower { Ok(part) } else { Err(NoTraceParent) }
        };
        let version = part(2)?;
        let trace = u128::from_str_radix(part(32)?, 16).ok().and_then(NonZeroU128::new).ok_or(NoTraceParent)?;
        let parent = u64::from_str_radix(part(16)?, 16).ok().and_then(NonZeroU64::new).ok_or(NoTraceParent)?;
        let flags = u8::from_str_radix(part(2)?, 16).map_err(|_| NoTraceParent)?;
        let more = parts.next().is_some();
        if version == "ff" || (version == "00" && more) {
            return Err(NoTraceParent);
        }
        Ok(Self { trace, parent, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, u8::from(self.sampled))
    }
}

#[derive(Debug, Clone)]
enum Who {
    Request(RequestId),
    Lease(LeaseId),
}

/// For whom a call to a backend is made.
#[derive(Debug, Clone, Default)]
pub struct OnBehalf {
    who: Option<Who>,
    /// The trace that the call belongs to.
    pub trace: Option<TraceParent>,
}

impl OnBehalf {
    /// For a request.
    #[must_use]
    pub fn of_request(id: &RequestId) -> Self {
        Self { who: Some(Who::Request(id.clone())), trace: None }
    }

    /// For the end of a lease, which no request waits for.
    #[must_use]
    pub fn of_lease(id: &LeaseId) -> Self {
        Self { who: Some(Who::Lease(id.clone())), trace: None }
    }

    /// The request's or the lease's id: lower-case letters, digits and one `_`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.who.as_ref().map(|who| match who {
            Who::Request(id) => id.as_str(),
            Who::Lease(id) => id.as_str(),
        })
    }

    /// The request, if it is one.
    #[must_use]
    pub fn request(&self) -> Option<&RequestId> {
        match &self.who {
            Some(Who::Request(id)) => Some(id),
            Some(Who::Lease(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written_as_the_standard_says() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read: TraceParent = text.parse().unwrap();
        assert!(read.sampled);
        assert_eq!(read.to_string(), text);
        let later: TraceParent = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes".parse().unwrap();
        assert_eq!((later.trace, later.sampled), (read.trace, false));
    }

    #[test]
    fn anything_else_is_none() {
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(NoTraceParent), "{wrong}");
        }
    }

    #[test]
    fn the_id_is_safe_in_any_place() {
        let now = Timestamp::now();
        for asked in [OnBehalf::of_request(&RequestId::generate(now)), OnBehalf::of_lease(&LeaseId::generate(now))] {
            let id = asked.id().unwrap();
            assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{id}");
            assert!(id.len() <= 40);
        }
        assert_eq!(OnBehalf::default().id(), None);
    }
}
