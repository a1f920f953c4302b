//! Invitations with a PIN, further devices, suspension and the way back, names.

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_tests::demo::person::{PATIENCE, Person, text};
use mortise_tests::stage::{Stage, TEAM};
use serde_json::Value;

/// The row of a user.
fn user(person: &Person, name: &str) -> anyhow::Result<Value> {
    let done = person.run(&["users", "--all"])?;
    let row = done.lines.iter().find(|line| line.value["name"] == name);
    Ok(row
        .with_context(|| format!("no user {name}"))?
        .value
        .clone())
}

#[test]
fn a_link_with_a_pin_needs_it() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    let without = ann.must(&["invite", "Cy"], "invited")?;
    ensure!(without["pin"].is_null(), "{without}");
    let with = ann.must(&["invite", "Emil", "--pin", "always"], "invited")?;
    ensure!(with["pin"].is_string(), "{with}");
    bob.fails(&["policy", "set", "--pin", "required"], Exit::NotAllowed)?;
    ann.must(&["policy", "set", "--pin", "required"], "policy")?;
    let shown = bob.must(&["policy", "show"], "policy")?;
    ensure!(shown["pin"] == "required", "{shown}");

    ann.fails(&["invite", "Dora", "--pin", "never"], Exit::NotAllowed)?;
    let invited = ann.must(&["invite", "Dora"], "invited")?;
    let (link, pin) = (text(&invited, "link")?, text(&invited, "pin")?);
    let dora = stage.newcomer("Dora")?;
    let missing = dora.fails(&["join", &link], Exit::Link)?;
    ensure!(text(&missing, "message")?.contains("needs a PIN"));
    let other = if pin.starts_with('A') { "B" } else { "A" };
    let wrong = format!("{other}{}", &pin[1..]);
    let wrong = dora.fails(&["join", &link, "--pin", &wrong], Exit::Link)?;
    ensure!(text(&wrong, "message")?.contains("PIN is wrong"));
    ensure!(text(&wrong, "advice")?.contains("nothing is used up"));
    let typed = pin.to_lowercase().replace('-', "");
    dora.must(&["join", &link, "--pin", &typed], "joined")?;
    Ok(())
}

#[test]
fn whoever_is_suspended_comes_back_by_another_invitation() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    let [ann, bob, cy] = &stage.people[..] else {
        anyhow::bail!("three people");
    };
    cy.say(TEAM, "before")?;
    ensure!(bob.reads(TEAM)?.len() == 1);
    cy.fails(&["suspend", "Bob"], Exit::NotAllowed)?;
    let ordered = ann.must(&["suspend", "Bob"], "ordered")?;
    ensure!(
        ordered["measure"] == "suspension" && ordered["already"] == false,
        "{ordered}"
    );
    let again = ann.must(&["suspend", "Bob"], "ordered")?;
    ensure!(
        again["already"] == true && again["seq"] == ordered["seq"],
        "{again}"
    );
    ensure!(user(ann, "Bob")?["status"] == "suspended");
    bob.fails(&["send", TEAM, "still here?"], Exit::NotAdmitted)?;
    cy.say(TEAM, "without Bob")?;

    let invited = ann.must(&["invite", "--again", "Bob"], "invited")?;
    ensure!(invited["name"] == "Bob", "{invited}");
    let back = stage.newcomer("Bob")?;
    back.must(&["join", &text(&invited, "link")?], "joined")?;
    let ann = &stage.people[0];
    let row = user(ann, "Bob")?;
    ensure!(row["status"] == "active" && row["devices"] == 1, "{row}");
    ann.must(&["group", "add", TEAM, "Bob"], "members_added")?;
    ann.say(TEAM, "welcome back")?;
    let texts: Vec<_> = back.reads(TEAM)?.into_iter().map(|row| row.1).collect();
    ensure!(texts == ["welcome back"], "{texts:?}");
    // The burned device stays out.
    stage.people[1].fails(&["read", TEAM], Exit::NotAdmitted)?;
    stage.people.push(back);
    ensure!(stage.people[3].say(TEAM, "thanks")? > 0);
    Ok(())
}

#[test]
fn a_further_device_is_in_the_groups_and_goes_with_the_one_that_let_it_in() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    // Bob's first device brings the others in.
    stage.people[1].come_online()?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    let further = |of: &Person| -> anyhow::Result<(Person, String)> {
        let link = text(&of.must(&["devices", "add"], "invited")?, "link")?;
        let mut person = stage.newcomer("Bob")?;
        let device = text(&person.must(&["join", &link], "joined")?, "device")?;
        person.come_online()?;
        // It may have been brought in before it listens.
        if person.run(&["--offline", "read", TEAM])?.code != 0 {
            person.hears("being brought in", |line| line.is("group_joined"))?;
        }
        Ok((person, device))
    };
    let (mut second, second_id) = further(bob)?;
    let (mut third, third_id) = further(&second)?;
    bob.say(TEAM, "from the first")?;
    second.say(TEAM, "from the second")?;
    let read = third.reads(TEAM)?;
    ensure!(read.last().is_some_and(|row| row.1 == "from the second"));
    let listed = bob.run(&["devices", "list", "Bob"])?;
    ensure!(listed.lines.iter().filter(|line| line.is("device")).count() == 3);

    let ordered = ann.must(&["devices", "revoke", &second_id], "ordered")?;
    ensure!(
        ordered["and_devices"] == serde_json::json!([third_id]),
        "{ordered}"
    );
    for device in [&mut second, &mut third] {
        let (_, code) = device.leave(PATIENCE)?;
        ensure!(code == i32::from(Exit::NotAdmitted.number()), "{code}");
        device.fails(&["read", TEAM], Exit::NotAdmitted)?;
    }
    bob.say(TEAM, "alone again")?;
    // One's own device, as the last thing that it does.
    let (mut fourth, fourth_id) = further(bob)?;
    fourth.must(&["devices", "revoke", &fourth_id], "ordered")?;
    fourth.leave(PATIENCE)?;
    fourth.fails(&["read", TEAM], Exit::NotAdmitted)?;
    ensure!(user(ann, "Bob")?["devices"] == 1);
    Ok(())
}

#[test]
fn names_change_for_everybody() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    bob.must(&["profile", "Robert"], "profile_set")?;
    ensure!(user(ann, "Robert")?["user"] == bob.user.as_str());
    bob.fails(&["profile", "Anna", "--user", "Ann"], Exit::NotAllowed)?;
    ann.must(
        &["profile", "Bob (on leave)", "--user", "Robert"],
        "profile_set",
    )?;
    ensure!(user(bob, "Bob (on leave)")?["me"] == true);
    ann.must(&["role", "Bob (on leave)", "guest"], "role_set")?;
    ensure!(user(bob, "Bob (on leave)")?["role"] == "guest");
    Ok(())
}
