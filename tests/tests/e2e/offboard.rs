//! Offboarding on the real programs: it finishes wherever it was killed, says who inherits, and the members see it.

use std::process::Command;

use anyhow::{Context as _, ensure};
use mortise_tests::demo::person::{PATIENCE, Person, text};
use mortise_tests::demo::process::Process;
use mortise_tests::stage::{Stage, TEAM};

/// Storage calls of the command between two deaths; the next death comes that much later.
const STEP: u64 = 7;

/// The command, which dies at this call on a file of its profile, counted from 0; with a library that nobody links.
fn dies_at(
    stage: &Stage,
    person: &Person,
    call: u64,
    arguments: &[&str],
) -> anyhow::Result<Command> {
    let library = stage.binaries.client.with_file_name("libmortise_faults.so");
    ensure!(library.is_file(), "run `cargo build --workspace` first");
    let log = person.home().join("undo");
    std::fs::write(&log, [])?;
    let mut command = person.command(arguments);
    command
        .env("MORTISE_FAULT_DIR", person.profile())
        .env("MORTISE_FAULT_LOG", log)
        .env("MORTISE_FAULT_KIND", "kill")
        .env("MORTISE_FAULT_AT", call.to_string())
        .env("LD_PRELOAD", library);
    Ok(command)
}

/// How often the roster says that a user was removed.
fn removals(person: &Person, user: &str) -> anyhow::Result<usize> {
    let done = person.run(&["roster", "log"])?;
    let removed = done.lines.iter().filter(|line| {
        let ops = line.value["changes"].as_array();
        ops.is_some_and(|ops| {
            let mut ops = ops.iter().filter_map(serde_json::Value::as_str);
            ops.any(|op| op == format!("removed {user}"))
        })
    });
    Ok(removed.count())
}

/// REQ-090, REQ-108: killed at a storage call and started again, the command gives the order once, and finishes.
#[test]
fn an_offboarding_that_is_killed_finishes() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    stage.people[1].come_online()?;
    let ann = &stage.people[0];
    let mut deaths = 0;
    for round in 0.. {
        // Whoever was invited and never came is removed as anybody else; Cy, who is in the group, is the last.
        let name = format!("Victim {round}");
        ann.must(&["invite", &name], "invited")?;
        let command = dies_at(&stage, ann, STEP * round, &["offboard", &name])?;
        let process = Process::start("a mortise that is killed", command, &ann.home().join("log"))?;
        let (_, code) = process.finish(PATIENCE)?;
        deaths += usize::from(code != 0);
        let done = ann.run(&["offboard", &name])?;
        ensure!(done.code == 0, "after call {}: {}", STEP * round, done.code);
        ensure!(
            removals(ann, &name)? == 1,
            "once, after call {}",
            STEP * round
        );
        if code == 0 {
            break;
        }
    }
    eprintln!("it was killed {deaths} times");
    ensure!(deaths > 3, "{deaths} deaths are too few");
    let command = dies_at(&stage, ann, 2 * STEP, &["offboard", "Cy"])?;
    Process::start("a mortise that is killed", command, &ann.home().join("log"))?
        .finish(PATIENCE)?;
    let done = ann.run(&["offboard", "Cy"])?;
    let row = done.event("order_group")?;
    ensure!(done.code == 0 && row["state"] == "rotated", "{row}");
    Ok(())
}

/// REQ-125, REQ-391: the plan says who inherits, and it is so.
#[test]
fn the_successor_inherits() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy", "Dot"])?;
    let [ann, bob, ..] = &stage.people[..] else {
        anyhow::bail!("four people");
    };
    let created = bob.must(
        &["group", "create", "side", "Ann", "Cy", "Dot"],
        "group_created",
    )?;
    let side = text(&created, "group")?;
    ann.reads("side")?;
    let heir = |successor: &[&str]| -> anyhow::Result<String> {
        let asked = [&["offboard", "Bob", "--dry-run"], successor].concat();
        let plan = ann.must(&asked, "plan")?;
        let groups = plan["groups"].as_array().context("groups")?;
        let row = groups.iter().find(|row| row["group"] == side.as_str());
        let row = row.context("the group")?;
        ensure!(row["loses_last_admin"] == true, "{row}");
        text(&row["heir"], "name")
    };
    let longest = heir(&[])?;
    let other = if longest == "Dot" { "Cy" } else { "Dot" };
    ensure!(heir(&["--successor", other])? == other);
    for person in &mut stage.people[2..] {
        person.come_online()?;
    }
    let ann = &stage.people[0];
    ann.must(&["offboard", "Bob", "--successor", other], "order_result")?;
    let shown = ann.must(&["group", "show", "side"], "group_info")?;
    let members = shown["members"].as_array().context("members")?;
    let admins = members.iter().filter(|member| member["admin"] == true);
    let admins: Vec<_> = admins.map(|admin| &admin["name"]).collect();
    ensure!(admins == [other], "{shown}");
    Ok(())
}

/// The members see in the conversation who went, by which order, and that the keys were rotated.
#[test]
fn members_see_who_went() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy", "Dot"])?;
    stage.people[1].come_online()?;
    let [ann, bob, _, dot] = &stage.people[..] else {
        anyhow::bail!("four people");
    };
    let done = ann.run(&["offboard", "Cy"])?;
    ensure!(done.code == 0, "{}", done.code);
    let order = done.event("ordered")?["seq"].clone();
    let tells = |line: &mortise_tests::demo::process::Line| {
        let mut users = line.value["users"].as_array().into_iter().flatten();
        line.is("rotated") && line.value["order"] == order && users.any(|u| u["name"] == "Cy")
    };
    bob.hears("that keys were rotated", tells)?;
    // Who was away reads it in the log, in its place.
    ann.say(TEAM, "after")?;
    let read = dot.run(&["read", TEAM])?;
    let at = read.lines.iter().position(tells).context("the rotation")?;
    let said = |line: &mortise_tests::demo::process::Line| line.value["text"] == "after";
    let later = read.lines.iter().position(said).context("the text")?;
    ensure!(at < later, "in the order of the log");
    Ok(())
}
