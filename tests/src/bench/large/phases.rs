//! What is done with the group, one phase after the other, and what of it is measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mortise_protocol::identity::UserId;
use serde_json::{Value, json};

use super::Options;
use super::crowd::Crowd;
use super::fixture::Organisation;
use super::wire::{Record, Wire};
use crate::bench::sample::{Durations, Usage};
use crate::bench::worker::{Answer, Ask, Line, Reply, SeenDevice, What};
use crate::bench::{Progress, Report};

/// The owner's device: it creates the group and gives the order.
const OWNER: usize = 0;
/// How often the devices are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the reader is told how far a phase is.
const TELL: Duration = Duration::from_secs(15);

type Values = Vec<(&'static str, Value)>;

/// A bench under way.
pub(super) struct Bench<'a> {
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
    pub(super) report: &'a mut Report,
    pub(super) organisation: Organisation,
    pub(super) crowd: Crowd,
    pub(super) relay_pid: u32,
    pub(super) wire: Wire,
    /// When everything must be over.
    pub(super) until: Instant,
}

/// What relay, workers and network had used when a phase began.
struct Mark {
    relay: Usage,
    workers: Usage,
    traffic: (u64, u64),
    at: Instant,
}

impl Bench<'_> {
    /// Everything.
    ///
    /// # Errors
    /// When a phase fails or does not end in time.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let joined = self.invite()?;
        self.online()?;
        self.create(&joined)?;
        self.warm()?;
        self.talk("talk")?;
        self.remove()?;
        self.agree()
    }

    fn mark(&mut self) -> anyhow::Result<Mark> {
        let mut traffic = (0, 0);
        for reply in self.crowd.ask_all(&Ask::Traffic)? {
            let Reply::Traffic { traffic: more } = reply else {
                bail!("a worker gave another answer");
            };
            for (sent, received) in more {
                traffic = (traffic.0 + sent, traffic.1 + received);
            }
        }
        Ok(Mark {
            relay: Usage::of(self.relay_pid)?,
            workers: Usage::of_all(self.crowd.pids())?,
            traffic,
            at: Instant::now(),
        })
    }

    /// Adds a phase's row, with what it has used since its mark.
    fn row(&mut self, name: &str, mark: &Mark, mut values: Values) -> anyhow::Result<()> {
        let took = mark.at.elapsed();
        let now = self.mark()?;
        let seconds = |later: Usage, earlier: Usage| {
            let ms = later.cpu_ms.saturating_sub(earlier.cpu_ms);
            json!(f64::from(u32::try_from(ms / 10).unwrap_or(u32::MAX)) / 100.0)
        };
        values.extend([
            ("whole_phase_s", json!(took.as_secs())),
            ("relay_cpu_s", seconds(now.relay, mark.relay)),
            ("clients_cpu_s", seconds(now.workers, mark.workers)),
            ("relay_memory_peak_mib", json!(now.relay.peak_mib)),
            ("clients_memory_peak_mib", json!(now.workers.peak_mib)),
            (
                "clients_sent_bytes",
                json!(now.traffic.0.saturating_sub(mark.traffic.0)),
            ),
            (
                "clients_received_bytes",
                json!(now.traffic.1.saturating_sub(mark.traffic.1)),
            ),
        ]);
        self.progress.say(&format!("{name}: done"));
        self.report.row(name, values);
        Ok(())
    }

    /// Looks at the devices until `count` of them are done.
    fn until(
        &mut self,
        what: &str,
        after: u64,
        count: usize,
        mut done: impl FnMut(&SeenDevice) -> bool,
    ) -> anyhow::Result<Vec<SeenDevice>> {
        let within = self.options.limit / 2;
        let until = self.until.min(Instant::now() + within);
        let mut told = Instant::now();
        loop {
            self.progress.check()?;
            let seen = self.crowd.look(after)?;
            let failures = seen.iter().flat_map(|d| &d.failures);
            if let Some(failure) = failures.into_iter().next() {
                bail!("{what}: {failure}");
            }
            let now = seen.iter().filter(|d| done(d)).count();
            if now >= count {
                return Ok(seen);
            }
            let drops: u32 = seen.iter().map(|d| d.drops).sum();
            if told.elapsed() >= TELL {
                let why = seen.iter().find_map(|d| d.last_drop.as_deref());
                let lost = match why {
                    None => "no connection lost".into(),
                    Some(why) => format!("{drops} connections lost so far, one by: {why}"),
                };
                self.progress
                    .say(&format!("{what}: {now} of {count}; {lost}"));
                told = Instant::now();
            }
            if Instant::now() >= until {
                bail!("{what}: {now} of {count} when the time was up; {drops} connections lost");
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Looks at the owner until it is done.
    fn until_owner(
        &mut self,
        what: &str,
        after: u64,
        mut done: impl FnMut(&SeenDevice) -> bool,
    ) -> anyhow::Result<SeenDevice> {
        let mut nth = 0..;
        let members = self.options.members;
        let seen = self.until(what, after, 1, |d| {
            let number = nth.next().unwrap_or(0) % members;
            number == OWNER && done(d)
        })?;
        seen.into_iter().nth(OWNER).context("no owner")
    }

    /// Waits for the owner's next answer of this kind.
    fn answer(&mut self, what: &str, nth: usize) -> anyhow::Result<Answer> {
        let of_kind = |d: &SeenDevice| d.answers.iter().filter(|a| a.what == what).count();
        let owner = self.until_owner(what, u64::MAX, |d| of_kind(d) > nth)?;
        let answer = owner.answers.iter().filter(|a| a.what == what).nth(nth);
        answer.cloned().context("no such answer")
    }

    fn lines(&mut self, after: u64) -> anyhow::Result<Vec<Line>> {
        let ask = Ask::Lines {
            device: OWNER,
            after,
        };
        match self.crowd.ask(OWNER, &ask)? {
            Reply::Lines { lines } => Ok(lines),
            _ => bail!("a worker gave another answer"),
        }
    }

    /// Real invitations, one per process: Argon2id on both sides, one after the other.
    fn invite(&mut self) -> anyhow::Result<Vec<UserId>> {
        self.progress.say("inviting one device per process");
        self.crowd.ask(OWNER, &Ask::Start { device: OWNER })?;
        self.until("the owner comes online", u64::MAX, 1, |d| {
            d.synced_us.is_some()
        })?;
        let mark = self.mark()?;
        let (mut users, mut invited, mut admitted) = (Vec::new(), Vec::new(), Vec::new());
        let newcomers: Vec<usize> = self.crowd.lasts().collect();
        for (nth, device) in newcomers.into_iter().enumerate() {
            let name = format!("newcomer {nth}");
            self.crowd.have(OWNER, What::Invite { name })?;
            let answer = self.answer("invited", nth)?;
            users.push(answer.user.context("no user")?);
            invited.push(answer.at_us - answer.asked_us);
            let link = answer.text;
            self.crowd.ask(device, &Ask::Join { device, link })?;
            let seen = self.until("a newcomer is admitted", u64::MAX, nth + 1, |d| {
                d.admission_us.is_some()
            })?;
            let (asked, at) = seen
                .get(device)
                .and_then(|d| d.admission_us)
                .context("not admitted")?;
            admitted.push(at - asked);
        }
        let (invited, admitted) = (Durations::of(invited), Durations::of(admitted));
        let values = vec![
            ("invitations", json!(invited.count())),
            ("invite_median_ms", invited.median_ms()),
            ("invite_worst_ms", invited.worst_ms()),
            ("join_median_ms", admitted.median_ms()),
            ("join_worst_ms", admitted.worst_ms()),
        ];
        self.row("invitations", &mark, values)?;
        Ok(users)
    }

    /// Everybody connects, verifies the whole roster and stocks KeyPackages.
    fn online(&mut self) -> anyhow::Result<()> {
        let at_once = self.options.at_once;
        let members = self.options.members;
        self.progress.say(&format!("{members} devices come online"));
        let mark = self.mark()?;
        self.crowd.ask_all(&Ask::StartAll { at_once })?;
        let seen = self.until("online", u64::MAX, members, |d| d.synced_us.is_some())?;
        let took = seen
            .iter()
            .skip(1)
            .filter_map(|d| Some(d.synced_us? - d.started_us?));
        let took = Durations::of(took);
        let values = vec![
            ("devices", json!(members)),
            ("at_once_per_process", json!(at_once)),
            ("up_to_date_median_ms", took.median_ms()),
            ("up_to_date_worst_ms", took.worst_ms()),
        ];
        self.row("online", &mark, values)
    }

    /// The group, with everybody in it.
    fn create(&mut self, joined: &[UserId]) -> anyhow::Result<()> {
        let members = self.options.members;
        self.progress
            .say(&format!("the owner creates a group of {members}"));
        let mark = self.mark()?;
        let nobody = UserId([0; 16]);
        let made = (1..members).map(|n| self.organisation.user(n));
        let mut users: Vec<UserId> = made.collect::<Result<_, _>>()?;
        users.retain(|user| *user != nobody);
        users.extend(joined);
        self.crowd.have(OWNER, What::Create { users })?;
        let created = self.answer("created", 0)?;
        let mut welcome = 0;
        let wire = Wire::clone(&self.wire);
        self.until("in the group", 0, members - 1, |d| {
            welcome = wire.largest_welcome().unwrap_or(0).max(welcome);
            d.joined_us.is_some()
        })?;
        let done = self.answer("done", 0)?;
        let last = self.last_seq()?;
        let seen = self.until("the last commit", 0, members, |d| d.last_seq >= last)?;
        let start = created.asked_us;
        let joined = Durations::of(seen.iter().filter_map(|d| Some(d.joined_us? - start)));
        let all = Durations::of(arrivals(&seen, last).map(|at| at - start));
        let commits = sizes(&self.wire.log(0)?, |r| r.is_commit);
        let values = vec![
            ("members", json!(members)),
            ("commits", json!(commits.len())),
            ("largest_commit_bytes", json!(commits.last())),
            ("largest_welcome_bytes", json!(welcome)),
            ("creator_done_ms", json!((done.at_us - start) / 1_000)),
            ("in_the_group_median_ms", joined.median_ms()),
            ("in_the_group_worst_ms", joined.worst_ms()),
            ("last_commit_followed_median_ms", all.median_ms()),
            ("last_commit_followed_worst_ms", all.worst_ms()),
        ];
        self.row("create", &mark, values)
    }

    /// The newest line of the owner's history.
    fn last_seq(&mut self) -> anyhow::Result<u64> {
        let lines = self.lines(0)?;
        lines.last().map(|l| l.seq).context("no history")
    }

    /// The group is left alone: members refresh their leaves, one after the other, until commits are small.
    fn warm(&mut self) -> anyhow::Result<()> {
        let warm = self.options.warm;
        self.progress
            .say(&format!("the group warms for {} s", warm.as_secs()));
        let after = self.last_seq()?;
        let mark = self.mark()?;
        while mark.at.elapsed() < warm && Instant::now() < self.until {
            self.progress.check()?;
            std::thread::park_timeout(LOOK);
        }
        let log = self.wire.log(after)?;
        let sizes: Vec<usize> = log
            .iter()
            .filter(|r| r.is_commit)
            .map(|r| r.bytes)
            .collect();
        let values = vec![
            ("commits", json!(sizes.len())),
            ("first_commit_bytes", json!(sizes.first())),
            ("last_commit_bytes", json!(sizes.last())),
            ("all_commits_bytes", json!(sizes.iter().sum::<usize>())),
        ];
        self.row("warm", &mark, values)?;
        self.report.note(
            "warming goes on by itself, at its own pace, while later phases run; the row shows what it did in its time",
        );
        Ok(())
    }

    /// Every process sends; everybody gets everything.
    fn talk(&mut self, name: &str) -> anyhow::Result<()> {
        let senders: Vec<usize> = self.crowd.firsts().collect();
        let members = self.options.members;
        let rounds = self.options.messages;
        self.progress.say(&format!(
            "{} devices send {rounds} messages each",
            senders.len()
        ));
        let after = self.last_seq()?;
        let mark = self.mark()?;
        let (mut acked, mut delivered, mut each) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            for &device in &senders {
                let text = format!("message {round} of device {device}: a short line of text");
                self.crowd.have(device, What::Send { text })?;
            }
            let is_sent = |d: &SeenDevice| sent(d).count() > round;
            self.until("sent", after, senders.len(), is_sent)?;
        }
        let count = senders.len() * rounds;
        let acked_seqs = self.crowd.look(after)?;
        let last = acked_seqs.iter().flat_map(sent).map(|a| a.number).max();
        let last = last.context("nothing was sent")?;
        let seen = self.until("delivered", after, members, |d| d.last_seq >= last)?;
        let asked: BTreeMap<u64, u64> = seen
            .iter()
            .flat_map(|d| sent(d).skip(sent(d).count().saturating_sub(rounds)))
            .map(|a| (a.number, a.asked_us))
            .collect();
        for answer in seen.iter().flat_map(sent) {
            if asked.contains_key(&answer.number) {
                acked.push(answer.at_us - answer.asked_us);
            }
        }
        for (seq, at) in seen.iter().flat_map(|d| &d.seen) {
            if let Some(asked) = asked.get(seq) {
                delivered.push(at.saturating_sub(*asked));
            }
        }
        for record in self.wire.log(after)? {
            if record.is_message {
                each = each.max(record.bytes);
            }
        }
        let (acked, delivered) = (Durations::of(acked), Durations::of(delivered));
        let values = vec![
            ("messages", json!(count)),
            ("deliveries", json!(delivered.count())),
            ("message_bytes", json!(each)),
            ("acknowledged_median_ms", acked.median_ms()),
            ("acknowledged_worst_ms", acked.worst_ms()),
            ("delivered_median_ms", delivered.median_ms()),
            ("delivered_worst_ms", delivered.worst_ms()),
        ];
        self.row(name, &mark, values)
    }

    /// The owner orders somebody's removal; the others rotate the group's keys.
    fn remove(&mut self) -> anyhow::Result<()> {
        let leaver = self.leaver()?;
        let user = self.organisation.user(leaver)?;
        self.progress
            .say(&format!("the owner removes the user of device {leaver}"));
        let after = self.last_seq()?;
        let mark = self.mark()?;
        self.crowd.have(OWNER, What::RemoveUser { user })?;
        let ordered = self.answer("ordered", 0)?;
        let start = ordered.asked_us;
        let rotated = self.rotation(after)?;
        let rest = self.options.members - 1;
        let seen = self.until("the new epoch", after, rest, |d| d.last_seq >= rotated.seq)?;
        let expelled = seen.get(leaver).and_then(|d| d.expelled_us);
        let all = Durations::of(arrivals(&seen, rotated.seq).map(|at| at - start));
        let order = ordered.number;
        self.crowd.have(OWNER, What::OrderStatus { order })?;
        let status = self.answer("status", 0)?;
        let log = self.wire.log(after)?;
        let commit = log.iter().find(|r| r.seq == rotated.seq);
        let leaver_out = expelled.map(|at| (at - start) / 1_000);
        let values = vec![
            (
                "ordered_ms",
                Durations::of([ordered.at_us - start]).worst_ms(),
            ),
            ("leaver_out_ms", json!(leaver_out)),
            (
                "removal_acknowledged_ms",
                json!((rotated.at_ms * 1_000).saturating_sub(start) / 1_000),
            ),
            ("commit_bytes", json!(commit.map(|c| c.bytes))),
            ("in_the_new_epoch", json!(all.count())),
            ("in_the_new_epoch_median_ms", all.median_ms()),
            ("in_the_new_epoch_worst_ms", all.worst_ms()),
            ("order_status", json!(status.text)),
        ];
        self.row("remove", &mark, values)
    }

    /// A device in the middle of the last process: neither its first nor its newcomer, if it has three.
    fn leaver(&self) -> anyhow::Result<usize> {
        let first = self.crowd.firsts().last().context("no process")?;
        let last = self.crowd.lasts().last().context("no process")?;
        Ok(first + (last - first) / 2)
    }

    /// The first line of history that says that keys were rotated.
    fn rotation(&mut self, after: u64) -> anyhow::Result<Line> {
        let mut known = after;
        loop {
            self.until_owner("the removal", after, |d| d.last_seq > known)?;
            let lines = self.lines(after)?;
            known = lines.last().map_or(known, |l| l.seq);
            if let Some(line) = lines.into_iter().find(|l| l.kind == "rotated") {
                return Ok(line);
            }
        }
    }

    /// Everybody who is in the group is in the same epoch, with the same secrets.
    fn agree(&mut self) -> anyhow::Result<()> {
        let mut states: BTreeMap<(u64, Vec<u8>), usize> = BTreeMap::new();
        for reply in self.crowd.ask_all(&Ask::States)? {
            let Reply::States { states: some } = reply else {
                bail!("a worker gave another answer");
            };
            for state in some.into_iter().flatten() {
                *states.entry(state).or_default() += 1;
            }
        }
        let rest = self.options.members - 1;
        let counts: Vec<usize> = states.values().copied().collect();
        anyhow::ensure!(
            counts == [rest],
            "{rest} devices should agree on the epoch, and these many do: {counts:?}"
        );
        let drops: u32 = self.crowd.look(u64::MAX)?.iter().map(|d| d.drops).sum();
        self.report.note(format!(
            "at the end {rest} devices have the same epoch authenticator; connections lost on the way: {drops} \
             (one of them the leaver's)"
        ));
        Ok(())
    }
}

fn sent(device: &SeenDevice) -> impl Iterator<Item = &Answer> {
    device.answers.iter().filter(|a| a.what == "appended")
}

/// When each device had the record at `seq`, or one after it.
fn arrivals(seen: &[SeenDevice], seq: u64) -> impl Iterator<Item = u64> {
    seen.iter().filter_map(move |device| {
        let times = device.seen.iter().filter(|(s, _)| *s >= seq);
        times.map(|(_, at)| *at).min()
    })
}

/// The sizes of some records, ascending.
fn sizes(log: &[Record], which: impl Fn(&Record) -> bool) -> Vec<usize> {
    let mut sizes: Vec<usize> = log.iter().filter(|r| which(r)).map(|r| r.bytes).collect();
    sizes.sort_unstable();
    sizes
}
