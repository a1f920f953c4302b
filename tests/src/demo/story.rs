//! The first half of the story: an organisation is founded, people join, groups form, they talk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use mortise_client::machine::system_rng;
use mortise_protocol::identity::GroupId;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::attack::Attack;
use super::attack::tap::Tap;
use super::cast::{ADMIN, Cast, GroupPlan, OWNER, PersonId, remark};
use super::person::{Person, text};
use super::process::Binaries;
use super::relay::RelayProcess;
use super::report::Narrator;
use super::vault::ProfileCopy;

/// People that join at the same time: each derives keys from a passphrase, which costs memory on purpose.
const JOIN_AT_ONCE: usize = 3;

/// A group that exists.
#[derive(Clone, Debug)]
pub(super) struct LiveGroup {
    pub(super) plan: GroupPlan,
    pub(super) id: GroupId,
    pub(super) hex: String,
}

/// Something that was said.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) group: usize,
    pub(super) by: PersonId,
    pub(super) text: String,
}

/// What the leaver has put aside.
pub(super) struct Spoils {
    /// Their profile before anybody talked.
    pub(super) early: ProfileCopy,
    /// Their profile right before the order.
    pub(super) late: Option<ProfileCopy>,
    /// A second connection with their keys.
    pub(super) tap: Tap,
    /// The link that they joined with.
    pub(super) used_link: String,
    /// A link for a further device of theirs, never used.
    pub(super) spare_link: String,
}

/// Everything that is on stage.
pub(super) struct Story<'a> {
    pub(super) narrator: &'a Narrator,
    pub(super) cast: Cast,
    pub(super) binaries: &'a Binaries,
    pub(super) base: PathBuf,
    pub(super) relay: Option<RelayProcess>,
    pub(super) people: Vec<Person>,
    pub(super) groups: Vec<LiveGroup>,
    pub(super) said_before: Vec<Said>,
    pub(super) said_after: Vec<Said>,
    pub(super) attacks: Vec<Attack>,
    pub(super) controls: Vec<(&'static str, bool)>,
    pub(super) runtime: tokio::runtime::Runtime,
    /// The leaver is out.
    pub(super) expelled: bool,
    leaver_links: (String, String),
    rng: StdRng,
}

