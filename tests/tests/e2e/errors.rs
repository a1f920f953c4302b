//! Each kind of trouble has its own text and its documented exit code, and loses nothing.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_tests::demo::person::{PATIENCE, Person};
use mortise_tests::demo::process::{Process, copy_dir};
use mortise_tests::demo::relay::RelayProcess;
use mortise_tests::stage::{Stage, TEAM};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

/// The longest text that fits into an application message with all that goes around it.
const LONGEST_TEXT: usize = 64 * 1024 - 1024;

/// Well below the time limit of a person's commands: who ends within this has not waited for it.
const AT_ONCE: Duration = Duration::from_secs(6);

fn says(error: &Value, what: &str) -> anyhow::Result<()> {
    let message = error["message"].as_str().context("no message")?;
    ensure!(message.contains(what), "{message:?} does not say {what:?}");
    Ok(())
}

fn texts(person: &Person) -> anyhow::Result<Vec<String>> {
    Ok(person.reads(TEAM)?.into_iter().map(|row| row.1).collect())
}

/// Puts a directory back to what it was.
fn restore(safe: &Path, dir: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(dir).context("clear")?;
    copy_dir(safe, dir)
}

/// Overwrites bytes in the middle of a file.
fn damage(path: &Path) -> anyhow::Result<()> {
    let file = fs::File::options().write(true).open(path).context("open")?;
    let middle = file.metadata().context("length")?.len() / 2;
    file.write_all_at(&[0x5a; 8192], middle).context("damage")
}

#[test]
fn mistakes_are_told_apart() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    ann.say(TEAM, "before")?;

    says(
        &ann.fails(&["send", "nowhere", "x"], Exit::Unknown)?,
        "no group \"nowhere\"",
    )?;
    says(
        &ann.fails(&["read", "nowhere"], Exit::Unknown)?,
        "no group \"nowhere\"",
    )?;
    says(
        &ann.fails(&["group", "add", TEAM, "Nobody"], Exit::Unknown)?,
        "no user \"Nobody\"",
    )?;
    says(
        &ann.fails(&["offboard", "Nobody"], Exit::Unknown)?,
        "no user \"Nobody\"",
    )?;
    ann.must(&["invite", "Sam"], "invited")?;
    ann.must(&["invite", "Sam"], "invited")?;
    says(
        &ann.fails(&["verify", "Sam"], Exit::Unknown)?,
        "more than one user: Sam",
    )?;

    says(
        &bob.fails(&["invite", "Friend"], Exit::NotAllowed)?,
        "rules do not allow",
    )?;
    says(
        &bob.fails(&["offboard", "Ann"], Exit::NotAllowed)?,
        "rules do not allow",
    )?;
    says(
        &bob.fails(&["role", "Bob", "owner"], Exit::NotAllowed)?,
        "rules do not allow",
    )?;
    says(
        &bob.fails(&["group", "remove", TEAM, "Ann"], Exit::NotAllowed)?,
        "admin of the group",
    )?;

    let longest = "a".repeat(LONGEST_TEXT);
    ann.say(TEAM, &longest)?;
    let error = ann.fails(&["send", TEAM, &format!("{longest}a")], Exit::TooLarge)?;
    says(&error, &LONGEST_TEXT.to_string())?;

    ensure!(texts(ann)? == ["before", &longest]);
    ensure!(texts(bob)? == ["before", &longest]);
    Ok(())
}

#[test]
fn a_profile_that_does_not_open_says_why() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann"])?;
    let ann = &stage.people[0];
    ann.say(TEAM, "before")?;
    let nobody = stage.newcomer("Nobody")?;
    says(
        &nobody.fails(&["whoami"], Exit::Profile)?,
        "there is no profile in",
    )?;
    says(
        &ann.fails(&["join", "mortise://join/x"], Exit::Link)?,
        "link",
    )?;

    let pass = ann.home().join("passphrase");
    let right = fs::read(&pass)?;
    fs::write(&pass, "something else\n")?;
    says(
        &ann.fails(&["read", TEAM], Exit::Passphrase)?,
        "the passphrase is wrong",
    )?;
    fs::write(&pass, "\n")?;
    says(
        &ann.fails(&["read", TEAM], Exit::Passphrase)?,
        "the passphrase is empty",
    )?;
    fs::write(&pass, right)?;

    // Somebody else's lock, with nobody behind it who takes commands.
    let lock = fs::File::open(ann.profile().join("lock")).context("the lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("lock")?;
    let error = ann.fails(&["--timeout", "0.2", "read", TEAM], Exit::Profile)?;
    says(&error, "another mortise is using this profile")?;
    drop(lock);

    let safe = stage.dir().join("safe");
    copy_dir(&ann.profile(), &safe)?;
    damage(&ann.profile().join("client.db"))?;
    let error = ann.fails(&["read", TEAM], Exit::Corrupt)?;
    says(&error, "database (client.db) is damaged")?;
    restore(&safe, &ann.profile())?;
    damage(&ann.profile().join("client.key")).and_then(|()| {
        says(
            &ann.fails(&["read", TEAM], Exit::Corrupt)?,
            "key file (client.key) is damaged",
        )
    })?;
    restore(&safe, &ann.profile())?;
    fs::remove_file(ann.profile().join("client.db"))?;
    says(&ann.fails(&["read", TEAM], Exit::Corrupt)?, "it is missing")?;
    restore(&safe, &ann.profile())?;
    ensure!(texts(ann)? == ["before"]);
    Ok(())
}

