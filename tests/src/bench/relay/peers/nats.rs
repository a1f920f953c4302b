//! NATS JetStream over TLS: a stream per group, on disk by `sync_interval: always`, and a durable push consumer for
//! each member of each group.

use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;
use serde_json::json;

use super::super::plan::{Plan, Round};
use super::super::system::System;
use super::client::{Client, Event, Protocol, dial, made_at, run};
use super::server::{Server, free_port};
use super::{install, tls};
use crate::bench::sample::Usage;

/// The longest greeting that is read, bytes.
const MAX_INFO_BYTES: usize = 64 * 1024;
/// Where a connection's acknowledgements and answers go.
const INBOX: &str = "inbox";
/// Where a connection's messages go.
const DELIVERY: &str = "to";
/// The subscriptions' numbers: for answers, and for records.
const ANSWERS: &str = "1";
const RECORDS: &str = "2";

/// A NATS server and its clients.
pub(in super::super) struct Nats {
    server: Server,
    clients: Vec<Client<Text>>,
}

impl Nats {
    /// Installs and starts it below `dir`, and connects everybody of the plan.
    ///
    /// # Errors
    /// When it cannot be had here.
    pub(in super::super) fn start(dir: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let dir = dir.join("nats");
        std::fs::create_dir_all(&dir)?;
        let files = tls::write(&dir)?;
        let address = free_port()?;
        let config = format!(
            "listen: \"{address}\"\nping_interval: \"30m\"\n\
             tls {{ cert_file: {:?}, key_file: {:?} }}\n\
             jetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            files.certificate,
            files.key,
            dir.join("store"),
        );
        let path = dir.join("nats.conf");
        std::fs::write(&path, config)?;
        let mut command = Command::new(install::nats()?);
        command.arg("-c").arg(&path);
        let mut nats = Self {
            server: Server::start(command, address, &dir.join("log"))?,
            clients: Vec::new(),
        };
        for connection in 0..plan.connections() {
            nats.clients.push(nats.connect(&files.client, connection)?);
        }
        nats.make_streams(plan)?;
        for connection in 0..plan.connections() {
            nats.listen(connection, &plan.groups_of(connection))?;
        }
        Ok(nats)
    }

    fn connect(&self, tls: &Arc<ClientConfig>, connection: usize) -> anyhow::Result<Client<Text>> {
        let mut stream = dial(self.server.address)?;
        skip_info(&mut stream)?;
        let mut client = Client::new(stream, Some(tls), Text { connection })?;
        let options =
            json!({"verbose": false, "pedantic": false, "tls_required": true, "headers": false});
        let inbox = inbox(connection);
        client.say(format!("CONNECT {options}\r\nSUB {inbox} {ANSWERS}\r\nPING\r\n").as_bytes())?;
        ensure!(client.hear()? == Event::Other, "not an answer to PING");
        Ok(client)
    }

    fn make_streams(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for group in 0..plan.groups.len() {
            let name = stream(group);
            let body = json!({"name": name, "subjects": [subject(group)], "storage": "file", "num_replicas": 1});
            self.ask(0, &format!("$JS.API.STREAM.CREATE.{name}"), &body)?;
        }
        Ok(())
    }

    fn listen(&mut self, connection: usize, groups: &[usize]) -> anyhow::Result<()> {
        // Once for all groups: a second subscription of the same number would not be one.
        let client = self.clients.get_mut(connection);
        let client = client.context("nobody is connected")?;
        client.say(format!("SUB {DELIVERY}.{connection}.* {RECORDS}\r\n").as_bytes())?;
        for group in groups {
            let to = format!("{DELIVERY}.{connection}.{group}");
            let (name, consumer) = (stream(*group), format!("c{connection}"));
            let body = json!({"stream_name": name, "config": {
                "durable_name": consumer,
                "deliver_subject": to,
                "ack_policy": "none",
                "deliver_policy": "new",
            }});
            let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.{consumer}");
            self.ask(connection, &subject, &body)?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        connection: usize,
        subject: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<()> {
        let client = self
            .clients
            .get_mut(connection)
            .context("nobody is connected")?;
        let body = body.to_string();
        let inbox = inbox(connection);
        client.say(format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len()).as_bytes())?;
        ensure!(
            client.hear()? == Event::Acknowledged,
            "not an answer to {subject}"
        );
        Ok(())
    }
}

impl System for Nats {
    fn name(&self) -> &'static str {
        "nats-tls"
    }

