//! SIGKILL for the relay and for clients in the middle of a conversation: what was acknowledged is there, once,
//! in one order for everybody; what was queued arrives.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_tests::demo::person::{PATIENCE, Person};
use mortise_tests::demo::process::Process;
use mortise_tests::stage::{Stage, TEAM};

/// A `mortise send` on its way.
struct Sending {
    text: String,
    process: Process,
}

/// What became of what was sent: the position for what was acknowledged, and whether the rest is known to be queued.
#[derive(Default)]
struct Fate {
    acknowledged: BTreeMap<String, u64>,
    queued: Vec<String>,
    unknown: Vec<String>,
}

fn send(person: &Person, text: String) -> anyhow::Result<Sending> {
    let process = person.start(&["send", TEAM, &text])?;
    Ok(Sending { text, process })
}

impl Fate {
    /// Waits for the end of a send; a process that was killed says nothing.
    fn note(&mut self, sending: Sending) -> anyhow::Result<()> {
        let (lines, code) = sending.process.finish(PATIENCE)?;
        let error = lines.iter().find(|line| line.is("error"));
        if let Some(line) = lines.iter().find(|line| line.is("appended")) {
            let seq = line.value["seq"].as_u64().context("no position")?;
            self.acknowledged.insert(sending.text, seq);
        } else if error.is_some_and(|line| line.value["queued"] == true) {
            ensure!(
                code == i32::from(Exit::Queued.number()),
                "queued with exit code {code}"
            );
            self.queued.push(sending.text);
        } else {
            let cause = error.map(|line| line.value.to_string());
            ensure!(
                [-1, i32::from(Exit::Daemon.number())].contains(&code),
                "a send ended with {code}: {cause:?}"
            );
            self.unknown.push(sending.text);
        }
        Ok(())
    }

    /// What everybody reads must be the same, hold what was acknowledged where it was, what was queued, and nothing twice.
    fn check(&self, people: &[Person]) -> anyhow::Result<()> {
        let (first, others) = people.split_first().context("nobody")?;
        let read = first.reads(TEAM)?;
        for other in others {
            ensure!(
                other.reads(TEAM)? == read,
                "{} and {} read different logs",
                first.name,
                other.name
            );
        }
        ensure!(
            read.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "the positions do not rise"
        );
        let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (seq, text) in &read {
            places.entry(text).or_default().push(*seq);
        }
        for (text, seq) in &self.acknowledged {
            let found = places.get(text.as_str()).cloned().unwrap_or_default();
            ensure!(
                found == [*seq],
                "{text:?} was acknowledged at {seq}, and is at {found:?}"
            );
        }
        for text in &self.queued {
            let found = places.get(text.as_str()).map_or(0, Vec::len);
            ensure!(
                found == 1,
                "{text:?} was queued, and is there {found} times"
            );
        }
        for text in &self.unknown {
            let found = places.get(text.as_str()).map_or(0, Vec::len);
            ensure!(found <= 1, "{text:?} is there {found} times");
        }
        Ok(())
    }
}

fn acknowledged(sending: &Sending) -> anyhow::Result<()> {
    let is_it = |line: &mortise_tests::demo::process::Line| line.is("appended");
    sending
        .process
        .wait_for(0, PATIENCE, "an acknowledgement", is_it)?;
    Ok(())
}