#[test]
fn a_relay_that_does_not_answer_or_is_another_says_so() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    let address = stage.relay()?.address.clone();
    stage.stop_relay()?;
    let quick = ["--timeout", "0.5"];
    let bob = &stage.people[1];
    let error = bob.fails(
        &[&quick[..], &["send", TEAM, "later"]].concat(),
        Exit::Queued,
    )?;
    says(
        &error,
        "the message is stored on this device and not sent yet",
    )?;
    ensure!(error["queued"] == true, "{error}");
    ensure!(error["cause"] == Exit::Unreachable.name(), "{error}");
    let error = bob.fails(&[&quick[..], &["read", TEAM]].concat(), Exit::Unreachable)?;
    says(&error, "the relay cannot be reached")?;
    ensure!(error["queued"] == false, "{error}");
    let ann = &stage.people[0];
    let error = ann.fails(&[&quick[..], &["invite", "Cy"]].concat(), Exit::Unreachable)?;
    ensure!(error["queued"] == false, "{error}");

    // Another relay in its place: another key at the same address.
    let other = stage.dir().join("other");
    let init = Command::new(&stage.binaries.relay)
        .args(["init", "--json", "--listen", &address, "--data"])
        .arg(&other)
        .output()
        .context("mortise-relay init")?;
    ensure!(init.status.success());
    let mut run = Command::new(&stage.binaries.relay);
    run.args(["run", "--json", "--data"]).arg(&other);
    let impostor = Process::start("another relay", run, &stage.dir().join("other-log"))?;
    impostor.wait_for(0, PATIENCE, "the port", |line| line.is("listening"))?;
    let error = bob.fails(&["send", TEAM, "to whom?"], Exit::Fingerprint)?;
    says(&error, "as pinned")?;
    ensure!(error["queued"] == true, "{error}");
    says(&bob.fails(&["read", TEAM], Exit::Fingerprint)?, "as pinned")?;
    says(
        &ann.fails(&["invite", "Cy"], Exit::Fingerprint)?,
        "as pinned",
    )?;
    drop(impostor);

    stage.start_relay()?;
    for person in stage.people.iter().rev() {
        let texts = texts(person)?;
        ensure!(texts == ["later", "to whom?"], "{}: {texts:?}", person.name);
    }
    Ok(())
}

#[test]
fn a_relay_without_the_organisation_says_so() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    stage.people[0].say(TEAM, "before")?;
    let link = stage.invite("Cy")?;
    let rest = stage.stop_relay()?.clone();
    let safe = stage.dir().join("safe");
    copy_dir(rest.data(), &safe)?;
    // The same certificate at the same address, on the database of a relay that hosts nobody.
    let other = stage.dir().join("other");
    let init = Command::new(&stage.binaries.relay)
        .args(["init", "--json", "--listen", "127.0.0.1:0", "--data"])
        .arg(&other)
        .output()
        .context("mortise-relay init")?;
    ensure!(init.status.success());
    for file in ["relay.db", "statement.key"] {
        fs::copy(other.join(file), rest.data().join(file)).context("swap the database")?;
    }
    // That of the database that was there.
    fs::remove_dir_all(rest.data().join("relay.journal")).context("remove the journal")?;
    stage.start_relay()?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    for verb in [&["read", TEAM][..], &["invite", "Dora"], &["listen"]] {
        let began = Instant::now();
        let error = ann.fails(verb, Exit::NotHosted)?;
        says(&error, "does not host this organisation")?;
        ensure!(error["queued"] == false, "{error}");
        ensure!(began.elapsed() < AT_ONCE, "{verb:?} waited");
    }
    let error = bob.fails(&["send", TEAM, "later"], Exit::NotHosted)?;
    ensure!(error["queued"] == true, "{error}");
    let newcomer = stage.newcomer("Cy")?;
    newcomer.fails(&["join", &link], Exit::NotHosted)?;

    stage.stop_relay()?;
    restore(&safe, rest.data())?;
    stage.start_relay()?;
    newcomer.must(&["join", &link], "joined")?;
    for person in stage.people.iter().rev() {
        ensure!(texts(person)? == ["before", "later"], "{}", person.name);
    }
    Ok(())
}

