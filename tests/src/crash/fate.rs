//! What became of texts that were sent while processes died: acknowledged, queued, or unknown; and what must follow.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;

use crate::demo::person::{PATIENCE, Person};
use crate::demo::process::{Line, Process};
use crate::stage::TEAM;

/// A `mortise send` on its way.
#[derive(Debug)]
pub struct Sending {
    /// What is sent.
    pub text: String,
    /// The process that sends it.
    pub process: Process,
}

impl Sending {
    /// Begins to send a text to everybody.
    ///
    /// # Errors
    /// When the process does not start.
    pub fn start(person: &Person, text: String) -> anyhow::Result<Self> {
        let process = person.start(&["send", TEAM, &text])?;
        Ok(Self { text, process })
    }

    /// Waits until the relay has acknowledged it.
    ///
    /// # Errors
    /// When it does not.
    pub fn acknowledged(&self) -> anyhow::Result<()> {
        let is_it = |line: &Line| line.is("appended");
        self.process
            .wait_for(0, PATIENCE, "an acknowledgement", is_it)?;
        Ok(())
    }
}

/// What became of what was sent.
#[derive(Debug, Default)]
pub struct Fate {
    /// Acknowledged, at this position: it is there, once, for ever.
    pub acknowledged: BTreeMap<String, u64>,
    /// Known to be queued: it arrives, once.
    pub queued: Vec<String>,
    /// Refused by a relay that cannot store, and said to be kept nowhere: it is not there.
    pub refused: Vec<String>,
    /// Whoever sent it died, or could not store it: it is there once, or not at all.
    pub unknown: Vec<String>,
}

impl Fate {
    /// How many texts it knows.
    #[must_use]
    pub fn texts(&self) -> usize {
        self.acknowledged.len() + self.queued.len() + self.refused.len() + self.unknown.len()
    }

    /// Waits for the end of a send; a process that was killed says nothing.
    ///
    /// # Errors
    /// When it ended in a way that the crash does not explain.
    pub fn note(&mut self, sending: Sending) -> anyhow::Result<()> {
        let (lines, code) = sending.process.finish(PATIENCE)?;
        let error = lines.iter().find(|line| line.is("error"));
        if let Some(line) = lines.iter().find(|line| line.is("appended")) {
            let seq = line.value["seq"].as_u64().context("no position")?;
            self.acknowledged.insert(sending.text, seq);
        } else if error.is_some_and(|line| line.value["queued"] == true) {
            let queued = i32::from(Exit::Queued.number());
            ensure!(code == queued, "queued with exit code {code}");
            self.queued.push(sending.text);
        } else if code == i32::from(Exit::Refused.number()) {
            self.refused.push(sending.text);
        } else {
            let cause = error.map(|line| line.value.to_string());
            let known =
                [Exit::Daemon, Exit::DiskFull, Exit::Disk].map(|exit| i32::from(exit.number()));
            ensure!(
                code == -1 || known.contains(&code),
                "a send ended with {code}: {cause:?}"
            );
            self.unknown.push(sending.text);
        }
        Ok(())
    }

    /// What everybody reads must be the same, hold what was acknowledged where it was, what was queued, and nothing twice.
    ///
    /// # Errors
    /// What was lost, doubled, moved or torn.
    pub fn check(&self, people: &[Person]) -> anyhow::Result<()> {
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
        for text in &self.refused {
            let found = places.get(text.as_str()).map_or(0, Vec::len);
            ensure!(
                found == 0,
                "{text:?} was refused, and is there {found} times"
            );
        }
        for text in &self.unknown {
            let found = places.get(text.as_str()).map_or(0, Vec::len);
            ensure!(found <= 1, "{text:?} is there {found} times");
        }
        Ok(())
    }
}
