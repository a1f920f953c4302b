//! What the leaver tries once they are out, live and with the relay's files, and what members can do with the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use mortise_client::machine::system_rng;
use mortise_protocol::identity::{RosterSeq, SigningKey};
use serde_json::json;

use super::attack::Attack;
use super::attack::files::{ReadMessage, Reading, RelayFiles, read_with};
use super::attack::knock::{Answers, Knock, knock};
use super::attack::replay::{RosterShown, play};
use super::cast::PersonId;
use super::person::Person;
use super::removal::Order;
use super::report::DemoResult;
use super::story::{Said, Spoils, Story};
use super::vault::ProfileCopy;

/// What was taken from the relay.
pub(super) struct Seized {
    /// Its data directory as it was while it ran.
    pub(super) running: PathBuf,
    /// Its data directory after it has ended.
    pub(super) stopped: PathBuf,
    /// All that it printed.
    pub(super) logs: PathBuf,
    /// What its database holds.
    pub(super) files: RelayFiles,
}

const COME_BACK: [&str; 5] = [
    "Hello",
    "FetchInbox",
    "FetchSlots",
    "ClaimKeyPackages",
    "push",
];
const FETCH: [&str; 2] = ["Subscribe", "push"];
const WRITE: [&str; 1] = ["Submit"];
const ALL: [&str; 7] = [
    "Hello",
    "FetchInbox",
    "FetchSlots",
    "ClaimKeyPackages",
    "Subscribe",
    "Submit",
    "push",
];