#[test]
fn somebody_who_was_put_out_is_told() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob", "Cy"])?;
    stage.people[0].say(TEAM, "before")?;
    stage.people[1].come_online()?;
    stage.people[0].must(&["offboard", "Bob"], "order_result")?;
    stage.people[0].must(&["offboard", "Cy"], "order_result")?;

    let bob = &mut stage.people[1];
    bob.hears("the end", |line| line.is("expelled"))?;
    let (lines, code) = bob.leave(PATIENCE)?;
    ensure!(
        code == i32::from(Exit::NotAdmitted.number()),
        "listen ended with {code}"
    );
    ensure!(lines.iter().any(|line| line.is("error")));
    for who in [1, 2] {
        let person = &stage.people[who];
        let error = person.fails(&["send", TEAM, "still here?"], Exit::NotAdmitted)?;
        says(&error, "does not admit this device any more")?;
        ensure!(error["queued"] == false, "{error}");
        person.fails(&["listen"], Exit::NotAdmitted)?;
        person.fails(&["read", TEAM], Exit::NotAdmitted)?;
        // What they had, they keep.
        let done = person.run(&["--offline", "read", TEAM])?;
        ensure!(done.code == 0);
        let read = done.lines.iter().filter(|line| line.is("message"));
        ensure!(who == 2 || read.count() == 1);
    }
    ensure!(texts(&stage.people[0])? == ["before"]);
    Ok(())
}

#[test]
fn a_relay_refuses_to_start_on_a_damaged_database() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann"])?;
    stage.people[0].say(TEAM, "before")?;
    let safe = stage.dir().join("safe");
    let rest = stage.stop_relay()?.clone();
    let database = rest.data().join("relay.db");
    copy_dir(rest.data(), &safe)?;

    damage(&database)?;
    let (code, said) = rest.refuses_to_start()?;
    ensure!(code == 5 && said.contains("is damaged"), "{code}: {said}");
    let mut fsck = Command::new(&stage.binaries.relay);
    fsck.args(["fsck", "--data"]).arg(rest.data());
    let fsck = fsck.output().context("fsck")?;
    ensure!(fsck.status.code() == Some(5));

    fs::remove_file(&database)?;
    let (code, said) = rest.refuses_to_start()?;
    ensure!(
        code == 5 && said.contains("restore it from a backup"),
        "{code}: {said}"
    );
    ensure!(!database.exists(), "it started empty");

    restore(&safe, rest.data())?;
    stage.start_relay()?;
    ensure!(texts(&stage.people[0])? == ["before"]);
    // Twice at a time, there is one that does not start.
    let second: &RelayProcess = stage.relay()?;
    let (code, said) = second.at_rest().refuses_to_start()?;
    ensure!(code == 4, "{code}: {said}");
    Ok(())
}

#[test]
fn nothing_asks_a_terminal_or_waits_for_one() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann"])?;
    let ann = &stage.people[0];
    // No stdin at all, no terminal, no passphrase.
    let mut bare = Command::new("setsid");
    bare.args(["--wait", "sh", "-c", "exec \"$0\" \"$@\" <&-"])
        .arg(&stage.binaries.client)
        .args(["--json", "--profile"])
        .arg(ann.profile())
        .arg("whoami")
        .env_remove("MORTISE_PASSPHRASE_FILE");
    says(
        &ann.fails_as(bare, Exit::Passphrase)?,
        "no passphrase was given",
    )?;

    let mut closed = Command::new("setsid");
    closed
        .args(["--wait", "sh", "-c", "exec \"$0\" \"$@\" <&-"])
        .arg(&stage.binaries.client)
        .args(ann.command(&["read", TEAM]).get_args());
    let read = Process::start("read without stdin", closed, &ann.home().join("log"))?;
    ensure!(read.finish(PATIENCE)?.1 == 0);
    // An empty stdin is nothing to send, and nothing to join with.
    ann.fails(&["send", TEAM, "-"], Exit::Usage)?;
    stage.newcomer("Bob")?.fails(&["join", "-"], Exit::Link)?;
    let mut nonsense = ann.command(&["nonsense"]);
    nonsense.stdin(std::process::Stdio::null());
    let (lines, code) =
        Process::start("nonsense", nonsense, &ann.home().join("log"))?.finish(PATIENCE)?;
    ensure!(code == i32::from(Exit::Usage.number()));
    ensure!(lines.iter().any(|line| line.is("error")));
    Ok(())
}
