//! A client of somebody else's server: one connection, one thread while a round runs, no library in between.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::super::plan::{Plan, RECORD_BYTES, Seen};
use crate::bench::sample::now_us;

/// A server that says nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A message of this connection is stored.
    Acknowledged,
    /// Somebody's message, made at this time, µs.
    Record(u64),
    /// It wants to know whether anybody is there.
    Ping,
    /// Something else.
    Other,
}

/// How a server is spoken to.
pub(super) trait Protocol: Send {
    /// Appends what publishes a message to a group, durably.
    fn publish(&mut self, group: usize, message: &[u8], out: &mut Vec<u8>);

    /// The first whole event of `input`, and how many bytes it takes; `None` when more must come first.
    ///
    /// # Errors
    /// When the server reports an error, or says what this client does not know.
    fn next(&mut self, input: &[u8]) -> anyhow::Result<Option<(usize, Event)>>;
}

/// A connection to a server.
pub(super) struct Client<P> {
    stream: Stream,
    input: Vec<u8>,
    protocol: P,
    filler: u64,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// What a connection does in a round.
#[derive(Clone, Debug)]
struct Job {
    to: Vec<usize>,
    in_flight: usize,
    messages: usize,
    expected: usize,
}

/// Connects without TLS.
pub(super) fn dial(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connect to a peer")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl<P: Protocol> Client<P> {
    /// Speaks on a stream; with TLS where there is a configuration for it.
    pub(super) fn new(
        stream: TcpStream,
        tls: Option<&Arc<ClientConfig>>,
        protocol: P,
    ) -> anyhow::Result<Self> {
        let stream = match tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let session = ClientConnection::new(Arc::clone(config), name)?;
                Stream::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        };
        Ok(Self {
            stream,
            input: Vec::new(),
            protocol,
            filler: now_us(),
        })
    }

    /// Sends something that is not a message.
    pub(super) fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes)?,
            Stream::Tls(stream) => stream.write_all(bytes)?,
        }
        Ok(())
    }

    /// Waits for the next event.
    pub(super) fn hear(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Some((taken, event)) = self.protocol.next(&self.input)? {
                self.input.drain(..taken);
                if event == Event::Ping {
                    self.say(b"PONG\r\n")?;
                    continue;
                }
                return Ok(event);
            }
            let mut chunk = [0; 16 * 1024];
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut chunk)?,
                Stream::Tls(stream) => stream.read(&mut chunk)?,
            };
            ensure!(read > 0, "the peer has closed the connection");
            self.input.extend_from_slice(&chunk[..read]);
        }
    }

    fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::with_capacity(RECORD_BYTES);
        while message.len() < RECORD_BYTES - 8 {
            self.filler = self
                .filler
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            message.extend_from_slice(&self.filler.to_be_bytes());
        }
        message.extend_from_slice(&now_us().to_be_bytes());
        message
    }

    /// One round: sends its share, and reads until everything expected has come.
    fn work(&mut self, job: &Job) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let mut waiting = VecDeque::new();
        let to_send = if job.to.is_empty() { 0 } else { job.messages };
        let mut sent = 0;
        let mut out = Vec::new();
        while seen.delays.len() < job.expected || seen.acks.len() < to_send {
            while sent < to_send && waiting.len() < job.in_flight {
                let message = self.message();
                let group = job.to[sent % job.to.len()];
                self.protocol.publish(group, &message, &mut out);
                waiting.push_back(now_us());
                sent += 1;
            }
            if !out.is_empty() {
                self.say(&out)?;
                out.clear();
            }
            match self.hear()? {
                Event::Acknowledged => {
                    let since = waiting.pop_front().context("an answer to nothing")?;
                    seen.acks.push(now_us().saturating_sub(since));
                }
                Event::Record(made) => seen.delays.push(now_us().saturating_sub(made)),
                Event::Ping | Event::Other => {}
            }
        }
        Ok(seen)
    }
}

/// Every client on a thread of its own.
pub(super) fn run<P: Protocol>(
    clients: &mut [Client<P>],
    plan: &Plan,
) -> anyhow::Result<Vec<Seen>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                let job = Job {
                    to: plan.sends_to(number),
                    in_flight: plan.in_flight,
                    messages: plan.messages,
                    expected: plan.expected_at(number),
                };
                scope.spawn(move || client.work(&job))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(seen) => seen,
                Err(_) => bail!("a client's thread failed"),
            })
            .collect()
    })
}

/// When a message was made, from its last bytes.
pub(super) fn made_at(message: &[u8]) -> u64 {
    message
        .last_chunk()
        .map_or(0, |stamp| u64::from_be_bytes(*stamp))
}
