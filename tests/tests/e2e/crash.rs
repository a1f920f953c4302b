//! SIGKILL for the relay and for clients in the middle of a conversation: what was acknowledged is there, once,
//! in one order for everybody; what was queued arrives.

use anyhow::ensure;
use mortise_client::exit::Exit;
use mortise_tests::crash::{self, DiskWord, Fate, Sending};
use mortise_tests::demo::person::Person;
use mortise_tests::stage::{Stage, TEAM};

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
                sent.push(Sending::start(
                    person,
                    format!("{round}.{n} by {}", person.name),
                )?);
            }
            if sent.len() / 2 == early && early > 0 {
                sent[early - 1].acknowledged()?;
            }
        }
        if early > 0 {
            sent[early - 1].acknowledged()?;
        }
        stage.crash_relay()?;
        stage.start_relay()?;
        for sending in sent {
            fate.note(sending)?;
        }
    }
    // A device may not have noticed yet that the relay has been away: then this waits as well.
    for person in &stage.people {
        let end = format!("the end, by {}", person.name);
        fate.note(Sending::start(person, end)?)?;
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
                sent.push(Sending::start(
                    person,
                    format!("{round}.{n} by {}", person.name),
                )?);
            }
        }
        // One profile does one thing at a time: the others are at different stages.
        sent[round].acknowledged()?;
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
            .map(|n| Sending::start(bob, format!("{round}.{n} by Bob")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if early > 0 {
            sent[early - 1].acknowledged()?;
        }
        bob.go_offline();
        for sending in sent {
            fate.note(sending)?;
        }
    }
    // Without a daemon, killed at the moment when somebody else reads what it was about to be told is appended.
    for round in 4..6 {
        let sending = Sending::start(&stage.people[1], format!("{round} by Bob"))?;
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

/// REQ-070, REQ-072, REQ-089, REQ-090: a bounded part of `./x crash`.
#[test]
fn deaths_at_storage_calls_lose_nothing() -> anyhow::Result<()> {
    let seed = 20;
    let totals = crash::run(8, seed, DiskWord::Honest, None, |cycle| {
        eprintln!("{cycle:?}");
        Ok(())
    })?;
    ensure!(totals.met > 0 && totals.lost_writes > 0, "{totals:?}");
    Ok(())
}

/// The control: what a lying disk loses is found.
#[test]
fn a_disk_that_lies_about_syncs_is_found() {
    let found = crash::run(10, 1, DiskWord::Lies, None, |_| Ok(()));
    let error = found.expect_err("acknowledged messages were lost");
    eprintln!("{error:#}");
}
