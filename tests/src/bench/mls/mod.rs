//! What MLS costs a device, beside the stacks that others use: leaving (`departure`) and talking (`sendpath`).
//!
//! The same history for each: a group is filled by commits of 250, warmed or not, and then somebody is removed, or messages are
//! sent. Every step ends when the state is in a SQLCipher file with `synchronous=FULL`. Costs are processor time of the process, in
//! which nothing else works: waiting for the disk is not among them. Nobody's transport, roster or rules are in here.

mod disk;
mod other;
mod ours;
mod stack;
mod stock;

use serde_json::{Value, json};

use self::disk::timed;
use self::other::Other;
use self::ours::Ours;
use self::stack::{Device, Group, warming_order};
use self::stock::Stock;
use super::{Goal, Progress, Report};

const CLASSICAL: u16 = 0x0001;
const HYBRID: u16 = 0x004F;
/// The size at which goals are set.
const GOAL_SIZE: usize = 1_000;
/// Members that follow the removal, of all; what the others would cost is their mean.
const RECEIVERS: usize = 8;
/// Larger trees are not warmed here: each of n/8 devices would follow the commits of all before it.
const LARGEST_WARMED: usize = 1_000;
/// Members that talk in turn, and messages of each in one round.
const SPEAKERS: usize = 8;
const ROUNDS: usize = 25;
/// A message as people write them.
const TEXT: &[u8] = &[b'x'; 200];

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Group sizes.
    pub sizes: Vec<usize>,
    /// The MLS ciphersuites.
    pub suites: Vec<u16>,
    /// How often each group is made anew.
    pub rounds: usize,
}

fn notes(report: &mut Report) {
    report.machine();
    report.note(
        "openmls: its RustCrypto provider and signer; its SQLite storage links another SQLite than ours, so its memory storage \
         encodes (JSON) and the rows that a step has changed are written to a file like ours; finding them is not counted",
    );
    report.note(
        "mls-rs: write_to_storage after every step, into a file like ours; its RustCrypto provider (its AWS-LC one links \
         another AWS-LC than ours), for 0x004F with the KEM of openmls's provider",
    );
    report.note(
        "processor time of the process, in user and system mode; every state in SQLCipher with synchronous=FULL",
    );
}

/// What a departure has cost, ns of processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Departure {
    /// Making the commit, and having it pending on disk.
    commit_ns: u64,
    /// Following it when it was met in the log.
    apply_ns: u64,
    bytes: usize,
    /// Following it, the mean of the others.
    receiver_ns: u64,
}

impl Departure {
    fn row(&self, members: usize) -> Vec<(&'static str, Value)> {
        let others = u64::try_from(members).unwrap_or_default().saturating_sub(2);
        let group_ns = self.commit_ns + self.apply_ns + others * self.receiver_ns;
        vec![
            ("commit_made_ms", ms(self.commit_ns)),
            ("commit_followed_by_its_maker_ms", ms(self.apply_ns)),
            ("commit_bytes", json!(self.bytes)),
            ("receiver_ms", ms(self.receiver_ns)),
            ("whole_group_ms", ms(group_ns)),
        ]
    }
}

#[allow(clippy::cast_precision_loss)]
fn ms(ns: u64) -> Value {
    json!((ns as f64 / 10_000.0).round() / 100.0)
}

#[allow(clippy::cast_precision_loss)]
fn ratio(ours: u64, theirs: u64) -> f64 {
    ours as f64 / theirs as f64
}

fn suite_name(suite: u16) -> &'static str {
    if suite == CLASSICAL {
        "0x0001"
    } else {
        "0x004F"
    }
}

fn mean(all: &[u64]) -> u64 {
    let count = u64::try_from(all.len()).unwrap_or(1).max(1);
    all.iter().sum::<u64>() / count
}

/// Leaves of members that follow, spread over the tree; the one who goes is between them.
fn receivers(members: usize) -> Vec<usize> {
    let step = (members / RECEIVERS).max(1);
    let gone = gone(members);
    let all = (1..members).step_by(step).filter(|leaf| *leaf != gone);
    all.take(RECEIVERS).collect()
}

/// The leaf of the one who goes.
fn gone(members: usize) -> usize {
    members / 2
}

