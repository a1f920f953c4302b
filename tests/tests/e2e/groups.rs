//! What members and admins of a group do about it: rename, topic, admins, policy, leave.

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_tests::demo::person::{Person, text};
use mortise_tests::stage::{Stage, TEAM};
use serde_json::Value;

/// The group by its new name.
const CREW: &str = "crew";

fn show(person: &Person, group: &str) -> anyhow::Result<Value> {
    person.must(&["group", "show", group], "group_info")
}

/// The names of the members, or of the admins among them.
fn members(shown: &Value, admins: bool) -> anyhow::Result<Vec<String>> {
    let members = shown["members"].as_array().context("no members")?;
    let wanted = members.iter().filter(|m| !admins || m["admin"] == true);
    let mut names = wanted
        .map(|member| text(member, "name"))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn what_an_admin_changes_everybody_sees() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    let [ann, bob, cy] = &stage.people[..] else {
        anyhow::bail!("three people");
    };
    for refused in [
        &["group", "rename", TEAM, CREW][..],
        &["group", "topic", TEAM, "mine"],
        &["group", "admin", "add", TEAM, "Bob"],
        &["group", "policy", TEAM, "--retention", "1d"],
    ] {
        let error = bob.fails(refused, Exit::NotAllowed)?;
        let message = text(&error, "message")?;
        ensure!(message.contains("admin of the group"), "{message}");
    }
    ann.fails(&["group", "admin", "remove", TEAM, "Ann"], Exit::NotAllowed)?;

    let changed = ann.must(&["group", "rename", TEAM, CREW], "group_changed")?;
    ensure!(changed["changes"][0]["to"] == CREW, "{changed}");
    ann.must(
        &["group", "topic", CREW, "the spring release"],
        "group_changed",
    )?;
    let policy = [
        "group",
        "policy",
        CREW,
        "--who-may-add",
        "admins",
        "--retention",
        "90d",
    ];
    ann.must(&policy, "group_changed")?;
    ann.must(&["group", "admin", "add", CREW, "Bob"], "group_changed")?;
    for person in &stage.people {
        let shown = show(person, CREW)?;
        ensure!(shown["topic"] == "the spring release", "{shown}");
        ensure!(shown["who_may_add"] == "admins", "{shown}");
        ensure!(shown["retention_days"] == 90, "{shown}");
        ensure!(members(&shown, false)? == ["Ann", "Bob", "Cy"], "{shown}");
        ensure!(members(&shown, true)? == ["Ann", "Bob"], "{shown}");
    }
    let told = cy.run(&["read", CREW])?;
    let changes = told.lines.iter().filter(|line| line.is("changed"));
    ensure!(changes.count() >= 4, "a change is not in the history");

    bob.must(&["group", "admin", "remove", CREW, "Ann"], "group_changed")?;
    bob.must(&["group", "remove", CREW, "Cy"], "member_removed")?;
    ann.fails(&["group", "rename", CREW, TEAM], Exit::NotAllowed)?;
    ann.fails(&["group", "add", CREW, "Cy"], Exit::NotAllowed)?;
    bob.must(&["group", "add", CREW, "Cy"], "members_added")?;
    cy.say(CREW, "back")?;
    ensure!(ann.reads(CREW)?.last().is_some_and(|row| row.1 == "back"));
    Ok(())
}

#[test]
fn who_leaves_is_out_and_an_admin_lets_them_in_again() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    let cy = &stage.people[2];
    cy.say(TEAM, "before")?;
    let left = cy.must(&["group", "leave", TEAM, "--wait", "0"], "group_left")?;
    ensure!(left["done"] == false, "{left}");
    cy.fails(&["send", TEAM, "too late"], Exit::NotAllowed)?;

    // Whoever comes next carries it out, and says so.
    let bob = &stage.people[1];
    bob.say(TEAM, "without Cy")?;
    let told = bob.run(&["read", TEAM])?;
    let left = told.lines.iter().find(|line| line.is("left"));
    let left = &left.context("nobody has left")?.value;
    ensure!(left["users"][0]["name"] == "Cy", "{left}");
    ensure!(members(&show(bob, TEAM)?, false)? == ["Ann", "Bob"]);

    let cy = &stage.people[2];
    let listed = cy.run(&["group", "list"])?;
    ensure!(listed.code == 0 && !listed.lines.iter().any(|line| line.is("group")));
    let row = cy.must(&["group", "list", "--all"], "group")?;
    ensure!(row["status"] == "removed", "{row}");
    cy.fails(&["send", TEAM, "too late"], Exit::NotAllowed)?;
    let texts: Vec<_> = cy.reads(TEAM)?.into_iter().map(|row| row.1).collect();
    ensure!(texts == ["before"], "{texts:?}");

    let error = bob.fails(&["group", "add", TEAM, "Cy"], Exit::NotAllowed)?;
    let message = text(&error, "message")?;
    ensure!(message.contains("left the group"), "{message}");
    stage.people[0].must(&["group", "add", TEAM, "Cy"], "members_added")?;
    stage.people[2].say(TEAM, "after")?;

    // With somebody online, it is done at once.
    stage.people[0].come_online()?;
    let left = stage.people[1].must(&["group", "leave", TEAM, "--wait", "30"], "group_left")?;
    ensure!(left["done"] == true, "{left}");
    Ok(())
}
