//! A client that does as it is told: it sends any bytes, keeps its connection, and reads what comes back to the letter.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::case::{Case, Manner};

/// No answer takes so long, even on a machine that is busy with other things, unless the server hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection that may have carried requests before.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Read, and not yet part of an answer.
    unread: Vec<u8>,
    /// It has carried a request already, so the server may have closed it meanwhile.
    is_used: bool,
}

/// An answer of HTTP/1.1, its chunks joined.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody listens, or no longer.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The server closed the connection before the first byte of an answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// It closed in the middle of one.
    #[error("the answer was cut off")]
    CutOff,
    /// Reading failed, or took too long.
    #[error("reading the answer: {0}")]
    Read(io::Error),
    /// It is no HTTP/1.1.
    #[error("the answer is no HTTP: {0}")]
    Malformed(String),
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Fault::Connect`].
    pub fn open(address: SocketAddr) -> Result<Self, Fault> {
        let open = || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = open().map_err(Fault::Connect)?;
        Ok(Self { stream, unread: Vec::new(), is_used: false })
    }

    /// Whether a failure may be due to the server having closed a connection that it had the right to close.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Sends a case in its manner. `None` when there is nothing to judge.
    ///
    /// # Errors
    /// When an answer was due and did not come whole.
    pub fn send(&mut self, case: &Case) -> Result<Option<Answer>, Fault> {
        // The answer may come, and the connection be closed, before all is sent: what was answered counts.
        let sent = self.stream.write_all(&case.bytes());
        match &case.manner {
            Manner::Leave(bytes) => {
                let _ = self.stream.read(&mut vec![0; *bytes]);
                let _ = self.stream.shutdown(Shutdown::Both);
                return Ok(None);
            }
            Manner::Cut(_) | Manner::Bytes(_) => {
                let _ = self.stream.shutdown(Shutdown::Write);
                // A server needs not answer what is no request, and may answer the first bytes of HTTP/2 in its words.
                return Ok(self.read_answer(&case.method).ok());
            }
            _ => {}
        }
        let answer = self.read_answer(&case.method);
        self.is_used = true;
        match (answer, sent) {
            (Err(Fault::Read(_)), Err(_)) => Err(Fault::Closed),
            (Err(Fault::Read(error)), _) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(Fault::Closed)
            }
            (answer, _) => answer.map(Some),
        }
    }

    fn read_answer(&mut self, method: &str) -> Result<Answer, Fault> {
        loop {
            let head = self.read_head()?;
            let mut answer = parse_head(&head)?;
            if answer.status < 200 {
                continue;
            }
            let is_empty = method == "HEAD" || matches!(answer.status, 204 | 304);
            let length = answer.header("content-length").map(str::parse::<usize>);
            answer.body = match length {
                _ if is_empty => Vec::new(),
                Some(length) => {
                    let length = length.map_err(|error| Fault::Malformed(error.to_string()))?;
                    self.take(length)?
                }
                None if answer.header("transfer-encoding") == Some("chunked") => self.read_chunks()?,
                None => self.read_to_end()?,
            };
            return Ok(answer);
        }
    }

    fn read_head(&mut self) -> Result<Vec<u8>, Fault> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
                return self.take(searched + at + 4);
            }
            searched = self.unread.len().saturating_sub(3);
            if !self.read_more()? {
                return Err(if self.unread.is_empty() { Fault::Closed } else { Fault::CutOff });
            }
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| Fault::Malformed(format!("chunk {line:?}")))?;
            if size == 0 {
                // Trailers end with an empty line.
                while !self.read_line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.take(2)?;
        }
    }

    fn read_line(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(at + 2)?;
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.read_more()? {
                return Err(Fault::CutOff);
            }
        }
    }

    fn read_to_end(&mut self) -> Result<Vec<u8>, Fault> {
        while self.read_more()? {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// The next so many bytes.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        while self.unread.len() < length {
            if !self.read_more()? {
                return Err(Fault::CutOff);
            }
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// False at the end.
    fn read_more(&mut self) -> Result<bool, Fault> {
        let mut buffer = [0; 16 << 10];
        let read = self.stream.read(&mut buffer).map_err(Fault::Read)?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}

impl Answer {
    /// The value of a header; names are in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn parse_head(head: &[u8]) -> Result<Answer, Fault> {
    let malformed = || Fault::Malformed(String::from_utf8_lossy(&head[..head.len().min(80)]).into_owned());
    let head = std::str::from_utf8(head).map_err(|_| malformed())?;
    let mut lines = head.split_terminator("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
    let header =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers = lines.filter(|line| !line.is_empty()).map(|line| header(line).ok_or_else(malformed));
    Ok(Answer {
        status: status.ok_or_else(malformed)?,
        headers: headers.collect::<Result<_, _>>()?,
        body: Vec::new(),
    })
}
