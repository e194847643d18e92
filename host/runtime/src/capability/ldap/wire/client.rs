//! One connection to a directory: requests out, answers in, one at a time.
//!
//! A client knows whether a change that it has sent is still without an answer. What it has in
//! memory of the server's is bounded for each answer; a server that says more is cut off.

use std::future::Future as _;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::ber::{self, Malformed};
use super::tls::Tls;
use super::{Answer, Octets, RawEntry, Request, SUCCESS, Said};

/// Most bytes of an answer that holds no entries.
const ANSWER: usize = 1 << 20;

/// Bytes that the end of a search may take beside its entries.
const SLACK: usize = 64 << 10;

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Most answers that a request may have beside its entries: references, progress.
const ASIDES: usize = 10_000;

/// How a connection is made.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
}

/// How a connection is protected.
#[derive(Clone)]
pub(crate) enum Security {
    /// TLS from the first byte.
    Ldaps(Tls),
    /// TLS before anything else is said.
    StartTls(Tls),
    /// None, to this machine only.
    Loopback,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server closed the connection: {message} (LDAP result {code})")]
    Notice { code: u32, message: String },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("an answer of the server has more than {0} bytes")]
    TooLong(usize),
    #[error("the server does not begin TLS: {message} (LDAP result {code})")]
    NoTls { code: u32, message: String },
    #[error("{0} is not an address of this machine, and the connection is not encrypted")]
    NotLoopback(IpAddr),
    #[error("the server said something before TLS began")]
    SaidTooMuch,
    #[error("the server gives references without end")]
    Endless,
}

/// What bytes go over.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// The connection beneath.
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What was sent and has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// Not all of it: the server cannot act on it.
    Part,
    /// A change, all of it.
    Change(i32),
    /// Something that changes nothing.
    Other,
}

/// A connection.
pub(crate) struct Client {
    stream: Box<dyn Transport>,
    input: Vec<u8>,
    last_id: i32,
    pending: Pending,
    opened: Instant,
}

impl Client {
    /// Connects, and begins TLS where the place says so. Not bound.
    pub(crate) async fn open(place: &Place) -> Result<Self, Lost> {
        let tcp = TcpStream::connect((place.host.as_str(), place.port)).await?;
        tcp.set_nodelay(true)?;
        match &place.security {
            Security::Ldaps(tls) => Ok(Self::new(tls.connector.connect(tls.name.clone(), tcp).await?)),
            Security::StartTls(tls) => {
                let tcp = start_tls(tcp).await?;
                Ok(Self::new(tls.connector.connect(tls.name.clone(), tcp).await?))
            }
            Security::Loopback => match tcp.peer_addr()?.ip() {
                address if address.to_canonical().is_loopback() => Ok(Self::new(tcp)),
                address => Err(Lost::NotLoopback(address)),
            },
        }
    }

