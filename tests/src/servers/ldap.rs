//! Enough LDAP (RFC 4511) to look at a directory and to log in to it. Each operation gives the server's
//! result code; only a lost connection is an error.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use url::Url;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest message that is read, in bytes.
const MAX_MESSAGE: usize = 4 << 20;
/// The most messages that one search may give.
const MAX_MESSAGES: usize = 10_000;

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    /// The entry itself.
    Base = 0,
    /// Its children.
    One = 1,
    /// It and everything below.
    Subtree = 2,
}

/// What a modification does with an attribute's values.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Adds them.
    Add = 0,
    /// Takes them away.
    Delete = 1,
    /// Puts them in the place of all.
    Replace = 2,
}

/// An entry: its name, and its attributes' values as text.
pub type Entry = (String, Vec<(String, Vec<String>)>);

/// A connection with TLS.
pub struct Directory {
    stream: StreamOwned<ClientConnection, TcpStream>,
    last_id: u8,
}

impl Directory {
    /// Connects to `ldaps://host[:port]`, or to `ldap://host[:port]` with StartTLS. The certificate has
    /// to be signed by that authority and to name the host.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn connect(url: &str, authority: &Path) -> Result<Self> {
        let url = Url::parse(url)?;
        let start_tls = url.scheme() == "ldap";
        let host = url.host_str().context("no host")?.to_owned();
        let port = url.port().unwrap_or(if start_tls { 389 } else { 636 });
        let mut tcp = TcpStream::connect((host.as_str(), port))?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        if start_tls {
            let request = tlv(0x77, &tlv(0x80, b"1.3.6.1.4.1.1466.20037"));
            tcp.write_all(&message(1, &request))?;
            let (tag, body) = read_message(&mut tcp)?;
            ensure!(tag == 0x78 && code(&body)? == 0, "StartTLS is refused");
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(host)?)?;
        let mut directory = Self { stream: StreamOwned::new(connection, tcp), last_id: 1 };
        directory.stream.conn.complete_io(&mut directory.stream.sock).context("TLS")?;
        Ok(directory)
    }

    /// Logs in with a name and a password.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn bind(&mut self, name: &str, password: &str) -> Result<u32> {
        let body = [tlv(0x02, &[3]), tlv(0x04, name.as_bytes()), tlv(0x80, password.as_bytes())].concat();
        self.ask(&tlv(0x60, &body))
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn add(&mut self, name: &str, attributes: &[(&str, &[&[u8]])]) -> Result<u32> {
        let attributes: Vec<u8> = attributes.iter().flat_map(|(name, values)| attribute(name, values)).collect();
        self.ask(&tlv(0x68, &[tlv(0x04, name.as_bytes()), tlv(0x30, &attributes)].concat()))
    }

    /// Changes one attribute of an entry.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn modify(&mut self, name: &str, change: Change, changed: &str, values: &[&[u8]]) -> Result<u32> {
        let change = tlv(0x30, &[tlv(0x0a, &[change as u8]), attribute(changed, values)].concat());
        self.ask(&tlv(0x66, &[tlv(0x04, name.as_bytes()), tlv(0x30, &change)].concat()))
    }

    /// Gives an entry another name, in the same place or below another entry.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn rename(&mut self, name: &str, new_name: &str, below: Option<&str>) -> Result<u32> {
        let below = below.map(|below| tlv(0x80, below.as_bytes())).unwrap_or_default();
        // The old name goes.
        let body = [tlv(0x04, name.as_bytes()), tlv(0x04, new_name.as_bytes()), tlv(0x01, &[0xff]), below].concat();
        self.ask(&tlv(0x6c, &body))
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn delete(&mut self, name: &str) -> Result<u32> {
        self.ask(&tlv(0x4a, name.as_bytes()))
    }

    /// The entries that have `present` (`objectClass`: all), with the attributes named; and the result code.
    ///
    /// # Errors
    /// When the connection is lost or what comes is no LDAP.
    pub fn search(
        &mut self,
        base: &str,
        scope: Scope,
        present: &str,
        attributes: &[&str],
    ) -> Result<(u32, Vec<Entry>)> {
        let attributes: Vec<u8> = attributes.iter().flat_map(|name| tlv(0x04, name.as_bytes())).collect();
        let request = [
            tlv(0x04, base.as_bytes()),
            tlv(0x0a, &[scope as u8]),
            tlv(0x0a, &[0]),
            tlv(0x02, &[0]),
            tlv(0x02, &[0]),
            tlv(0x01, &[0]),
            tlv(0x87, present.as_bytes()),
            tlv(0x30, &attributes),
        ];
        self.send(&tlv(0x63, &request.concat()))?;
        let mut entries = Vec::new();
        for _ in 0..MAX_MESSAGES {
            let (tag, body) = read_message(&mut self.stream)?;
            match tag {
                0x64 => entries.push(entry(&body)?),
                0x65 => return Ok((code(&body)?, entries)),
                _ => {}
            }
        }
        bail!("more than {MAX_MESSAGES} answers to one search")
    }

    /// The values of one attribute of one entry; empty when there is no such thing.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn values(&mut self, name: &str, attribute: &str) -> Result<Vec<String>> {
        let (_, entries) = self.search(name, Scope::Base, "objectClass", &[attribute])?;
        Ok(entries.into_iter().flat_map(|(_, attributes)| attributes).flat_map(|(_, values)| values).collect())
    }

    fn send(&mut self, operation: &[u8]) -> Result<()> {
        // Starts again at 1: only one operation is under way at a time.
        self.last_id = self.last_id % 100 + 1;
        Ok(self.stream.write_all(&message(self.last_id, operation))?)
    }

    fn ask(&mut self, operation: &[u8]) -> Result<u32> {
        self.send(operation)?;
        let (_, body) = read_message(&mut self.stream)?;
        code(&body)
    }
}