    fn round(&mut self, plan: &Plan) -> anyhow::Result<Round> {
        let before = Usage::of(self.server.pid())?.cpu_ms;
        let start = Instant::now();
        let seen = run(&mut self.clients, plan)?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_us = (Usage::of(self.server.pid())?.cpu_ms - before) * 1_000;
        Ok(Round::of(seen, seconds, cpu_us))
    }
}

/// The server greets in clear, before TLS.
fn skip_info(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut byte = [0];
    for _ in 0..MAX_INFO_BYTES {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(());
        }
    }
    bail!("the greeting does not end")
}

fn inbox(connection: usize) -> String {
    format!("{INBOX}.{connection}")
}

fn stream(group: usize) -> String {
    format!("group-{group}")
}

fn subject(group: usize) -> String {
    format!("group.{group}")
}

/// NATS's text protocol, as far as it is needed.
pub(super) struct Text {
    connection: usize,
}

impl Protocol for Text {
    fn publish(&mut self, group: usize, message: &[u8], out: &mut Vec<u8>) {
        let (subject, inbox) = (subject(group), inbox(self.connection));
        out.extend_from_slice(format!("PUB {subject} {inbox} {}\r\n", message.len()).as_bytes());
        out.extend_from_slice(message);
        out.extend_from_slice(b"\r\n");
    }

    fn next(&mut self, input: &[u8]) -> anyhow::Result<Option<(usize, Event)>> {
        let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let line = std::str::from_utf8(&input[..end]).context("a line")?;
        let body = end + 2;
        if line.starts_with("-ERR") {
            bail!("nats: {line}");
        }
        if line == "PING" {
            return Ok(Some((body, Event::Ping)));
        }
        let Some(words) = line.strip_prefix("MSG ") else {
            return Ok(Some((body, Event::Other)));
        };
        let mut words = words.split_whitespace();
        // A record comes under the subject that it was sent to: the subscription says what it is.
        let subscription = words.nth(1).context("a subscription")?;
        let length: usize = words.last().context("a length")?.parse()?;
        let Some(message) = input.get(body..body + length) else {
            return Ok(None);
        };
        let taken = body + length + 2;
        if taken > input.len() {
            return Ok(None);
        }
        if subscription == RECORDS {
            return Ok(Some((taken, Event::Record(made_at(message)))));
        }
        let answer = String::from_utf8_lossy(message);
        ensure!(!answer.contains("\"error\""), "nats: {answer}");
        Ok(Some((taken, Event::Acknowledged)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_messages_are_told_apart_and_wait_until_they_are_whole() {
        let mut text = Text { connection: 3 };
        let mut input = b"MSG group.1 2 $JS.ACK.x 8\r\n".to_vec();
        input.extend_from_slice(&9_u64.to_be_bytes());
        input.extend_from_slice(b"\r\n");
        for short in 0..input.len() {
            assert!(
                text.next(&input[..short]).expect("fine").is_none(),
                "{short}"
            );
        }
        let whole = text.next(&input).expect("fine");
        assert_eq!(whole, Some((input.len(), Event::Record(9))));
        let stored = b"MSG inbox.3 1 2\r\n{}\r\n";
        assert_eq!(
            text.next(stored).expect("fine"),
            Some((stored.len(), Event::Acknowledged))
        );
        assert_eq!(
            text.next(b"PONG\r\n").expect("fine"),
            Some((6, Event::Other))
        );
        assert_eq!(
            text.next(b"PING\r\n").expect("fine"),
            Some((6, Event::Ping))
        );
        assert!(text.next(b"MSG inbox.3 1 11\r\n{\"error\":1}\r\n").is_err());
        assert!(text.next(b"-ERR 'no'\r\n").is_err());
    }
}