impl<'a> Story<'a> {
    pub(super) fn begin(
        narrator: &'a Narrator,
        cast: Cast,
        binaries: &'a Binaries,
        base: &Path,
    ) -> anyhow::Result<Self> {
        let mut rng = system_rng();
        let relay = RelayProcess::start(&binaries.relay, base)?;
        let sentence = format!("a relay listens on {}", relay.address);
        narrator.tell(
            "relay_started",
            &sentence,
            &json!({ "address": relay.address }),
        );
        let people = cast.people.iter().enumerate().map(|(n, name)| {
            let secret: [u8; 16] = rng.random();
            Person::new(&binaries.client, base, n, name, HEXLOWER.encode(&secret))
        });
        Ok(Self {
            people: people.collect::<Result<_, _>>()?,
            narrator,
            cast,
            binaries,
            base: base.to_owned(),
            relay: Some(relay),
            groups: Vec::new(),
            said_before: Vec::new(),
            said_after: Vec::new(),
            attacks: Vec::new(),
            controls: Vec::new(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("start a runtime")?,
            expelled: false,
            leaver_links: (String::new(), String::new()),
            rng,
        })
    }

    pub(super) fn relay(&self) -> anyhow::Result<&RelayProcess> {
        self.relay.as_ref().context("the relay has been stopped")
    }

    pub(super) fn leaver(&self) -> &Person {
        &self.people[self.cast.leaver()]
    }

    pub(super) fn tell(&self, event: &str, sentence: &str, fields: &Value) {
        self.narrator.tell(event, sentence, fields);
    }

    /// Files a control, and says so.
    pub(super) fn control(&mut self, name: &'static str, worked: bool, sentence: &str) {
        let verdict = if worked { "control" } else { "CONTROL FAILED" };
        let fields = json!({ "name": name, "ok": worked, "detail": sentence });
        self.tell("control", &format!("{verdict}: {sentence}"), &fields);
        self.controls.push((name, worked));
    }

    pub(super) fn found(&mut self, suite: &str) -> anyhow::Result<()> {
        let claim = self.relay()?.claim_link.clone();
        let owner = &mut self.people[OWNER];
        let root_key = owner.home().join("root.key").display().to_string();
        let arguments = [
            "org",
            "create",
            "--claim",
            &claim,
            "--name",
            &owner.name.clone(),
            "--suite",
            suite,
            "--root-key-out",
            &root_key,
        ];
        let founded = owner.must(&arguments, "org_created")?;
        owner.user = text(&founded, "user")?;
        owner.come_online()?;
        owner.must(&["whoami"], "whoami")?;
        let name = self.cast.people[OWNER].clone();
        let sentence = format!("{name} founds the organisation, ciphersuite {suite}");
        self.tell("org_created", &sentence, &json!({ "suite": suite }));
        Ok(())
    }

    /// The owner invites, everybody joins by their link and stays online.
    pub(super) fn invite_everybody(&mut self) -> anyhow::Result<()> {
        let mut links = Vec::new();
        let (owners, guests) = self.people.split_at_mut(OWNER + 1);
        for (n, guest) in (OWNER + 1..).zip(guests.iter()) {
            let role = if n == ADMIN { "admin" } else { "member" };
            let invited =
                owners[OWNER].must(&["invite", &guest.name, "--role", role], "invited")?;
            links.push(text(&invited, "link")?);
            let sentence = format!("{} invites {} as {role}", owners[OWNER].name, guest.name);
            self.narrator
                .tell("invited", &sentence, &json!({ "person": n, "role": role }));
        }
        for (guests, links) in guests
            .chunks_mut(JOIN_AT_ONCE)
            .zip(links.chunks(JOIN_AT_ONCE))
        {
            let joined = std::thread::scope(|scope| {
                let started: Vec<_> = guests
                    .iter_mut()
                    .zip(links)
                    .map(|(guest, link)| scope.spawn(move || join(guest, link)))
                    .collect();
                let ended = started.into_iter().map(|thread| {
                    let panicked = |_| anyhow::anyhow!("a thread of the demo panicked");
                    thread.join().map_err(panicked).flatten()
                });
                ended.collect::<anyhow::Result<Vec<()>>>()
            });
            joined?;
            for guest in guests.iter() {
                let sentence = format!(
                    "{} joins by the link, with keys of their own making",
                    guest.name
                );
                self.narrator
                    .tell("joined", &sentence, &json!({ "user": guest.user }));
            }
        }
        let leaver = self.leaver();
        let spare = leaver.must(&["invite", "--device"], "invited")?;
        let used = links.pop().context("the leaver's link")?;
        let sentence = format!(
            "{} makes a link for a second device, and keeps it",
            leaver.name
        );
        self.tell("device_invited", &sentence, &json!({ "user": leaver.user }));
        self.leaver_links = (used, text(&spare, "link")?);
        Ok(())
    }

    pub(super) fn form_groups(&mut self) -> anyhow::Result<()> {
        for plan in self.cast.groups.clone() {
            let creator = &self.people[plan.creator];
            let mut arguments = vec!["group", "create", &plan.name];
            let others = plan.members.iter().filter(|p| **p != plan.creator);
            arguments.extend(others.map(|p| self.people[*p].user.as_str()));
            let created = creator.must(&arguments, "group_created")?;
            let hex = text(&created, "group")?;
            let bytes = HEXLOWER.decode(hex.as_bytes()).ok();
            let id = bytes.and_then(|bytes| bytes.try_into().ok()).map(GroupId);
            let group = LiveGroup {
                id: id.context("a group's id")?,
                hex,
                plan,
            };
            for member in group
                .plan
                .members
                .iter()
                .filter(|p| **p != group.plan.creator)
            {
                self.people[*member].hears("a new group", |line| {
                    line.is("group_joined") && line.value["group"] == group.hex.as_str()
                })?;
            }
            let without = if self.cast.has_leaver(&group.plan) {
                ""
            } else {
                " (without the one who will leave)"
            };
            let sentence = format!(
                "{} makes the group \"{}\" of {}{without}",
                creator.name,
                group.plan.name,
                group.plan.members.len()
            );
            let fields = json!({ "group": group.hex, "members": group.plan.members.len() });
            self.tell("group_created", &sentence, &fields);
            self.groups.push(group);
        }
        Ok(())
    }

    /// How many groups the leaver is in.
    pub(super) fn leavers_groups(&self) -> usize {
        let with = self.groups.iter().filter(|g| self.cast.has_leaver(&g.plan));
        with.count()
    }

    /// The leaver prepares: a copy of their profile, and a second connection that never hangs up by itself.
    pub(super) fn steal(&mut self) -> anyhow::Result<Spoils> {
        let leaver = self.leaver();
        leaver.must(&["whoami"], "whoami")?;
        let early = ProfileCopy::take(leaver, "copy-early")?;
        let tap = Tap::open(&self.runtime, early.engine("tap")?, self.leavers_groups())?;
        let sentence = format!(
            "{} copies their profile and opens a second connection with a modified client",
            leaver.name
        );
        self.tell(
            "prepared",
            &sentence,
            &json!({ "subscriptions": self.leavers_groups() }),
        );
        let (used_link, spare_link) = self.leaver_links.clone();
        Ok(Spoils {
            early,
            late: None,
            tap,
            used_link,
            spare_link,
        })
    }

    /// Everybody's first words: the leaver's, where they are in the group, and somebody else's.
    pub(super) fn talk(&mut self) -> anyhow::Result<()> {
        let leaver = self.cast.leaver();
        for n in 0..self.groups.len() {
            let plan = &self.groups[n].plan;
            let mut speakers: Vec<PersonId> = self.cast.stayers(plan).take(1).collect();
            speakers.extend(
                plan.members
                    .iter()
                    .filter(|p| **p == leaver || **p == OWNER),
            );
            let said = self.say_in(n, &speakers)?;
            self.said_before.extend(said);
        }
        Ok(())
    }

    /// These people say something in a group, one after the other, and every other member who is online hears it.
    pub(super) fn say_in(&mut self, n: usize, speakers: &[PersonId]) -> anyhow::Result<Vec<Said>> {
        let mut said = Vec::new();
        for by in speakers.iter().copied() {
            let text = remark(&mut self.rng, self.cast.first_name(by));
            let group = &self.groups[n];
            let seq = self.people[by].say(&group.hex, &text)?;
            let online: BTreeSet<PersonId> = group
                .plan
                .members
                .iter()
                .copied()
                .filter(|p| *p != by && self.is_online(*p))
                .collect();
            for listener in &online {
                self.people[*listener].hears("a message", |line| {
                    line.is("message") && line.value["text"] == text.as_str()
                })?;
            }
            let sentence = format!(
                "{} in \"{}\": heard by {} others",
                self.cast.first_name(by),
                group.plan.name,
                online.len()
            );
            let fields = json!({ "group": group.hex, "seq": seq, "heard_by": online.len() });
            self.tell("said", &sentence, &fields);
            said.push(Said { group: n, by, text });
        }
        Ok(said)
    }

    fn is_online(&self, person: PersonId) -> bool {
        let is_out = self.expelled && person == self.cast.leaver();
        !is_out && self.people[person].device().is_ok()
    }

    /// The leaver's last look: their newest keys, and proof that the second connection was alive.
    pub(super) fn steal_again(&mut self, spoils: &mut Spoils) -> anyhow::Result<()> {
        let wanted = self.leavers_groups();
        let heard = spoils.tap.hears_groups(wanted)?;
        let sentence =
            format!("the second connection was live: it heard {heard} of {wanted} groups");
        self.control("tap_was_live", heard == wanted, &sentence);
        spoils.late = Some(spoils.early.take_again(self.leaver(), "copy-late")?);
        Ok(())
    }
}

fn join(guest: &mut Person, link: &str) -> anyhow::Result<()> {
    let joined = guest.must(&["join", link], "joined")?;
    guest.user = text(&joined, "user")?;
    guest.come_online()?;
    // Answered when everything is settled: the device can be added to groups from here on.
    guest.must(&["whoami"], "whoami")?;
    Ok(())
}
