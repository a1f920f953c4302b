//! The organisation's policy, and its way back when all owners are gone.

use std::fs;

use anyhow::ensure;
use mortise_client::exit::Exit;
use mortise_tests::demo::person::text;
use mortise_tests::stage::{Stage, TEAM};

#[test]
fn the_policy_is_shown_and_changed() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    let before = bob.must(&["policy", "show"], "policy")?;
    ensure!(before["suite"] == "0x0001", "{before}");
    ensure!(
        before["pin"] == "optional" && before["staleness"] == "warn",
        "{before}"
    );
    let set = [
        "policy",
        "set",
        "--suite",
        "0x004F",
        "--staleness",
        "block",
        "--staleness-limit",
        "2h",
    ];
    bob.fails(&set, Exit::NotAllowed)?;
    ann.must(&set, "policy")?;
    let after = bob.must(&["policy", "show"], "policy")?;
    ensure!(
        after["suite"] == "0x004F" && after["pin"] == "optional",
        "{after}"
    );
    ensure!(after["staleness"] == "block", "{after}");
    ensure!(after["staleness_limit_ms"] == 2 * 3_600_000, "{after}");
    ann.say(TEAM, "an owner is here")?;
    bob.say(TEAM, "so we can talk")?;
    ann.fails(&["policy", "set", "--staleness-limit", "1s"], Exit::Usage)?;
    Ok(())
}

#[test]
fn the_root_key_brings_an_organisation_back() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    stage.people[0].say(TEAM, "before")?;
    let root = stage.people[0].home().join("root.key");
    let key = root.display().to_string();
    let olga = stage.newcomer("Olga")?;
    let recover = ["org", "recover", "--root-key", &key, "--name", "Olga"];

    let whole = fs::read_to_string(&root)?;
    for damaged in [
        whole.replace("root-key-1", "root-key-9"),
        whole[..whole.len() / 2].into(),
    ] {
        fs::write(&root, damaged)?;
        olga.fails(&recover, Exit::RootKey)?;
        ensure!(
            !olga.profile().join("client.db").exists(),
            "a profile was left behind"
        );
    }
    fs::write(&root, &whole)?;
    stage.stop_relay()?;
    let quick = [&["--timeout", "0.5"][..], &recover].concat();
    olga.fails(&quick, Exit::Unreachable)?;
    stage.start_relay()?;

    let recovered = olga.must(&recover, "org_recovered")?;
    let me = olga.must(&["whoami"], "whoami")?;
    ensure!(me["role"] == "owner", "{me}");
    ensure!(me["org"] == recovered["org"], "{me}");
    let bob = &stage.people[1];
    let seen = bob.run(&["users"])?;
    ensure!(
        seen.lines
            .iter()
            .any(|line| line.value["user"] == recovered["user"]),
        "Bob does not see the new owner"
    );
    // The new owner does what the old one cannot keep them from.
    let ann = text(&stage.people[0].must(&["whoami"], "whoami")?, "user")?;
    let ordered = olga.run(&["offboard", &ann, "--wait", "0"])?;
    ensure!(ordered.event("ordered")?["measure"] == "removal");
    stage.people[0].fails(&["send", TEAM, "still here?"], Exit::NotAdmitted)?;
    stage.people[1].say(TEAM, "Ann is out")?;
    Ok(())
}