#[test]
fn a_relay_that_is_killed_loses_nothing_of_two_who_listen() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    for person in &mut stage.people {
        person.come_online()?;
    }
    let mut fate = Fate::default();
    // How many are acknowledged, at least, when it is killed.
    for (round, early) in [0_usize, 1, 3, 6, 9].into_iter().enumerate() {
        let mut sent = Vec::new();
        for n in 0..6 {
            for person in &stage.people {
                sent.push(send(person, format!("{round}.{n} by {}", person.name))?);
            }
            if sent.len() / 2 == early && early > 0 {
                acknowledged(&sent[early - 1])?;
            }
        }
        if early > 0 {
            acknowledged(&sent[early - 1])?;
        }
        stage.crash_relay()?;
        stage.start_relay()?;
        for sending in sent {
            fate.note(sending)?;
        }
    }
    for person in &stage.people {
        person.say(TEAM, &format!("the end, by {}", person.name))?;
    }
    for listener in &stage.people {
        for text in fate.acknowledged.keys() {
            let by_me = text.ends_with(&format!("by {}", listener.name));
            if by_me {
                continue;
            }
            let is_it = |line: &mortise_tests::demo::process::Line| {
                line.is("message") && line.value["text"] == text.as_str()
            };
            listener.hears(text, is_it)?;
            let heard = listener.device()?.lines();
            ensure!(
                heard.iter().filter(|line| is_it(line)).count() == 1,
                "{} heard {text:?} more than once",
                listener.name
            );
        }
    }
    ensure!(fate.unknown.is_empty(), "a send does not know its fate");
    // The relay that came back said at once that it knows none of the connections.
    ensure!(
        fate.acknowledged.len() > fate.queued.len(),
        "{} acknowledged, {} only queued",
        fate.acknowledged.len(),
        fate.queued.len()
    );
    fate.check(&stage.people)
}

#[test]
fn a_relay_that_is_killed_loses_nothing_of_two_who_come_and_go() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    let mut fate = Fate::default();
    for round in 0..3 {
        let mut sent = Vec::new();
        for n in 0..2 {
            for person in &stage.people {
                sent.push(send(person, format!("{round}.{n} by {}", person.name))?);
            }
        }
        // One profile does one thing at a time: the others are at different stages.
        acknowledged(&sent[round])?;
        stage.crash_relay()?;
        stage.start_relay()?;
        for sending in sent {
            fate.note(sending)?;
        }
    }
    for person in &stage.people {
        person.say(TEAM, &format!("the end, by {}", person.name))?;
    }
    fate.check(&stage.people)
}

#[test]
fn a_client_that_is_killed_loses_nothing() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    let mut fate = Fate::default();
    stage.people[0].come_online()?;
    for (round, early) in [0_usize, 1, 2, 4].into_iter().enumerate() {
        let bob = &mut stage.people[1];
        bob.come_online()?;
        let sent = (0..6)
            .map(|n| send(bob, format!("{round}.{n} by Bob")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if early > 0 {
            acknowledged(&sent[early - 1])?;
        }
        bob.go_offline();
        for sending in sent {
            fate.note(sending)?;
        }
    }
    // Without a daemon, killed at the moment when somebody else reads what it was about to be told is appended.
    for round in 4..6 {
        let sending = send(&stage.people[1], format!("{round} by Bob"))?;
        stage.people[0].hears("Bob's message", |line| {
            line.is("message") && line.value["text"] == sending.text.as_str()
        })?;
        let Sending { text, process } = sending;
        drop(process);
        let seq = stage.people[1].say(TEAM, &format!("{text}, again"))?;
        ensure!(seq > 0);
        // It is in the log: exactly once.
        fate.queued.push(text);
    }
    fate.check(&stage.people)
}

#[test]
fn what_was_queued_is_delivered_after_both_were_gone() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    stage.crash_relay()?;
    let bob = &stage.people[1];
    for text in ["one", "two"] {
        let error = bob.fails(&["--timeout", "0.5", "send", TEAM, text], Exit::Queued)?;
        ensure!(error["queued"] == true, "{error}");
    }
    let error = bob.fails(&["--offline", "send", TEAM, "three"], Exit::Queued)?;
    ensure!(error["queued"] == true, "{error}");
    stage.start_relay()?;
    let bob = &mut stage.people[1];
    bob.come_online()?;
    bob.go_offline();
    let texts = |person: &Person| -> anyhow::Result<Vec<String>> {
        Ok(person.reads(TEAM)?.into_iter().map(|row| row.1).collect())
    };
    ensure!(texts(&stage.people[0])? == ["one", "two", "three"]);
    ensure!(texts(&stage.people[1])? == ["one", "two", "three"]);
    Ok(())
}
