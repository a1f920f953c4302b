//! Redis: a message is appended to a stream (`XADD`, on disk by `appendfsync always`) and published to who listens.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;

use super::super::plan::{Plan, Round};
use super::super::system::System;
use super::client::{Client, Event, Protocol, dial, made_at, run};
use super::server::{Server, free_port};
use super::{install, tls};
use crate::bench::sample::Usage;

/// A Redis server and its clients.
pub(in super::super) struct Redis {
    name: &'static str,
    server: Server,
    clients: Vec<Client<Resp>>,
}

impl Redis {
    /// Installs and starts it below `dir`, and connects everybody of the plan.
    ///
    /// # Errors
    /// When it cannot be had here.
    pub(in super::super) fn start(dir: &Path, with_tls: bool, plan: &Plan) -> anyhow::Result<Self> {
        let name = if with_tls { "redis-tls" } else { "redis" };
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let (binary, libraries) = install::redis()?;
        let address = free_port()?;
        let mut command = Command::new(binary);
        command.env("LD_LIBRARY_PATH", libraries);
        let port = address.port().to_string();
        let data = dir.display().to_string();
        command.args(["--bind", "127.0.0.1", "--dir", &data, "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        let config = if with_tls {
            let files = tls::write(&dir)?;
            command.args([
                "--port",
                "0",
                "--tls-port",
                &port,
                "--tls-auth-clients",
                "no",
            ]);
            command.arg("--tls-cert-file").arg(&files.certificate);
            command.arg("--tls-key-file").arg(&files.key);
            command.arg("--tls-ca-cert-file").arg(&files.certificate);
            Some(files.client)
        } else {
            command.args(["--port", &port]);
            None
        };
        let server = Server::start(command, address, &dir.join("log"))?;
        let mut redis = Self {
            name,
            server,
            clients: Vec::new(),
        };
        for connection in 0..plan.connections() {
            let groups = plan.groups_of(connection);
            redis.clients.push(redis.connect(config.as_ref(), &groups)?);
        }
        Ok(redis)
    }

    /// The server's process.
    pub(in super::super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    fn connect(
        &self,
        tls: Option<&Arc<ClientConfig>>,
        groups: &[usize],
    ) -> anyhow::Result<Client<Resp>> {
        let mut client = Client::new(dial(self.server.address)?, tls, Resp)?;
        let mut hello = Vec::new();
        // RESP3: one connection both publishes and listens.
        command(&[b"HELLO", b"3"], &mut hello);
        for group in groups {
            command(&[b"SUBSCRIBE", channel(*group).as_bytes()], &mut hello);
        }
        client.say(&hello)?;
        for _ in 0..=groups.len() {
            ensure!(client.hear()? == Event::Other, "not an answer to HELLO");
        }
        Ok(client)
    }
}

impl System for Redis {
    fn name(&self) -> &'static str {
        self.name
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

fn channel(group: usize) -> String {
    format!("group-{group}")
}

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// RESP3, as far as it is needed.
pub(super) struct Resp;

impl Protocol for Resp {
    fn publish(&mut self, group: usize, message: &[u8], out: &mut Vec<u8>) {
        let channel = channel(group);
        command(
            &[
                b"XADD",
                format!("log-{group}").as_bytes(),
                b"*",
                b"m",
                message,
            ],
            out,
        );
        command(&[b"PUBLISH", channel.as_bytes(), message], out);
    }

    fn next(&mut self, input: &[u8]) -> anyhow::Result<Option<(usize, Event)>> {
        let Some((taken, value)) = value(input)? else {
            return Ok(None);
        };
        let event = match value {
            // PUBLISH answers with a number; its answer is written after the append-only file was synced.
            Value::Number => Event::Acknowledged,
            Value::Push(words) if words.first() == Some(&&b"message"[..]) => {
                Event::Record(made_at(words.last().copied().unwrap_or_default()))
            }
            Value::Error(text) => bail!("redis: {text}"),
            Value::Push(_) | Value::Other => Event::Other,
        };
        Ok(Some((taken, event)))
    }
}

enum Value<'i> {
    Number,
    Push(Vec<&'i [u8]>),
    Error(String),
    Other,
}

/// One value; nested ones only for their length, but for the words of a push.
fn value(input: &[u8]) -> anyhow::Result<Option<(usize, Value<'_>)>> {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
        return Ok(None);
    };
    let (kind, rest) = input.split_first().context("an empty line")?;
    let line = &rest[..end - 1];
    let text = || String::from_utf8_lossy(line).into_owned();
    let mut taken = end + 2;
    let value = match kind {
        b':' => Value::Number,
        b'-' => Value::Error(text()),
        b'+' | b'_' | b'#' | b',' => Value::Other,
        b'$' => {
            let length: usize = text().parse().context("a length")?;
            taken += length + 2;
            Value::Other
        }
        b'*' | b'%' | b'>' => {
            let count: usize = text().parse().context("a count")?;
            let mut words = Vec::with_capacity(count);
            for _ in 0..count * (1 + usize::from(*kind == b'%')) {
                let Some((more, _)) = self::value(&input[taken.min(input.len())..])? else {
                    return Ok(None);
                };
                words.push(body(&input[taken..taken + more]));
                taken += more;
            }
            if *kind == b'>' {
                Value::Push(words)
            } else {
                Value::Other
            }
        }
        other => bail!("redis says {other:#04x}"),
    };
    Ok((taken <= input.len()).then_some((taken, value)))
}

/// What is in a bulk string.
fn body(value: &[u8]) -> &[u8] {
    let start = value.windows(2).position(|two| two == b"\r\n");
    let start = start.map_or(0, |end| end + 2);
    value
        .get(start..value.len().saturating_sub(2))
        .unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_messages_are_told_apart_and_wait_until_they_are_whole() {
        let stamp = 7_u64.to_be_bytes();
        let mut input = b">3\r\n$7\r\nmessage\r\n$7\r\ngroup-0\r\n$8\r\n".to_vec();
        input.extend_from_slice(&stamp);
        input.extend_from_slice(b"\r\n");
        for short in 0..input.len() {
            assert!(
                Resp.next(&input[..short]).expect("fine").is_none(),
                "{short}"
            );
        }
        let whole = Resp.next(&input).expect("fine");
        assert_eq!(whole, Some((input.len(), Event::Record(7))));
        assert_eq!(
            Resp.next(b":50\r\n:").expect("fine"),
            Some((5, Event::Acknowledged))
        );
        assert_eq!(
            Resp.next(b"$3\r\n1-1\r\n").expect("fine"),
            Some((9, Event::Other))
        );
        let map = b"%1\r\n+proto\r\n:3\r\n";
        assert_eq!(
            Resp.next(map).expect("fine"),
            Some((map.len(), Event::Other))
        );
        assert!(Resp.next(b"-ERR no\r\n").is_err());
    }
}
