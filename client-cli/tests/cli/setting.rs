//! A profile that nobody has admitted anywhere, and ways to run `mortise` on it.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mortise_client::machine::system_rng;
use mortise_client::profile::Profile;
use mortise_client::{database, keystore};
use mortise_protocol::engine::{Admission, save_identity};
use mortise_protocol::identity::{
    Hash, InvitationId, InvitationSecret, JoinLink, OrgId, RosterSeq, UserId,
};

pub(crate) const PASSPHRASE: &str = "four words of mine";

/// A directory with a profile, a passphrase file, and a relay that never answers.
pub(crate) struct Setting {
    pub(crate) dir: tempfile::TempDir,
    relay: UdpSocket,
}

impl Setting {
    /// Nothing but the passphrase file.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("pass"), format!("{PASSPHRASE}\n")).expect("write");
        let relay = UdpSocket::bind("127.0.0.1:0").expect("bind");
        Self { dir, relay }
    }

    /// With a profile.
    pub(crate) fn with_profile() -> Self {
        let this = Self::empty();
        let profile = this.profile();
        profile.make_dir().expect("dir");
        let mut rng = system_rng();
        let key = keystore::create(&profile, PASSPHRASE, &mut rng).expect("key");
        let mut store = database::create(&profile, &key).expect("database");
        let admission = Admission::join(this.link(), &mut rng);
        save_identity(&mut store, admission.identity()).expect("identity");
        this
    }

    /// An invitation to the relay that never answers.
    pub(crate) fn link(&self) -> JoinLink {
        JoinLink {
            relay: self.relay.local_addr().expect("address").to_string(),
            relay_key: Hash([1; 32]),
            org: OrgId([2; 32]),
            pin_seq: RosterSeq(1),
            pin_hash: Hash([3; 32]),
            user: UserId([4; 16]),
            invitation: InvitationId([5; 16]),
            secret: InvitationSecret::random(&mut system_rng()),
            needs_pin: false,
        }
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile::at(self.dir.path().join("profile"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `mortise ARGS` on the profile, with its passphrase and a short time limit.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command
            .env("MORTISE_PROFILE", self.profile().dir())
            .env("MORTISE_PASSPHRASE_FILE", self.path("pass"))
            .args(["--timeout", "0.3"]);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// `mortise listen`, once its socket answers.
    pub(crate) fn listen(&self) -> Listening {
        let mut command = self.command(&["--json", "listen"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let listening = Listening(command.spawn().expect("spawn"));
        let socket = self.profile().socket();
        for _ in 0..200 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return listening;
            }
            // house: allow(honest-tests): a socket tells nobody that it is there; ten seconds are the end, not the measure
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the daemon does not listen");
    }
}

/// `mortise ARGS` without a profile, a passphrase or a terminal.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mortise"));
    command
        .args(args)
        .env_remove("MORTISE_PROFILE")
        .env_remove("MORTISE_PASSPHRASE_FILE")
        .stdin(Stdio::null());
    command
}

/// What a run of `mortise` left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ran {
    /// The last line of stdout, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let line = self.out.lines().last().expect("a line on stdout");
        serde_json::from_str(line).expect("JSON")
    }
}

pub(crate) fn run(command: &mut Command) -> Ran {
    command.output().expect("run").into()
}

/// A running daemon; killed on drop.
pub(crate) struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Listening {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.0.id()).expect("pid");
        let pid = rustix::process::Pid::from_raw(id).expect("pid");
        rustix::process::kill_process(pid, signal).expect("kill");
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || ended.send(self.0.wait().expect("wait").code()));
        end.recv_timeout(Duration::from_secs(10))
            .expect("it does not end")
    }
}