fn depart<D: Device>(members: usize, suite: u16, warmed: bool) -> anyhow::Result<Departure> {
    let stay = receivers(members);
    let order = if warmed {
        warming_order(members)
    } else {
        Vec::new()
    };
    let order: Vec<usize> = order
        .into_iter()
        .filter(|leaf| *leaf != gone(members))
        .collect();
    let mut keep = [stay.clone(), order.clone()].concat();
    keep.sort_unstable();
    keep.dedup();
    let mut group: Group<D> = Group::fill(members, suite, &keep)?;
    group.warm(&order, &stay)?;
    if warmed {
        // The one who removes has refreshed its own leaf, too.
        let commit = group.creator.commit(None)?.commit;
        group.creator.apply_own()?;
        for (_, device) in &mut group.kept {
            device.follow(&commit)?;
        }
    }
    let leaf = u32::try_from(gone(members))?;
    let (commit, commit_ns) = timed(|| group.creator.commit(Some(leaf)))?;
    let (_, apply_ns) = timed(|| group.creator.apply_own())?;
    let mut each = Vec::new();
    for (_, device) in &mut group.kept {
        each.push(timed(|| device.follow(&commit.commit))?.1);
    }
    group.agree()?;
    Ok(Departure {
        commit_ns,
        apply_ns,
        bytes: commit.commit.len(),
        receiver_ns: mean(&each),
    })
}

