//! The order: given, acknowledged, and left to the others to carry out.

use std::time::Instant;

use anyhow::Context as _;
use mortise_protocol::identity::RosterSeq;
use serde_json::json;

use super::attack::Attack;
use super::attack::tap::Tap;
use super::cast::{ADMIN, OWNER, PersonId};
use super::person::PATIENCE;
use super::process::{Line, NOTE};
use super::report::{DemoResult, millis};
use super::story::{Spoils, Story};

/// An order that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) seq: RosterSeq,
    pub(super) acked: Instant,
}

impl Story<'_> {
    /// The owner orders the removal, and their device ends the moment that the relay has acknowledged it.
    pub(super) fn order_removal(&mut self, result: &mut DemoResult) -> anyhow::Result<Order> {
        let leaver = self.leaver().user.clone();
        let given = Instant::now();
        let verb = self.people[OWNER].start(&["offboard", &leaver, "--wait", "0"])?;
        let line = verb.wait_for(0, PATIENCE, "the order's acknowledgement", |line| {
            line.is("ordered") || line.is("error")
        })?;
        drop(verb);
        self.people[OWNER].go_offline();
        let seq = line.value["seq"].as_u64();
        let seq = RosterSeq(seq.with_context(|| format!("the order failed: {}", line.value))?);
        result.order_acked_ms = millis(line.at.duration_since(given));
        let (owner, leaver) = (&self.people[OWNER].name, &self.leaver().name);
        let sentence = format!(
            "{owner} orders the removal of {leaver}: acknowledged after {} ms, as entry {} of the roster",
            result.order_acked_ms, seq.0
        );
        let fields = json!({ "seq": seq.0, "order_acked_ms": result.order_acked_ms });
        self.tell("ordered", &sentence, &fields);
        let sentence = format!("{owner} is offline: both processes were killed");
        self.tell("owner_offline", &sentence, &json!({}));
        Ok(Order {
            seq,
            acked: line.at,
        })
    }

    /// The leaver's connections end: the honest client's, and the one that never hangs up by itself.
    pub(super) fn watch_the_cut(
        &mut self,
        spoils: &mut Spoils,
        order: &Order,
        result: &mut DemoResult,
    ) -> anyhow::Result<()> {
        let since = |at: Instant| millis(at.saturating_duration_since(order.acked));
        let leaver = self.leaver();
        let expelled = leaver.hears("the end of their access", |line| line.is("expelled"))?;
        // When it lost the line is for people, on stderr; at the latest it was when it gave up.
        let is_cut = |line: &Line| {
            let text = line.value["text"].as_str();
            line.is(NOTE) && text.is_some_and(|text| text.contains("REMOVED"))
        };
        let noted = leaver.device()?.lines().into_iter().find(is_cut);
        let own_ms = since(noted.map_or(expelled.at, |line| line.at));
        let sentence = format!(
            "{}'s own client is cut off {own_ms} ms after the acknowledgement; it tried again, and gave up after {} ms",
            leaver.name,
            since(expelled.at)
        );
        let fields = json!({ "connection_cut_ms": own_ms, "gave_up_ms": since(expelled.at) });
        self.tell("client_cut", &sentence, &fields);
        self.expelled = true;
        let (closed, error) = spoils.tap.closed()?;
        let tap_ms = since(closed);
        let sentence = format!("the modified client is cut off after {tap_ms} ms: {error}");
        let fields = json!({ "connection_cut_ms": tap_ms, "reason": error.to_string() });
        self.tell("tap_cut", &sentence, &fields);
        self.control(
            "cut_by_the_relay",
            Tap::is_removal(&error),
            "it was the relay that closed the line, because of the order",
        );
        result.connection_cut_ms = own_ms.max(tap_ms);
        Ok(())
    }

    /// Every member's device sees every group of the leaver rotated, without the owner; a colleague asks the relay.
    pub(super) fn watch_rotation(
        &mut self,
        order: &Order,
        result: &mut DemoResult,
    ) -> anyhow::Result<()> {
        for group in &self.groups {
            if !self.cast.has_leaver(&group.plan) {
                continue;
            }
            let mut by = None;
            let mut last = order.acked;
            for member in self.cast.stayers(&group.plan) {
                let line = self.people[member].hears("the rotation of a group", |line| {
                    line.is("rotated") && line.value["group"] == group.hex.as_str()
                })?;
                by = line.value["user"].as_str().map(ToOwned::to_owned);
                last = last.max(line.at);
            }
            let after_ms = millis(last.duration_since(order.acked));
            let who = self.person_of(by.as_deref());
            let name = who.map_or("somebody", |p| self.cast.first_name(p));
            let sentence = format!(
                "\"{}\" has new keys after {after_ms} ms: {name}'s device has removed {}",
                group.plan.name,
                self.cast.first_name(self.cast.leaver())
            );
            let fields = json!({ "group": group.hex, "by": by, "after_ms": after_ms });
            self.tell("rotated", &sentence, &fields);
        }
        let leaver = self.leaver().user.clone();
        let asked = ["offboard", &leaver, "--wait", "60"];
        let status = self.people[ADMIN].must(&asked, "order_result")?;
        let count = |field: &str| -> anyhow::Result<usize> {
            let count = status[field]
                .as_u64()
                .with_context(|| format!("no `{field}`"))?;
            Ok(usize::try_from(count)?)
        };
        result.groups_rotated = count("rotated")?;
        result.groups_clean = count("clean")?;
        let sealed = count("sealed")?;
        let sentence = format!(
            "{} asks how the order stands: {} groups rotated, {} clean, {sealed} sealed",
            self.people[ADMIN].name, result.groups_rotated, result.groups_clean,
        );
        let fields = json!({
            "rotated": result.groups_rotated, "clean": result.groups_clean, "sealed": sealed,
        });
        self.tell("order_status", &sentence, &fields);
        let as_planned = result.groups_rotated == self.leavers_groups();
        let sentence = "the groups that were rotated are exactly those that the leaver was in";
        self.control("rotated_as_planned", as_planned, sentence);
        Ok(())
    }

    fn person_of(&self, user: Option<&str>) -> Option<PersonId> {
        let user = user?;
        self.people.iter().position(|person| person.user == user)
    }

    /// Those who stay talk in every group, and hear one another; the leaver hears nothing.
    pub(super) fn talk_on(&mut self, result: &mut DemoResult) -> anyhow::Result<()> {
        for n in 0..self.groups.len() {
            let speakers: Vec<PersonId> = self.cast.stayers(&self.groups[n].plan).take(2).collect();
            let said = self.say_in(n, &speakers)?;
            self.said_after.extend(said);
        }
        result.messages_after_removal = self.said_after.len();
        Ok(())
    }

    /// Files an attack, and says so.
    pub(super) fn attacked(&mut self, attack: Attack) {
        let verdict = if attack.succeeded {
            "SUCCEEDED"
        } else {
            "refused"
        };
        let sentence = format!("{verdict}: {}", attack.detail);
        let fields = json!({
            "name": attack.name, "succeeded": attack.succeeded, "detail": attack.detail,
        });
        self.tell("attack", &sentence, &fields);
        self.attacks.push(attack);
    }
}