impl Story<'_> {
    /// Copies of the profiles of everybody who will speak, with the keys of the groups' new epochs.
    pub(super) fn copy_members(&mut self) -> anyhow::Result<Vec<ProfileCopy>> {
        let groups = self.groups.iter();
        let speakers: BTreeSet<PersonId> = groups
            .flat_map(|group| self.cast.stayers(&group.plan).take(2))
            .collect();
        let copies = speakers
            .iter()
            .map(|person| ProfileCopy::take(&self.people[*person], "copy-control"))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let sentence = format!(
            "{} members' profiles are copied, for the control",
            copies.len()
        );
        self.tell(
            "members_copied",
            &sentence,
            &json!({ "profiles": copies.len() }),
        );
        Ok(copies)
    }

    /// The attacks on the running relay.
    pub(super) fn attack_live(
        &mut self,
        spoils: &Spoils,
        members: &[ProfileCopy],
        order: &Order,
    ) -> anyhow::Result<()> {
        self.attack_open_connections(spoils, order)?;
        self.attack_by_reconnecting(spoils)?;
        self.control_of_the_knock(members)?;
        for (name, link, what) in [
            (
                "used_invitation",
                &spoils.used_link,
                "the invitation that they joined with",
            ),
            (
                "spare_invitation",
                &spoils.spare_link,
                "the link for a second device, made in time and never used",
            ),
        ] {
            let attack = self.redeem(name, link, what)?;
            self.attacked(attack);
        }
        Ok(())
    }

    fn attack_open_connections(&mut self, spoils: &Spoils, order: &Order) -> anyhow::Result<()> {
        let after: BTreeSet<&str> = self.said_after.iter().map(|s| s.text.as_str()).collect();
        let lines = self.leaver().device()?.lines();
        let heard: Vec<String> = lines
            .iter()
            .filter_map(|line| line.value["text"].as_str())
            .filter(|text| after.contains(text))
            .map(|_| "a message".to_owned())
            .collect();
        let detail = format!(
            "the connection that was open: cut, and none of {} messages came over it",
            after.len()
        );
        self.attacked(Attack::new("open_connection", &heard, detail));
        let leaked = spoils.tap.leaked(order.seq);
        let gains: Vec<String> = (leaked > 0)
            .then(|| format!("{leaked} records"))
            .into_iter()
            .collect();
        let detail = "a modified client that never hangs up: cut, and no record since the order came over it";
        self.attacked(Attack::new("modified_client", &gains, detail.into()));
        Ok(())
    }

    fn attack_by_reconnecting(&mut self, spoils: &Spoils) -> anyhow::Result<()> {
        let late = spoils
            .late
            .as_ref()
            .context("no copy of the leaver's profile")?;
        let groups = self.leavers_groups();
        let answers = self
            .runtime
            .block_on(knock(late.engine("knock")?, Knock::Own))?;
        for (name, requests, what) in [
            (
                "reconnect",
                &COME_BACK[..],
                "a new connection with their keys: Hello, inbox, KeyPackages",
            ),
            (
                "fetch_logs",
                &FETCH[..],
                "the logs of their groups, with proofs of the last access keys they had",
            ),
            (
                "write_old_epoch",
                &WRITE[..],
                "messages in the epochs that they knew",
            ),
        ] {
            self.attacked(of_answers(name, requests, what, &answers));
        }
        let stranger = Arc::new(SigningKey::generate(&mut system_rng()));
        let answers_to_stranger = self
            .runtime
            .block_on(knock(late.engine("stranger")?, Knock::As(stranger)))?;
        let what = "the same from a device that nobody knows, with the leaver's access keys";
        self.attacked(of_answers("stranger", &ALL, what, &answers_to_stranger));
        let mounted = [&answers, &answers_to_stranger]
            .iter()
            .all(|a| a.asked(&["Subscribe"]) >= groups && a.asked(&["Submit"]) >= groups);
        let sentence = format!(
            "every one of the {groups} groups was asked for and written to, with a proof each"
        );
        self.control("attacks_were_mounted", mounted, &sentence);
        Ok(())
    }

    /// The same code with the keys of somebody who stayed is let in, and is given their groups' records.
    fn control_of_the_knock(&mut self, members: &[ProfileCopy]) -> anyhow::Result<()> {
        let member = members.first().context("no copy of a member's profile")?;
        let knocking = knock(member.engine("knock")?, Knock::Reading);
        let answers = self.runtime.block_on(knocking)?;
        let granted = |name: &str| answers.gains(&[name]).len();
        let sentence = format!(
            "a member's keys, with the same code, are welcomed, and open {} logs",
            granted("Subscribe")
        );
        let let_in = granted("Hello") == 1
            && granted("Subscribe") >= 2
            && granted("push") >= 1
            && answers.refused.is_empty();
        self.control("a_member_is_let_in", let_in, &sentence);
        Ok(())
    }

    fn redeem(&self, name: &'static str, link: &str, what: &str) -> anyhow::Result<Attack> {
        let number = self.people.len() + self.attacks.len();
        let passphrase = self.leaver().passphrase.clone();
        let again = Person::new(
            &self.binaries.client,
            &self.base,
            number,
            "the leaver",
            passphrase,
        )?;
        let done = again.run(&["join", link])?;
        let error = done.lines.iter().find(|line| line.is("error"));
        let why = error
            .and_then(|l| l.value["message"].as_str())
            .unwrap_or("no reason given");
        let joined = done.code == 0 || done.event("joined").is_ok();
        let gains: Vec<String> = joined
            .then(|| "it was admitted".to_owned())
            .into_iter()
            .collect();
        Ok(Attack::new(name, &gains, format!("{what}: {why}")))
    }

    /// Copies the running relay's directory, then stops it and reads what it has.
    pub(super) fn seize_relay(&mut self) -> anyhow::Result<Seized> {
        let running = self.base.join("seized");
        let relay = self.relay.take().context("the relay has been stopped")?;
        relay.copy_data(&running)?;
        let logs = relay.logs().to_owned();
        let stopped = relay.stop()?;
        let files = RelayFiles::read(&stopped.join("relay.db"))?;
        let records: usize = files.logs.values().map(Vec::len).sum();
        let sentence = format!(
            "the relay is stopped, and hands over all its files: {records} records of {} groups",
            files.logs.len()
        );
        self.tell(
            "relay_seized",
            &sentence,
            &json!({ "records": records, "groups": files.logs.len() }),
        );
        Ok(Seized {
            running,
            stopped,
            logs,
            files,
        })
    }

    /// The relay's files against the leaver's keys, and against members'.
    pub(super) fn attack_files(
        &mut self,
        seized: &Seized,
        spoils: &Spoils,
        members: &[ProfileCopy],
        order: &Order,
        result: &mut DemoResult,
    ) -> anyhow::Result<()> {
        let files = &seized.files;
        let found = files.messages_since(order.seq);
        let sentence = format!(
            "the relay holds {found} ciphertexts since the order, for {} messages",
            self.said_after.len()
        );
        self.control(
            "ciphertexts_are_there",
            found == self.said_after.len(),
            &sentence,
        );
        result.decrypted_by_members = self.members_read(files, members)?;
        result.decrypted_by_removed = self.leaver_reads(files, spoils, order.seq)?;
        Ok(())
    }

    fn members_read(
        &mut self,
        files: &RelayFiles,
        members: &[ProfileCopy],
    ) -> anyhow::Result<usize> {
        let (mut direct, mut played) = (BTreeSet::new(), BTreeSet::new());
        for (n, member) in members.iter().enumerate() {
            let reading = read_with(&member.store()?, files, false)?;
            direct.extend(self.since_removal(&reading.read));
            // Two devices suffice to show that the playback works.
            if n < 2 {
                let read = play(member.engine("played")?, files, RosterShown::Whole)?;
                played.extend(self.since_removal(&read));
            }
        }
        let all = self.said_after.len();
        let sentence = format!(
            "members' keys decrypt {} of {all} messages from the relay's files",
            direct.len()
        );
        self.control("members_decrypt", direct.len() == all, &sentence);
        let sentence = format!(
            "two members' devices, fed the same files, show {} of their groups' messages",
            played.len()
        );
        self.control("members_devices_decrypt", !played.is_empty(), &sentence);
        Ok(direct.len())
    }

    fn leaver_reads(
        &mut self,
        files: &RelayFiles,
        spoils: &Spoils,
        order: RosterSeq,
    ) -> anyhow::Result<usize> {
        let late = spoils
            .late
            .as_ref()
            .context("no copy of the leaver's profile")?;
        let now = ProfileCopy::take_again(late, self.leaver(), "copy-now")?;
        let mut got = BTreeSet::new();
        let mut gains = Vec::new();
        let mut tried = 0;
        let copies = [("early", &spoils.early), ("late", late), ("now", &now)];
        for (label, copy) in copies {
            let reading = read_with(&copy.store()?, files, true)?;
            tried += reading.tried;
            got.extend(self.since_removal(&reading.read));
            gains.extend(
                unlawful(&reading, files, order).map(|gain| format!("{gain} ({label} copy)")),
            );
            if label == "early" {
                self.control_of_the_reader(&reading);
            }
        }
        let detail = format!(
            "the relay's files against three copies of their keys: {tried} attempts at {} logs",
            files.logs.len()
        );
        self.attacked(Attack::new("relay_files", &gains, detail));
        let mut gains = Vec::new();
        for (label, copy) in copies {
            for (tag, shown) in [
                ("whole", RosterShown::Whole),
                ("hidden", RosterShown::WithoutNews),
            ] {
                let read = play(copy.engine(&format!("{label}-{tag}"))?, files, shown)?;
                let fresh = self.since_removal(&read);
                gains.extend(fresh.iter().map(|_| "a message".to_owned()));
                got.extend(fresh);
            }
        }
        let detail = "their device fed by a relay that serves everybody, with the order shown and with it hidden";
        self.attacked(Attack::new("lying_relay", &gains, detail.into()));
        Ok(got.len())
    }

    /// The reader works: from before the talk on, it opens what was said to the leaver while they belonged.
    fn control_of_the_reader(&mut self, reading: &Reading) {
        let leaver = self.cast.leaver();
        let theirs =
            |said: &&Said| said.by != leaver && self.cast.has_leaver(&self.groups[said.group].plan);
        let entitled = self.said_before.iter().filter(theirs).count();
        let opened = index(&self.said_before, self, &reading.read).len();
        let sentence = format!(
            "with their early copy the leaver decrypts {opened} of {entitled} messages from before, by the same code"
        );
        self.control(
            "leaver_decrypts_the_past",
            entitled > 0 && opened == entitled,
            &sentence,
        );
    }

    /// Which of the messages after the removal were read.
    fn since_removal(&self, read: &[ReadMessage]) -> BTreeSet<usize> {
        index(&self.said_after, self, read)
    }
}

