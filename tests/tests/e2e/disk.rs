//! Full disks: the relay's and a client's. Needs the right to mount a small file system; says so where it has none.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_tests::demo::person::{PATIENCE, Person, text};
use mortise_tests::stage::{Stage, TEAM};

/// A file system of a few MiB; unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` where this is not allowed.
    fn mount(path: &Path) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(path).context("make a mount point")?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=700", "mortise-e2e"])
            .arg(path)
            .output();
        if mounted.is_ok_and(|done| done.status.success()) {
            let path = path.to_owned();
            return Ok(Some(Self { path }));
        }
        eprintln!("NOT TESTED: a full disk needs the right to mount a tmpfs (run it as root)");
        Ok(None)
    }

    fn balloon(&self) -> PathBuf {
        self.path.join("balloon")
    }

    /// Takes all the room that is left.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = fs::File::create(self.balloon()).context("the balloon")?;
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        Ok(())
    }

    fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.balloon()).context("let the balloon go")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn texts(person: &Person) -> anyhow::Result<Vec<String>> {
    Ok(person.reads(TEAM)?.into_iter().map(|row| row.1).collect())
}

#[test]
fn a_relay_whose_disk_is_full_says_so_and_loses_nothing() -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let Some(disk) = SmallDisk::mount(&dir.path().join("relay"))? else {
        return Ok(());
    };
    let mut stage = Stage::with_in(dir, &["Ann", "Bob"])?;
    let link = stage.invite("Cy")?;
    stage.join("Cy", &link)?;
    stage.people[0].come_online()?;
    disk.fill()?;
    let [ann, bob, _] = &stage.people[..] else {
        anyhow::bail!("three people");
    };
    // Through the daemon, until nothing fits any more: the journal and SQLite's log have room that was taken before the disk was full.
    let mut sent = Vec::new();
    let refused = loop {
        ensure!(sent.len() < 200, "the disk does not fill");
        let text = format!("{} {}", sent.len(), "a".repeat(50_000));
        let done = ann.run(&["send", TEAM, &text])?;
        sent.push(text);
        if done.code != 0 {
            break done;
        }
    };
    let error = &refused.lines.iter().find(|line| line.is("error"));
    let error = &error.context("no error")?.value;
    ensure!(refused.code == i32::from(Exit::Queued.number()), "{error}");
    ensure!(
        error["code"] == Exit::Queued.name() && error["queued"] == true,
        "{error}"
    );
    ensure!(error["cause"] == Exit::Refused.name(), "{error}");
    ensure!(
        text(error, "message")?.contains("cannot store anything now"),
        "{error}"
    );
    ensure!(
        text(error, "advice")?.contains("relay's operator"),
        "{error}"
    );
    // In a process of its own, and then behind what is queued: nobody waits for what time does not change.
    let began = Instant::now();
    for text in ["by Bob, first", "by Bob, second"] {
        let error = bob.fails(&["--timeout", "40", "send", TEAM, text], Exit::Queued)?;
        ensure!(error["queued"] == true, "{error}");
    }
    let add = ["--timeout", "40", "group", "add", TEAM, "Cy"];
    let error = ann.fails(&add, Exit::Queued)?;
    ensure!(error["queued"] == true, "{error}");
    ensure!(
        began.elapsed() < Duration::from_secs(30),
        "somebody waited for room"
    );
    let error = ann.fails(&["--timeout", "1", "invite", "Dora"], Exit::Refused)?;
    ensure!(error["queued"] == false, "{error}");
    let mut status = Command::new(&stage.binaries.relay);
    status.args(["status", "--data"]).arg(&disk.path);
    let status = status.output().context("status")?;
    ensure!(String::from_utf8_lossy(&status.stdout).starts_with("running"));

    // Killed and started again without room, it still serves what it has.
    stage.crash_relay()?;
    stage.start_relay()?;
    disk.free()?;
    let [ann, bob, cy] = &stage.people[..] else {
        anyhow::bail!("three people");
    };
    bob.say(TEAM, "by Bob, third")?;
    // The daemon may not have tried again yet: then this waits behind what is kept, and follows by itself.
    let done = ann.run(&["send", TEAM, "the end"])?;
    ensure!(
        done.code == 0 || done.code == i32::from(Exit::Queued.number()),
        "exit code {}",
        done.code
    );
    ann.hears("the end", |line| {
        line.is("message") && line.value["text"] == "the end"
    })?;
    ensure!(texts(cy)?.last().is_some_and(|text| text == "the end"));
    let read = texts(ann)?;
    ensure!(texts(bob)? == read);
    let by_bob: Vec<_> = read
        .iter()
        .filter(|text| text.starts_with("by Bob"))
        .collect();
    ensure!(
        by_bob == ["by Bob, first", "by Bob, second", "by Bob, third"],
        "{by_bob:?}"
    );
    let by_ann: Vec<_> = read
        .iter()
        .filter(|text| !text.starts_with("by Bob"))
        .collect();
    sent.push("the end".into());
    ensure!(by_ann == sent.iter().collect::<Vec<_>>(), "Ann's messages");
    Ok(())
}

#[test]
fn a_client_whose_disk_is_full_says_so_and_loses_nothing() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann"])?;
    let link = stage.invite("Bob")?;
    let mut bob = stage.newcomer("Bob")?;
    let Some(disk) = SmallDisk::mount(&bob.profile())? else {
        return Ok(());
    };
    disk.fill()?;
    bob.fails(&["join", &link], Exit::DiskFull)?;
    disk.free()?;
    bob.must(&["join", &link], "joined")?;
    stage.people[0].must(&["group", "add", TEAM, "Bob"], "members_added")?;
    bob.say(TEAM, "before")?;
    let ann = &mut stage.people[0];
    ann.say(TEAM, "from Ann")?;

    disk.fill()?;
    let error = bob.fails(&["send", TEAM, "no room"], Exit::DiskFull)?;
    ensure!(error["queued"] == false, "{error}");
    bob.fails(&["read", TEAM], Exit::DiskFull)?;
    disk.free()?;
    ensure!(texts(&bob)? == ["before", "from Ann"]);

    bob.come_online()?;
    disk.fill()?;
    ann.say(TEAM, "while Bob has no room")?;
    let (_, code) = bob.leave(PATIENCE)?;
    ensure!(
        code == i32::from(Exit::DiskFull.number()),
        "listen ended with {code}"
    );
    disk.free()?;
    bob.say(TEAM, "the end")?;
    let all = ["before", "from Ann", "while Bob has no room", "the end"];
    ensure!(texts(&bob)? == all);
    ensure!(texts(&stage.people[0])? == all);
    Ok(())
}
