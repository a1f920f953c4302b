//! The binary from outside: output, exit codes, signals.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use mortise_protocol::identity::ClaimLink;
use serde_json::Value;
use tempfile::TempDir;

fn relay(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mortise-relay"));
    command.args(arguments).arg("--data").arg(data);
    command
}

fn output(arguments: &[&str], data: &Path) -> Output {
    relay(arguments, data).output().expect("run")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn json(output: &Output) -> Value {
    assert_eq!(code(output), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A data directory that `init` has made, and what it printed.
fn initialised() -> (TempDir, std::path::PathBuf, Value) {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let made = json(&output(
        &["init", "--listen", "127.0.0.1:0", "--json"],
        &data,
    ));
    (dir, data, made)
}

/// A running relay, stopped by SIGTERM.
struct Running {
    child: Child,
    listening: Value,
}

impl Running {
    fn start(data: &Path) -> Self {
        let mut child = relay(&["run", "--json"], data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        let stdout = child.stdout.take().expect("stdout");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let listening = serde_json::from_str(&line).expect("JSON");
        Self { child, listening }
    }

    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        self.child.wait().expect("wait").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_relay_is_made_run_asked_and_stopped() {
    let (_dir, data, made) = initialised();
    let claim = ClaimLink::parse(made["claim_link"].as_str().expect("link")).expect("link");
    assert_eq!(made["fingerprint"], claim.relay_key.to_string());
    assert_eq!(code(&output(&["status"], &data)), Some(4));

    let running = Running::start(&data);
    assert_eq!(running.listening["event"], "listening");
    assert_eq!(running.listening["fingerprint"], made["fingerprint"]);
    let address = running.listening["address"]
        .as_str()
        .expect("address")
        .to_owned();
    assert!(!address.ends_with(":0"), "{address}");

    let status = json(&output(&["status", "--json"], &data));
    assert_eq!(status["stopped"], false);
    assert_eq!(status["connections"], 0);
    let more = json(&output(&["claim-token", "--json"], &data));
    let more = ClaimLink::parse(more["claim_link"].as_str().expect("link")).expect("link");
    assert_eq!((more.relay, more.relay_key), (address, claim.relay_key));
    assert_ne!(more.token, claim.token);

    let again = output(&["run"], &data);
    assert_eq!(code(&again), Some(4), "{}", stderr(&again));
    assert_eq!(code(&output(&["fsck"], &data)), Some(4));
    assert_eq!(running.stop(), Some(0));
    let offline = json(&output(&["claim-token", "--json"], &data));
    assert!(ClaimLink::parse(offline["claim_link"].as_str().expect("link")).is_ok());
    assert_eq!(code(&output(&["fsck"], &data)), Some(0));
    assert!(!data.join("admin.sock").exists());
}

#[test]
fn failures_have_their_exit_codes() {
    let (dir, data, _) = initialised();
    assert_eq!(code(&output(&["init", "--nonsense"], &data)), Some(2));
    let again = output(&["init"], &data);
    assert_eq!(code(&again), Some(3));
    assert!(stderr(&again).contains("not empty"), "{}", stderr(&again));
    let nowhere = output(&["run"], dir.path());
    assert_eq!(code(&nowhere), Some(3));
    assert!(
        stderr(&nowhere).contains("mortise-relay init"),
        "{}",
        stderr(&nowhere)
    );

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let refused = output(&["run", "--listen", &address], &data);
    assert_eq!(code(&refused), Some(6), "{}", stderr(&refused));

    std::fs::write(data.join("relay.toml"), "listen = 7").expect("write");
    assert_eq!(code(&output(&["run"], &data)), Some(3));
}

/// REQ-073: damage is refused with its own exit code, and a missing database is never replaced.
#[test]
fn a_damaged_or_missing_database_is_refused() {
    let (_dir, data, _) = initialised();
    let database = data.join("relay.db");
    std::fs::write(&database, b"this is no database, whatever its name says").expect("write");
    for command in ["run", "fsck", "claim-token"] {
        let refused = output(&[command], &data);
        assert_eq!(code(&refused), Some(5), "{command}: {}", stderr(&refused));
        assert!(stderr(&refused).contains("damaged"), "{}", stderr(&refused));
    }
    std::fs::remove_file(&database).expect("remove");
    let refused = output(&["run"], &data);
    assert_eq!(code(&refused), Some(5), "{}", stderr(&refused));
    assert!(!database.exists());
}

/// The statement key and the database belong together.
#[test]
fn another_relays_database_is_refused() {
    let (_dir, data, _) = initialised();
    let (_other_dir, other, _) = initialised();
    std::fs::copy(other.join("relay.db"), data.join("relay.db")).expect("copy");
    // It does not even have this journal.
    let refused = output(&["run"], &data);
    assert_eq!(code(&refused), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("journal"), "{}", stderr(&refused));
    std::fs::remove_dir_all(data.join("relay.journal")).expect("remove");
    let refused = output(&["run"], &data);
    assert_eq!(code(&refused), Some(5), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("statement key"),
        "{}",
        stderr(&refused)
    );
}

/// REQ-344: a copy that is made while the relay runs holds what was acknowledged before, is whole, and is a relay.
#[test]
fn a_running_relay_is_copied() {
    let (dir, data, made) = initialised();
    let running = Running::start(&data);
    for _ in 0..3 {
        json(&output(&["claim-token", "--json"], &data));
    }
    let status = json(&output(&["status", "--json"], &data));
    assert!(
        status["storage"]["journal_bytes"].as_u64() > Some(0),
        "{status}"
    );
    let out = dir.path().join("copy");
    let copy = |command: &mut Command| command.arg("--out").arg(&out).output().expect("run");
    let copied = json(&copy(&mut relay(&["backup", "--json"], &data)));
    assert_eq!(copied["event"], "copied");
    let again = copy(&mut relay(&["backup"], &data));
    assert_eq!(code(&again), Some(3), "{}", stderr(&again));
    // Four tokens: with that of `init`.
    let tokens = |data: &Path| {
        let store = mortise_relay::store::check(&data.join("relay.db")).expect("whole");
        let space = mortise_relay::core::layout::CLAIM_TOKENS;
        let tokens = mortise_protocol::store::Reader::range(&store, space, b"", b"", 9);
        tokens.expect("range").len()
    };
    assert_eq!(tokens(&out), 4);
    json(&output(&["claim-token", "--json"], &data));
    assert_eq!(running.stop(), Some(0));
    assert_eq!((tokens(&data), tokens(&out)), (5, 4));
    assert_eq!(code(&output(&["fsck"], &out)), Some(0));
    let restored = Running::start(&out);
    assert_eq!(restored.listening["fingerprint"], made["fingerprint"]);
    assert_eq!(restored.stop(), Some(0));
    let stopped = dir.path().join("another");
    let of_stopped = relay(&["backup"], &data)
        .arg("--out")
        .arg(&stopped)
        .output();
    assert_eq!(code(&of_stopped.expect("run")), Some(0));
    assert_eq!(tokens(&stopped), 5);
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = Command::new(env!("CARGO_BIN_EXE_mortise-relay"))
        .arg("--help")
        .output()
        .expect("run");
    let text = String::from_utf8(help.stdout).expect("text");
    for part in [
        "Examples:",
        "Exit codes:",
        "  5  storage",
        "claim-token",
        "fsck",
    ] {
        assert!(text.contains(part), "{part} is missing from:\n{text}");
    }
}
