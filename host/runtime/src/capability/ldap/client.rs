//! One connection to a directory, by way of `ldap3`: one request at a time.
//!
//! The rest of the capability knows nothing of that library. What it does not do, this module makes up
//! for where it can: a panic of its reader (some malformed answers cause one) ends the connection and
//! nothing else, and a change whose answer nobody waits for any more goes on being listened to.
//!
//! What cannot be made up for: the library reads whatever a server sends, however long it is, and does
//! not wipe the memory that held a password. A directory is trusted with both.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ldap3::controls::{Control, ControlType, PagedResults, RawControl};
use ldap3::{DerefAliases, Ldap, LdapConnAsync, LdapConnSettings, LdapError, SearchOptions, StdStream};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use url::Url;

use super::request::{Answer, Octets, RawEntry, Request, Search};

/// Most references and reports that a search may have beside its entries.
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
    Ldaps(Arc<ClientConfig>),
    /// TLS before anything else is said.
    StartTls(Arc<ClientConfig>),
    /// None, to this machine only.
    Loopback,
    /// None, to another machine: an operator says that something else protects the way.
    Plain,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Protocol(String),
    #[error("the server sent something that is not LDAP")]
    Malformed,
    #[error("the entries have more than the {0} bytes that are left")]
    TooLong(usize),
    #[error("{0} is not an address of this machine, and the connection is not encrypted")]
    NotLoopback(IpAddr),
}