/// Tag, length and value (X.690, definite lengths).
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = (value.len() as u32).to_be_bytes();
    match value.len() {
        0..0x80 => bytes.push(length[3]),
        _ => {
            bytes.push(0x84);
            bytes.extend(length);
        }
    }
    bytes.extend(value);
    bytes
}

fn message(id: u8, operation: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&tlv(0x02, &[id]), operation].concat())
}

fn attribute(name: &str, values: &[&[u8]]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| tlv(0x04, value)).collect();
    tlv(0x30, &[tlv(0x04, name.as_bytes()), tlv(0x31, &values)].concat())
}

/// The operation's tag and its contents.
fn read_message(stream: &mut impl std::io::Read) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut length = usize::from(head[1]);
    if length > 0x80 {
        length = 0;
        for _ in 0..head[1] & 0x7f {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            length = length << 8 | usize::from(byte[0]);
            ensure!(length <= MAX_MESSAGE, "a message of {length} bytes");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let (_, _, rest) = split(&body)?;
    let (tag, value, _) = split(rest)?;
    Ok((tag, value.to_vec()))
}

/// The first element, its tag before and the rest behind.
fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8])> {
    let mut input = bytes;
    let mut byte = || -> Result<u8> {
        let (first, rest) = input.split_first().context("an element ends early")?;
        input = rest;
        Ok(*first)
    };
    let tag = byte()?;
    let mut length = usize::from(byte()?);
    if length > 0x80 {
        let count = length & 0x7f;
        length = 0;
        for _ in 0..count {
            length = length << 8 | usize::from(byte()?);
            ensure!(length <= MAX_MESSAGE, "an element of {length} bytes");
        }
    }
    ensure!(length <= input.len(), "an element ends early");
    let (value, rest) = input.split_at(length);
    Ok((tag, value, rest))
}

fn code(result: &[u8]) -> Result<u32> {
    let (_, value, _) = split(result)?;
    Ok(value.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)))
}

fn entry(body: &[u8]) -> Result<Entry> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (_, name, rest) = split(body)?;
    let (_, mut list, _) = split(rest)?;
    let mut attributes = Vec::new();
    while !list.is_empty() {
        let (_, attribute, more) = split(list)?;
        list = more;
        let (_, kind, rest) = split(attribute)?;
        let (_, mut set, _) = split(rest)?;
        let mut values = Vec::new();
        while !set.is_empty() {
            let (_, value, more) = split(set)?;
            set = more;
            values.push(text(value));
        }
        attributes.push((text(kind), values));
    }
    Ok((text(name), attributes))
}