/// Which of `said` were read, word for word and in their group.
fn index(said: &[Said], story: &Story<'_>, read: &[ReadMessage]) -> BTreeSet<usize> {
    let known: BTreeMap<_, usize> = said
        .iter()
        .enumerate()
        .map(|(n, s)| ((story.groups[s.group].id, s.text.as_str()), n))
        .collect();
    read.iter()
        .filter_map(|r| known.get(&(r.group, r.text.as_str())).copied())
        .collect()
}

/// Whatever the leaver's keys have opened that was appended under the order, except the commits that say they are out.
fn unlawful<'a>(
    reading: &'a Reading,
    files: &'a RelayFiles,
    order: RosterSeq,
) -> impl Iterator<Item = String> + 'a {
    let fence = |message: &ReadMessage| {
        let records = files.logs.get(&message.group).into_iter().flatten();
        records
            .filter(|r| r.seq == message.seq)
            .map(|r| r.fence)
            .max()
    };
    let messages = reading
        .read
        .iter()
        .filter(move |message| fence(message).is_none_or(|fence| fence >= order))
        .map(|_| "a message".to_owned());
    let commits = reading
        .followed
        .iter()
        .filter(move |(_, fence)| *fence >= order)
        .map(|_| "the keys of a new epoch".to_owned());
    let welcomes = (reading.joined > 0).then(|| format!("{} Welcomes", reading.joined));
    messages.chain(commits).chain(welcomes)
}

fn of_answers(name: &'static str, requests: &[&str], what: &str, answers: &Answers) -> Attack {
    let detail = format!(
        "{what}: {} requests, {}",
        answers.asked(requests),
        answers.reasons(requests)
    );
    Attack::new(name, &answers.gains(requests), detail)
}
