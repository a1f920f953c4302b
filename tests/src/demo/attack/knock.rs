//! Coming back: a new connection with the leaver's keys, and with a stranger's, asking for everything.
//!
//! The proofs are real: a device on a copy of the leaver's database makes them for this very connection,
//! because it is told that the relay has welcomed it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mortise_client::machine::now_ms;
use mortise_client::transport::{Connection, connect};
use mortise_protocol::engine::{Command, CommandKind, Engine, Input, Output};
use mortise_protocol::identity::{DeviceId, GroupId, LogSeq, PublicKey, SigningKey};
use mortise_protocol::store::SqliteStore;
use mortise_protocol::wire::{
    ClientToRelay, Flag, Push, Refusal, RelayToClient, Request, RequestId, Response,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Far from the numbers that a device gives.
const FIRST_OWN_ID: u64 = 1 << 40;

/// What the relay gave and what it refused.
#[derive(Debug, Default)]
pub struct Answers {
    /// Requests that were refused, by name, with the refusal.
    pub refused: Vec<(&'static str, String)>,
    /// What was given, by the request's name or `push`: each is a leak.
    pub given: Vec<(&'static str, String)>,
}

impl Answers {
    /// How many requests of these names were made.
    #[must_use]
    pub fn asked(&self, names: &[&str]) -> usize {
        let refused = self.refused.iter().map(|(name, _)| name);
        let given = self.given.iter().map(|(name, _)| name);
        refused
            .chain(given)
            .filter(|name| names.contains(name))
            .count()
    }

    /// What requests of these names were given.
    #[must_use]
    pub fn gains(&self, names: &[&str]) -> Vec<String> {
        let given = self.given.iter().filter(|(name, _)| names.contains(name));
        given.map(|(_, what)| what.clone()).collect()
    }

    /// The refusals that requests of these names met, each once.
    #[must_use]
    pub fn reasons(&self, names: &[&str]) -> String {
        let refused = self.refused.iter().filter(|(name, _)| names.contains(name));
        let mut names: Vec<&str> = refused
            .filter_map(|(_, reason)| reason.split(':').next())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

/// Whose keys open the door, and what is done behind it.
#[derive(Clone, Debug)]
pub enum Knock {
    /// The device's own keys; everything is tried.
    Own,
    /// The device's access keys, on the connection of somebody else; everything is tried.
    As(Arc<SigningKey>),
    /// The device's own keys; nothing is written: the control, with a member's copy.
    Reading,
}

/// Connects and asks for everything that `engine` was entitled to.
///
/// # Errors
/// When the attack could not be mounted; a refusal is no error.
pub async fn knock(mut engine: Engine<SqliteStore>, how: Knock) -> anyhow::Result<Answers> {
    let relay = engine.relay().clone();
    let key = match &how {
        Knock::As(key) => Arc::clone(key),
        Knock::Own | Knock::Reading => engine.transport_key(),
    };
    let mut line = Line {
        connection: connect(&relay.address, relay.key, key, PATIENCE)
            .await
            .context("connect to the relay")?,
        answers: Answers::default(),
    };
    let suite = engine.roster().suite().unwrap_or_default();
    let myself = engine.device();
    let devices = engine.roster().devices().map(|(device, _)| device);
    let colleagues: Vec<DeviceId> = devices.filter(|device| *device != myself).collect();
    let mut frames = entitlements(&mut engine, &line.connection)?;
    if matches!(how, Knock::Reading) {
        frames.retain(|frame| matches!(name_of(&frame.request), "Hello" | "Subscribe"));
    }
    for frame in frames {
        line.ask(frame).await;
    }
    let more = [
        Request::FetchInbox { after: 0 },
        Request::FetchSlots,
        Request::ClaimKeyPackages {
            suite,
            devices: colleagues,
        },
    ];
    for (n, request) in (FIRST_OWN_ID..).zip(more) {
        let id = RequestId(n);
        line.ask(ClientToRelay { id, request }).await;
    }
    let answers = line.answers;
    line.connection.close().await;
    Ok(answers)
}

/// Everything that the device would ask and send if the relay had let it in.
fn entitlements(
    engine: &mut Engine<SqliteStore>,
    connection: &Connection,
) -> anyhow::Result<Vec<ClientToRelay>> {
    let mut frames = Vec::new();
    let mut waiting = feed(engine, Input::Connected(connection.binding()))?;
    // The device believes what it is told; each answer may make it ask again.
    while !waiting.is_empty() {
        let mut next = Vec::new();
        for frame in waiting {
            if let Some(response) = pretend(engine, &frame.request) {
                let id = frame.id;
                let answer = RelayToClient::Response { id, response };
                next.extend(feed(engine, Input::Frame(answer))?);
            }
            frames.push(frame);
        }
        waiting = next;
    }
    let groups: Vec<GroupId> = engine.groups()?.into_iter().map(|group| group.id).collect();
    for group in groups {
        let id = engine.next_intent();
        let text = "I am still here, am I not?".to_owned();
        let kind = CommandKind::SendText { group, text };
        frames.extend(feed(engine, Input::Command(Command { id, kind }))?);
    }
    Ok(frames)
}

fn feed(engine: &mut Engine<SqliteStore>, input: Input) -> anyhow::Result<Vec<ClientToRelay>> {
    let outputs = engine
        .handle(now_ms(), input)
        .context("a device on a copy")?;
    let sent = outputs.into_iter().filter_map(|output| match output {
        Output::Send(frame) => Some(frame),
        _ => None,
    });
    Ok(sent.collect())
}

/// What a relay that knows of no order would say.
fn pretend(engine: &Engine<SqliteStore>, request: &Request) -> Option<Response> {
    match request {
        Request::Hello { .. } => Some(Response::Hello {
            head: engine.roster().head(),
            admitted: Flag::Yes,
            statement_key: PublicKey([0; 32]),
            now_ms: now_ms(),
            key_packages_left: 100,
            has_last_resort: Flag::Yes,
            inbox_waiting: Flag::No,
        }),
        Request::Subscribe { epoch, .. } => Some(Response::Subscribed {
            head_seq: LogSeq(0),
            head_epoch: *epoch,
            last_readable: LogSeq(0),
            confirmed_epoch: *epoch,
        }),
        _ => None,
    }
}

struct Line {
    connection: Connection,
    answers: Answers,
}

impl Line {
    /// Asks, and files the answer. Being cut off, or left without an answer, is a refusal too.
    async fn ask(&mut self, frame: ClientToRelay) {
        let name = name_of(&frame.request);
        let refusal = match self.connection.send(&frame) {
            Ok(()) => match tokio::time::timeout(PATIENCE, self.answer(frame.id)).await {
                Ok(Some(response)) => self.judge(name, response),
                Ok(None) => Some(self.connection.end().to_string()),
                Err(_) => Some("no answer".into()),
            },
            Err(error) => Some(error.to_string()),
        };
        self.answers.refused.extend(refusal.map(|why| (name, why)));
    }

    async fn answer(&mut self, wanted: RequestId) -> Option<Response> {
        loop {
            match self.connection.recv().await? {
                RelayToClient::Response { id, response } if id == wanted => return Some(response),
                RelayToClient::Response { .. } => {}
                RelayToClient::Push(push) => self.judge_push(&push),
            }
        }
    }

    fn judge(&mut self, name: &'static str, response: Response) -> Option<String> {
        match response {
            Response::Refused(refusal) => Some(refusal.to_string()),
            Response::Hello {
                admitted: Flag::No, ..
            } => Some(Refusal::NotAdmitted.to_string()),
            _ => {
                self.answers
                    .given
                    .push((name, format!("{name} was granted")));
                None
            }
        }
    }

    fn judge_push(&mut self, push: &Push) {
        let what = match push {
            Push::Records { records, .. } => format!("{} records", records.len()),
            Push::RosterEntry { .. } => "a roster entry".into(),
            Push::ResyncAsked { .. } => "a colleague's question".into(),
            Push::Checkpoint { .. } => "a checkpoint".into(),
            Push::InboxWaiting | Push::SlotsWaiting | Push::KeyPackagesLow { .. } => {
                "a hint".into()
            }
        };
        self.answers.given.push(("push", what));
    }
}

fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "Hello",
        Request::Subscribe { .. } => "Subscribe",
        Request::Submit(_) => "Submit",
        Request::FetchInbox { .. } => "FetchInbox",
        Request::FetchSlots => "FetchSlots",
        Request::ClaimKeyPackages { .. } => "ClaimKeyPackages",
        _ => "another request",
    }
}
