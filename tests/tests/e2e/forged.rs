//! Roster entries that nobody signed: in the relay's database, on the wire, in a client's database.

use anyhow::{Context as _, ensure};
use mortise_client::exit::Exit;
use mortise_client::profile::Profile;
use mortise_client::{database, keystore};
use mortise_protocol::store::{Reader as _, Space, Store as _, Write};
use mortise_relay::admin::{self, AdminRequest};
use mortise_relay::data_dir::DataDir;
use mortise_tests::demo::person::text;
use mortise_tests::stage::{Stage, TEAM};
use rusqlite::Connection;

/// Where a relay keeps roster entries (`relay/src/core/layout.rs`).
const RELAY_ROSTER: i64 = 0x10;
/// Where a client does (`protocol/src/engine/rows.rs`).
const CLIENT_ROSTER: Space = Space(0x21);

/// Changes one bit of the newest roster entry in a relay's database, or changes it back.
fn forge(database: &std::path::Path) -> anyhow::Result<()> {
    let connection = Connection::open(database).context("open the relay's database")?;
    let newest = "SELECT key, value FROM kv WHERE space = ?1 ORDER BY key DESC LIMIT 1";
    let (key, mut entry): (Vec<u8>, Vec<u8>) = connection
        .query_row(newest, [RELAY_ROSTER], |row| Ok((row.get(0)?, row.get(1)?)))
        .context("the newest entry")?;
    // In the signature: everything else about the entry stays as it was.
    *entry.last_mut().context("an empty entry")? ^= 1;
    let change = "UPDATE kv SET value = ?1 WHERE space = ?2 AND key = ?3";
    let changed = connection.execute(change, (entry, RELAY_ROSTER, key));
    ensure!(changed.context("change the entry")? == 1);
    Ok(())
}

#[test]
fn a_relay_does_not_start_on_a_forged_entry() -> anyhow::Result<()> {
    let mut stage = Stage::with(&["Ann", "Bob"])?;
    stage.people[0].say(TEAM, "before")?;
    let rest = stage.stop_relay()?.clone();
    let database = rest.data().join("relay.db");
    forge(&database)?;
    let (code, said) = rest.refuses_to_start()?;
    ensure!(code == 5 && said.contains("roster"), "{code}: {said}");
    forge(&database)?;
    stage.start_relay()?;
    ensure!(stage.people[1].reads(TEAM)?.len() == 1);
    Ok(())
}

#[test]
fn a_forged_entry_from_the_relay_is_refused_by_name() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let [ann, bob] = &stage.people[..] else {
        anyhow::bail!("two people");
    };
    ann.say(TEAM, "before")?;
    ensure!(bob.reads(TEAM)?.len() == 1);
    ann.must(&["invite", "Cy"], "invited")?;
    let data = stage.dir().join("relay");
    let database = data.join("relay.db");
    // What was appended just now may be in the journal alone.
    admin::ask(&DataDir::open(&data)?, AdminRequest::Flush)?;
    forge(&database)?;
    for verb in [
        &["send", TEAM, "to whom?"][..],
        &["read", TEAM],
        &["invite", "--device"],
        &["listen"],
    ] {
        let error = bob.fails(verb, Exit::Distrusted)?;
        let message = text(&error, "message")?;
        ensure!(
            message.contains("roster entry that breaks the rules"),
            "{message}"
        );
        ensure!(error["queued"] == false, "{error}");
    }
    let done = bob.run(&["--offline", "read", TEAM])?;
    ensure!(done.code == 0 && done.lines.iter().filter(|line| line.is("message")).count() == 1);
    // With the true entry everything goes on.
    forge(&database)?;
    let texts: Vec<_> = bob.reads(TEAM)?.into_iter().map(|row| row.1).collect();
    ensure!(texts == ["before"], "{texts:?}");
    Ok(())
}

#[test]
fn a_forged_entry_in_the_own_database_is_found() -> anyhow::Result<()> {
    let stage = Stage::with(&["Ann", "Bob"])?;
    let bob = &stage.people[1];
    let profile = Profile::at(bob.profile());
    let key = keystore::open(&profile, &bob.passphrase)?;
    let forge = || -> anyhow::Result<()> {
        let mut store = database::open(&profile, &key)?;
        let rows = store.range(CLIENT_ROSTER, b"", b"", 1_000)?;
        let (key, mut entry) = rows.into_iter().last().context("no roster")?;
        *entry.last_mut().context("an empty entry")? ^= 1;
        let write = Write {
            space: CLIENT_ROSTER,
            key,
            value: Some(entry),
        };
        Ok(store.apply(&[write])?)
    };
    forge()?;
    for verb in [&["whoami"][..], &["send", TEAM, "x"], &["read", TEAM]] {
        let error = bob.fails(verb, Exit::Corrupt)?;
        let message = text(&error, "message")?;
        ensure!(message.contains("the roster does not read"), "{message}");
    }
    forge()?;
    bob.say(TEAM, "after")?;
    Ok(())
}