impl From<LdapError> for Lost {
    fn from(error: LdapError) -> Self {
        match error {
            LdapError::Io { source } => Self::Io(source),
            LdapError::OpSend { .. } | LdapError::ResultRecv { .. } | LdapError::EndOfStream => Self::Closed,
            // None of the others holds anything of a request.
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// A connection.
pub(crate) struct Client {
    ldap: Ldap,
    driver: AbortHandle,
    /// The library's socket, to reset it.
    socket: std::net::TcpStream,
    /// A request without an answer.
    running: Option<Running>,
    is_lost: bool,
    opened: Instant,
}

struct Running {
    task: JoinHandle<Result<Answer, LdapError>>,
    is_change: bool,
}

/// One page of a search.
pub(crate) struct Page {
    pub(crate) entries: Vec<RawEntry>,
    pub(crate) bytes: usize,
    /// None when it was stopped, with enough entries.
    pub(crate) answer: Option<Answer>,
    /// Where the next page begins; none at the end.
    pub(crate) cookie: Option<Vec<u8>>,
}

impl Client {
    /// Connects, and begins TLS where the place says so. Not bound.
    pub(crate) async fn open(place: &Place) -> Result<Self, Lost> {
        let tcp = TcpStream::connect((place.host.as_str(), place.port)).await?;
        tcp.set_nodelay(true)?;
        let mut settings = LdapConnSettings::new();
        let scheme = match &place.security {
            Security::Ldaps(tls) => {
                settings = settings.set_config(Arc::clone(tls));
                "ldaps"
            }
            Security::StartTls(tls) => {
                settings = settings.set_config(Arc::clone(tls)).set_starttls(true);
                "ldap"
            }
            Security::Plain => "ldap",
            Security::Loopback => match tcp.peer_addr()?.ip() {
                address if address.to_canonical().is_loopback() => "ldap",
                address => return Err(Lost::NotLoopback(address)),
            },
        };
        let tcp = tcp.into_std()?;
        let socket = tcp.try_clone()?;
        let settings = settings.set_std_stream(StdStream::Tcp(tcp));
        // Only its scheme and host are looked at: the stream is there.
        let host = &place.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let url = Url::parse(&format!("{scheme}://{host}")).map_err(|_| Lost::Malformed)?;
        let opening = async move { LdapConnAsync::from_url_with_settings(settings, &url).await };
        let (connection, ldap) = contained(opening).await??;
        let driver = tokio::spawn(async move {
            // What went wrong is told by the request that gets no answer.
            let _ = connection.drive().await;
        });
        Ok(Self { ldap, driver: driver.abort_handle(), socket, running: None, is_lost: false, opened: Instant::now() })
    }

    /// Says who we are.
    pub(crate) async fn bind(&mut self, name: &str, password: Octets) -> Result<Answer, Lost> {
        self.ask(Request::Bind { name: name.to_owned(), password }).await
    }

    /// Sends a request and waits for its answer. Dropped, the request goes on, see
    /// [`Client::await_answer`].
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Answer, Lost> {
        let is_change = request.is_change();
        let task = tokio::spawn(request.perform(self.ldap.clone()));
        let running = self.running.insert(Running { task, is_change });
        let answer = (&mut running.task).await;
        self.settle(answer)
    }

    fn settle(&mut self, answered: Result<Result<Answer, LdapError>, tokio::task::JoinError>) -> Result<Answer, Lost> {
        match answered {
            Ok(Ok(answer)) => {
                self.running = None;
                Ok(answer)
            }
            // The library's task was gone before it took the request.
            Ok(Err(LdapError::OpSend { .. })) => {
                (self.running, self.is_lost) = (None, true);
                Err(Lost::Closed)
            }
            Ok(Err(error)) => {
                self.is_lost = true;
                Err(error.into())
            }
            Err(_) => {
                self.is_lost = true;
                Err(Lost::Malformed)
            }
        }
    }

    /// Asks for one page of a search: at most `most` entries in at most `room` bytes.
    pub(crate) async fn search(
        &mut self,
        search: &Search,
        page: u32,
        cookie: Vec<u8>,
        most: usize,
        room: usize,
    ) -> Result<Page, Lost> {
        let was_lost = std::mem::replace(&mut self.is_lost, true);
        let found = contained(page_of(self.ldap.clone(), search.clone(), page, cookie, most, room)).await?;
        // Stopped or failed, entries are still on their way.
        self.is_lost = was_lost || !matches!(&found, Ok(page) if page.answer.is_some());
        found
    }

    /// Whether a change was sent that has no answer.
    pub(crate) fn has_unanswered_change(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_change)
    }

    /// Waits for the answer to the change that has none, whatever it is; an error when none will come.
    pub(crate) async fn await_answer(&mut self) -> Result<(), Lost> {
        match &mut self.running {
            None => Ok(()),
            Some(_) if self.is_lost => Err(Lost::Closed),
            Some(running) => {
                let answer = (&mut running.task).await;
                self.settle(answer).map(drop)
            }
        }
    }

    /// Everything sent has been answered, and the connection is there.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.running.is_none() && !self.is_lost && !self.driver.is_finished()
    }

    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_at_rest() {
            // What still waits in this machine must not be sent any more: without this, the kernel would
            // go on trying to deliver a change for minutes, long after its account was removed.
            let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
        self.driver.abort();
    }
}

/// Runs what may panic on a task of its own, which ends with this future.
async fn contained<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Lost> {
    struct Ended<T>(JoinHandle<T>);
    impl<T> Drop for Ended<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let mut task = Ended(tokio::spawn(work));
    (&mut task.0).await.map_err(|_| Lost::Malformed)
}

async fn page_of(
    mut ldap: Ldap,
    search: Search,
    page: u32,
    cookie: Vec<u8>,
    most: usize,
    room: usize,
) -> Result<Page, Lost> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    // Aliases are not followed: they lead out of the subtree that was asked for.
    let options = SearchOptions::new()
        .deref(DerefAliases::Never)
        .sizelimit(number(search.size_limit))
        .timelimit(number(search.time_limit));
    // Not critical: a server without it gives all that the size limit leaves.
    let paged: RawControl = PagedResults { size: number(page), cookie }.into();
    ldap.with_search_options(options).with_controls(paged);
    let mut stream = ldap.streaming_search(&search.base, search.scope, &search.filter, search.attributes).await?;
    let (mut entries, mut bytes, mut asides) = (Vec::new(), 0_usize, 0);
    while let Some(found) = stream.next().await? {
        if found.is_ref() || found.is_intermediate() {
            asides += 1;
            if asides > ASIDES {
                return Err(Lost::Protocol("the server gives references without end".to_owned()));
            }
            continue;
        }
        let entry = RawEntry::read(found.0).ok_or(Lost::Malformed)?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > room {
            return Err(Lost::TooLong(room));
        }
        if entries.len() >= most {
            return Ok(Page { entries, bytes, answer: None, cookie: None });
        }
        entries.push(entry);
    }
    let result = stream.finish().await;
    let cookie = result.ctrls.iter().find_map(|Control(kind, raw)| match kind {
        Some(ControlType::PagedResults) => Some(raw.parse::<PagedResults>().cookie),
        _ => None,
    });
    let cookie = cookie.filter(|cookie| !cookie.is_empty());
    Ok(Page { entries, bytes, answer: Some(Answer::of(result)), cookie })
}
