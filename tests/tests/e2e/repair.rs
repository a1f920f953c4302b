//! Groups in trouble: a restart by hand, a request to be let in anew, a group that the organisation closes.

use anyhow::ensure;
use mortise_client::exit::Exit;
use mortise_tests::demo::person::{Person, text};
use mortise_tests::stage::{Stage, TEAM};

fn last(person: &Person, group: &str) -> anyhow::Result<String> {
    Ok(person
        .reads(group)?
        .pop()
        .map(|row| row.1)
        .unwrap_or_default())
}

#[test]
fn a_restarted_group_goes_on_with_everybody() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    bob.say(TEAM, "before")?;
    bob.fails(&["group", "restart", TEAM], Exit::NotAllowed)?;
    ann.must(&["policy", "set", "--suite", "0x004F"], "policy")?;
    // Whoever has not been online since has no KeyPackage of the new suite.
    bob.must(&["policy", "show"], "policy")?;
    let continued = ann.must(&["group", "restart", TEAM], "group_continued")?;
    let successor = text(&continued, "successor")?;
    let told = bob.run(&["read", TEAM])?;
    ensure!(
        told.lines
            .iter()
            .any(|line| line.is("message") && line.value["text"] == "before"),
        "the history is gone"
    );
    bob.say(&successor, "after")?;
    ensure!(last(ann, &successor)? == "after");
    let shown = bob.must(&["group", "show", &successor], "group_info")?;
    ensure!(
        shown["suite"] == "0x004F" && shown["group_name"] == TEAM,
        "{shown}"
    );
    ensure!(shown["predecessor"] == continued["group"], "{shown}");
    // By its name, the conversation is the group that goes on.
    ann.say(TEAM, "by name")?;
    ensure!(last(bob, TEAM)? == "by name");
    Ok(())
}

#[test]
fn whoever_asks_is_let_in_anew() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    for person in &mut stage.people {
        person.come_online()?;
    }
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    bob.say(TEAM, "before")?;
    bob.must(&["group", "resync", TEAM], "resync_asked")?;
    bob.hears("being let in anew", |line| line.is("group_joined"))?;
    ann.say(TEAM, "after")?;
    ensure!(last(bob, TEAM)? == "after");
    bob.say(TEAM, "thanks")?;
    Ok(())
}

#[test]
fn a_closed_group_takes_nothing_more() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    let [ann, bob, cy] = &stage.people[..] else {
        anyhow::bail!("three people");
    };
    let created = bob.must(&["group", "create", "side", "Cy"], "group_created")?;
    let side = text(&created, "group")?;
    bob.say("side", "before")?;
    bob.fails(&["group", "close", "side"], Exit::NotAllowed)?;
    // By an owner who is not in it, and knows its id.
    ann.must(&["group", "close", &side], "group_closed")?;
    for person in [bob, cy] {
        let error = person.fails(&["send", "side", "after"], Exit::NotAllowed)?;
        ensure!(text(&error, "message")?.contains("closed"), "{error}");
        ensure!(error["queued"] == false, "{error}");
    }
    let row = cy.must(&["group", "show", "side"], "group_info")?;
    ensure!(row["status"] == "closed", "{row}");
    ensure!(last(cy, "side")? == "before");
    ann.say(TEAM, "this one goes on")?;
    Ok(())
}