/// The middle of several rounds, each number by itself.
fn middle(rounds: &[Departure]) -> Departure {
    let of = |number: &dyn Fn(&Departure) -> u64| {
        let mut all: Vec<u64> = rounds.iter().map(number).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Departure {
        commit_ns: of(&|d| d.commit_ns),
        apply_ns: of(&|d| d.apply_ns),
        bytes: rounds.last().map_or(0, |d| d.bytes),
        receiver_ns: of(&|d| d.receiver_ns),
    }
}

/// Removes one of many and brings everybody into the new epoch.
///
/// # Errors
/// When a stack refuses a step, or the members do not agree in the end.
pub fn departure(
    options: &Options,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    notes(report);
    report.note(format!(
        "{RECEIVERS} members follow the removal in full (fewer in small groups); the whole group is the commit and as many \
         means of theirs as there are others. Warmed: one member of each eight has committed new keys, in bit-reversed order, and \
         so has the one who removes; groups over {LARGEST_WARMED} are not warmed here"
    ));
    report.rounds(u64::try_from(options.rounds)?);
    for &suite in &options.suites {
        for &members in &options.sizes {
            for warmed in [false, true] {
                if warmed && members > LARGEST_WARMED {
                    continue;
                }
                let state = if warmed { "warmed" } else { "fresh" };
                let title = format!("{}, {members}, {state}", suite_name(suite));
                progress.say(&title);
                let (mut ours, mut stock, mut other) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..options.rounds {
                    progress.check()?;
                    ours.push(depart::<Ours>(members, suite, warmed)?);
                    stock.push(depart::<Stock>(members, suite, warmed)?);
                    other.push(depart::<Other>(members, suite, warmed)?);
                }
                let all = [middle(&ours), middle(&stock), middle(&other)];
                for (name, one) in ["mortise", "openmls", "mls-rs"].iter().zip(&all) {
                    report.row(format!("{title}: {name}"), one.row(members));
                }
                if members == GOAL_SIZE {
                    judge_departure(report, suite, warmed, &all);
                }
            }
        }
    }
    Ok(())
}

fn judge_departure(
    report: &mut Report,
    suite: u16,
    warmed: bool,
    [ours, stock, other]: &[Departure; 3],
) {
    let state = if warmed { "warmed" } else { "fresh" };
    let name = |what: &str| format!("{}, {GOAL_SIZE}, {state}: {what}", suite_name(suite));
    let receiver = ratio(ours.receiver_ns, stock.receiver_ns);
    let what = name("receiver, of stock openmls");
    report.goal(&what, receiver, Goal::AtMost(0.35), "x");
    report.row(
        name("ours, of the others"),
        vec![
            (
                "commit_of_openmls",
                json!(round(ratio(ours.commit_ns, stock.commit_ns))),
            ),
            (
                "commit_of_mls_rs",
                json!(round(ratio(ours.commit_ns, other.commit_ns))),
            ),
            ("receiver_of_openmls", json!(round(receiver))),
            (
                "receiver_of_mls_rs",
                json!(round(ratio(ours.receiver_ns, other.receiver_ns))),
            ),
        ],
    );
    if warmed {
        let bound = if suite == HYBRID { 42_000.0 } else { 3_000.0 };
        let bytes = f64::from(u32::try_from(ours.bytes).unwrap_or(u32::MAX));
        report.goal(&name("commit"), bytes, Goal::AtMost(bound), "bytes");
    }
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// What a message costs, ns of processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    send_ns: u64,
    receive_ns: u64,
    bytes: usize,
}

/// Members talk in turn, and one of them hears all; the first round is not counted.
fn talk<D: Device>(members: usize, suite: u16) -> anyhow::Result<Talk> {
    let step = ((members - 1) / SPEAKERS).max(1);
    let speakers: Vec<usize> = (1..members).step_by(step).take(SPEAKERS).collect();
    let mut group: Group<D> = Group::fill(members, suite, &speakers)?;
    let mut talk = Talk::default();
    let (mut sent, mut received) = (0, 0);
    let mut count = 0;
    for round in 0..=ROUNDS {
        let mut messages = Vec::new();
        let (_, cost) = timed(|| {
            for (_, device) in &mut group.kept {
                messages.push(device.send(TEXT)?);
            }
            Ok(())
        })?;
        sent += if round == 0 { 0 } else { cost };
        let (_, cost) = timed(|| {
            for message in &messages {
                anyhow::ensure!(group.creator.receive(message)? == TEXT, "another text");
            }
            Ok(())
        })?;
        received += if round == 0 { 0 } else { cost };
        count += if round == 0 { 0 } else { messages.len() };
        talk.bytes = messages.first().map_or(0, Vec::len);
    }
    let count = u64::try_from(count)?.max(1);
    (talk.send_ns, talk.receive_ns) = (sent / count, received / count);
    Ok(talk)
}

/// Encrypts and persists, receives and persists.
///
/// # Errors
/// When a stack refuses a step.
pub fn sendpath(options: &Options, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    notes(report);
    report.note(format!(
        "{SPEAKERS} members send {ROUNDS} messages of {} bytes each in turn, one hears all; the first round of an epoch, which \
         derives their ratchets, is not counted",
        TEXT.len()
    ));
    report.rounds(u64::try_from(options.rounds)?);
    for &suite in &options.suites {
        for &members in &options.sizes {
            let title = format!("{}, {members}", suite_name(suite));
            progress.say(&title);
            let (mut ours, mut stock, mut other) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..options.rounds {
                progress.check()?;
                // A B B A, so that what the machine does meanwhile falls on all alike.
                if round % 2 == 0 {
                    ours.push(talk::<Ours>(members, suite)?);
                    stock.push(talk::<Stock>(members, suite)?);
                    other.push(talk::<Other>(members, suite)?);
                } else {
                    other.push(talk::<Other>(members, suite)?);
                    stock.push(talk::<Stock>(members, suite)?);
                    ours.push(talk::<Ours>(members, suite)?);
                }
            }
            judge_talk(report, members, &title, [&ours, &stock, &other]);
        }
    }
    Ok(())
}

fn judge_talk(report: &mut Report, members: usize, title: &str, all: [&[Talk]; 3]) {
    let of = |rounds: &[Talk], number: &dyn Fn(&Talk) -> u64| {
        let mut all: Vec<u64> = rounds.iter().map(number).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let send = all.map(|rounds| of(rounds, &|t| t.send_ns));
    let receive = all.map(|rounds| of(rounds, &|t| t.receive_ns));
    for (nth, name) in ["mortise", "openmls", "mls-rs"].into_iter().enumerate() {
        let bytes = all[nth].last().map_or(0, |t| t.bytes);
        report.row(
            format!("{title}: {name}"),
            vec![
                ("send_us", json!(send[nth] / 1_000)),
                ("receive_us", json!(receive[nth] / 1_000)),
                ("message_bytes", json!(bytes)),
            ],
        );
    }
    for (what, [ours, stock, other]) in [("send", send), ("receive", receive)] {
        let name = format!("{title}: {what}, of stock openmls");
        report.goal(&name, ratio(ours, stock), Goal::AtMost(0.4), "x");
        if members >= GOAL_SIZE {
            let name = format!("{title}: {what}, mls-rs costs so many times more");
            report.goal(&name, ratio(other, ours), Goal::AtLeast(10.0), "x");
        }
    }
}
