//! A removal as a plan, its timeline, and its proof to a stranger.

use std::fs;

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_tests::demo::person::text;
use mortise_tests::stage::{Stage, TEAM};

#[test]
fn a_removal_is_planned_carried_out_and_proven() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    stage.people[1].come_online()?;
    let [ann, bob, cy] = &stage.people[..] else {
        anyhow::bail!("three people");
    };
    let plan = ann.must(&["offboard", "Cy", "--dry-run"], "plan")?;
    ensure!(
        plan["devices"].as_array().is_some_and(|d| d.len() == 1),
        "{plan}"
    );
    ensure!(plan["groups"][0]["group_name"] == TEAM, "{plan}");
    ensure!(plan["groups"][0]["loses_last_admin"] == false, "{plan}");
    cy.say(TEAM, "nothing was ordered")?;

    let file = stage.dir().join("cy.certificate");
    let path = file.to_str().context("a path")?;
    let export = ["certificate", "export", "Cy", "--out", path];
    ann.fails(&export, Exit::NotAllowed)?;
    let done = ann.run(&["offboard", "Cy"])?;
    let fenced = done.event("order_fenced")?.clone();
    ensure!(
        fenced["at_ms"].as_u64().is_some_and(|at| at > 0),
        "{fenced}"
    );
    let row = done.event("order_group")?.clone();
    ensure!(row["state"] == "rotated", "{row}");
    ensure!(
        row["rotated_at_ms"].as_u64() >= fenced["at_ms"].as_u64(),
        "{row}"
    );

    bob.fails(&export, Exit::NotAllowed)?;
    let exported = ann.must(&export, "certificate_exported")?;
    ensure!(
        exported["groups"] == 1 && exported["sealed"] == 0,
        "{exported}"
    );
    ann.fails(&export, Exit::Profile)?;

    let root = text(&ann.must(&["whoami"], "whoami")?, "org")?;
    let stranger = stage.newcomer("Eve")?;
    let shown = stranger.must(
        &["certificate", "verify", path, "--root", &root],
        "certificate",
    )?;
    ensure!(shown["user"] == cy.user.as_str(), "{shown}");
    ensure!(shown["groups"][0]["state"] == "rotated", "{shown}");
    ensure!(
        shown["does_not_follow"]
            .as_array()
            .is_some_and(|l| !l.is_empty())
    );

    let whole = fs::read(&file)?;
    for name in ["Ann", "Bob", "Cy", TEAM, "nothing was ordered"] {
        let name = name.as_bytes();
        ensure!(name.len() < 4 || !whole.windows(name.len()).any(|at| at == name));
    }
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let tampered = stage.dir().join("tampered.certificate");
    fs::write(&tampered, &changed)?;
    let tampered = tampered.to_str().context("a path")?;
    stranger.fails(
        &["certificate", "verify", tampered, "--root", &root],
        Exit::Certificate,
    )?;
    let other = "0a".repeat(32);
    stranger.fails(
        &["certificate", "verify", path, "--root", &other],
        Exit::Certificate,
    )?;
    Ok(())
}
