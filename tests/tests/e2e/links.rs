//! Links: used, expired, damaged, of another relay, and what a failed join leaves behind: nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_client::machine::now_ms;
use mortise_tests::demo::person::{Person, text};
use mortise_tests::stage::Stage;
use serde_json::Value;

/// A join that fails leaves no profile: the same directory can be used with a better link.
fn cannot_join(person: &Person, link: &str, exit: Exit) -> anyhow::Result<Value> {
    let error = person.fails(&["join", link], exit)?;
    ensure!(
        !person.profile().join("client.db").exists()
            && !person.profile().join("client.key").exists(),
        "a profile was left behind"
    );
    Ok(error)
}

fn says(error: &Value, what: &str) -> anyhow::Result<()> {
    let message = error["message"].as_str().context("no message")?;
    ensure!(message.contains(what), "{message:?} does not say {what:?}");
    Ok(())
}

#[test]
fn links_that_do_not_work_say_why() -> anyhow::Result<()> {
    let mut stage = Stage::empty()?;
    stage.found("Ann")?;
    let short = stage.people[0].must(&["invite", "Late", "--expires", "1s"], "invited")?;
    let expires_at_ms = short["expires_at_ms"].as_u64().context("no expiry")?;
    let link = stage.invite("Bob")?;
    stage.join("Bob", &link)?;
    let stranger = stage.newcomer("Eve")?;

    says(&cannot_join(&stranger, &link, Exit::Link)?, "it was used")?;

    let middle = link.len() / 2;
    let other = if &link[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    let flipped = format!("{}{other}{}", &link[..middle], &link[middle + 1..]);
    for damaged in [
        &flipped,
        &link[..link.len() - 3],
        "mortise://join/",
        "hello",
    ] {
        let error = cannot_join(&stranger, damaged, Exit::Link)?;
        let advice = "copy the whole link, on one line, from where you got it";
        ensure!(error["advice"] == advice, "{error}");
    }
    // The founder's claim link is spent, too.
    let claim = stage.relay()?.claim_link.clone();
    let root = stranger.home().join("root.key").display().to_string();
    let found = [
        "org",
        "create",
        "--claim",
        &claim,
        "--name",
        "Eve",
        "--root-key-out",
        &root,
    ];
    let error = stranger.fails(&found, Exit::Link)?;
    says(&error, "the link cannot be used")?;

    let until = Instant::now() + Duration::from_secs(10);
    while now_ms() <= expires_at_ms {
        ensure!(Instant::now() < until, "the clock stands still");
        std::thread::yield_now();
    }
    let late = text(&short, "link")?;
    says(
        &cannot_join(&stranger, &late, Exit::Link)?,
        "it has expired",
    )?;

    // After all that, a good link works from the same directory.
    let good = stage.invite("Eve")?;
    stranger.must(&["join", &good], "joined")?;
    Ok(())
}