    fn new(stream: impl Transport + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            input: Vec::new(),
            last_id: 0,
            pending: Pending::Nothing,
            opened: Instant::now(),
        }
    }

    /// Says who we are.
    pub(crate) async fn bind(&mut self, name: &str, password: Octets) -> Result<Answer, Lost> {
        self.ask(&Request::Bind { name: name.to_owned(), password }).await
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Answer, Lost> {
        let id = self.send(request).await?;
        for _ in 0..ASIDES {
            if let (Said::Answer(answer), _) = self.next(request, id, ANSWER).await? {
                return Ok(answer);
            }
        }
        Err(Lost::Endless)
    }

    /// Sends one page of a search. Each entry is given to `keep`, with the bytes that it came in; it
    /// gives how many more bytes of entries are wanted, or none to stop. `None` when it stopped.
    pub(crate) async fn search(
        &mut self,
        request: &Request,
        mut room: usize,
        keep: &mut (dyn FnMut(RawEntry, usize) -> Option<usize> + Send),
    ) -> Result<Option<Answer>, Lost> {
        let id = self.send(request).await?;
        let mut asides = 0;
        loop {
            // The last answer comes even when there is no more room.
            let (said, length) = self.next(request, id, room.saturating_add(SLACK)).await?;
            match said {
                Said::Answer(answer) => return Ok(Some(answer)),
                Said::Aside if asides < ASIDES => asides += 1,
                Said::Aside => return Err(Lost::Endless),
                Said::Entry(entry) => match keep(entry, length) {
                    Some(left) => room = left,
                    None => return Ok(None),
                },
            }
        }
    }

    async fn send(&mut self, request: &Request) -> Result<i32, Lost> {
        // 0 is the server's own.
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = self.last_id;
        let message = request.encode(id);
        self.pending = Pending::Part;
        self.stream.write_all(&message).await?;
        // All of it may now be on its way, flushed or not.
        self.pending = if request.is_change() { Pending::Change(id) } else { Pending::Other };
        self.stream.flush().await?;
        Ok(id)
    }

    /// The next thing that the server says to a request, and how many bytes that took.
    async fn next(&mut self, request: &Request, id: i32, most: usize) -> Result<(Said, usize), Lost> {
        let length = self.message(most).await?;
        let (of, rest) = super::decode(&self.input[..length])?;
        if of == 0 {
            return Err(match super::notice(rest) {
                Some(Answer { code, message, .. }) => Lost::Notice { code, message },
                None => Lost::Closed,
            });
        }
        // One request at a time: an answer to another one is nobody's.
        if i64::from(of) != i64::from(id) {
            return Err(Lost::Malformed(Malformed));
        }
        let said = request.understand(rest)?;
        self.input.drain(..length);
        if matches!(said, Said::Answer(_)) {
            self.pending = Pending::Nothing;
        }
        Ok((said, length))
    }

    async fn message(&mut self, most: usize) -> Result<usize, Lost> {
        read_message(&mut *self.stream, &mut self.input, most).await
    }

    /// Whether a change was sent that has no answer yet.
    pub(crate) fn has_unanswered_change(&self) -> bool {
        matches!(self.pending, Pending::Change(_))
    }

    /// Whether the server cannot act on what was sent last: the end of it is still here.
    pub(crate) fn is_unsent(&self) -> bool {
        self.pending == Pending::Part
    }

    /// Waits for the answer to the change that has none, whatever it is; an error when none will come.
    pub(crate) async fn await_answer(&mut self) -> Result<(), Lost> {
        while let Pending::Change(id) = self.pending {
            let length = self.message(ANSWER).await?;
            let (of, _) = super::decode(&self.input[..length])?;
            self.input.drain(..length);
            if of == 0 {
                return Err(Lost::Closed);
            }
            if i64::from(of) == i64::from(id) {
                self.pending = Pending::Nothing;
            }
        }
        Ok(())
    }

    /// Everything sent has been answered and nothing else was said.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.pending == Pending::Nothing && self.input.is_empty()
    }

    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Says goodbye, where that takes no waiting.
    fn unbind(&mut self) {
        let message = super::unbind(self.last_id.checked_add(1).unwrap_or(1));
        let mut context = Context::from_waker(Waker::noop());
        let stream = &mut self.stream;
        let goodbye = async move {
            stream.write_all(&message).await?;
            stream.flush().await
        };
        let _ = pin!(goodbye).poll(&mut context);
    }
}

/// Agrees with the server that TLS begins.
async fn start_tls(mut tcp: TcpStream) -> Result<TcpStream, Lost> {
    let request = Request::StartTls;
    tcp.write_all(&request.encode(1)).await?;
    let mut input = Vec::new();
    let length = read_message(&mut tcp, &mut input, ANSWER).await?;
    let (of, rest) = super::decode(&input[..length])?;
    let Said::Answer(answer) = request.understand(rest)? else { return Err(Lost::Malformed(Malformed)) };
    if of != 1 {
        return Err(Lost::Malformed(Malformed));
    }
    if answer.code != SUCCESS {
        return Err(Lost::NoTls { code: answer.code, message: answer.message });
    }
    // What came before TLS, nobody vouches for.
    if input.len() > length { Err(Lost::SaidTooMuch) } else { Ok(tcp) }
}

/// Reads until a whole message is at the beginning of the input; gives its length. Can be dropped
/// and called again.
async fn read_message<S>(stream: &mut S, input: &mut Vec<u8>, most: usize) -> Result<usize, Lost>
where
    S: AsyncRead + Unpin + ?Sized,
{
    loop {
        if input.first().is_some_and(|tag| *tag != ber::SEQUENCE) {
            return Err(Lost::Malformed(Malformed));
        }
        if let Some((start, length)) = ber::header(input)? {
            let end = start.saturating_add(length);
            if end > most {
                return Err(Lost::TooLong(most));
            }
            if input.len() >= end {
                return Ok(end);
            }
        }
        input.reserve(CHUNK);
        if stream.read_buf(input).await? == 0 {
            return Err(Lost::Closed);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.pending == Pending::Nothing {
            self.unbind();
            return;
        }
        // What still waits in this machine must not be sent any more: without this, the kernel would
        // go on trying to deliver a change for minutes, long after its account was removed.
        let _ = self.stream.tcp().set_zero_linger();
    }
}
