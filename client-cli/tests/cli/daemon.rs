//! `mortise listen` holds the profile; the other commands work through it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use crate::setting::{Setting, run};

#[test]
fn commands_through_the_daemon_print_what_they_print_without_it() {
    let setting = Setting::with_profile();
    let args: [&[&str]; 4] = [
        &["whoami"],
        &["--json", "whoami"],
        &["--json", "--offline", "read", "nowhere"],
        &["--json", "users"],
    ];
    let alone = args.map(|args| setting.run(args));
    let daemon = setting.listen();
    for (args, alone) in args.into_iter().zip(alone) {
        let through = setting.run(args);
        assert_eq!(through.exit, alone.exit, "{args:?}");
        assert_eq!(through.out, alone.out, "{args:?}");
        assert_eq!(through.err, alone.err, "{args:?}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(!setting.profile().socket().exists());
    assert_eq!(setting.run(&["whoami"]).exit, 0);
}

#[test]
fn the_daemon_needs_no_passphrase_from_its_clients_and_reads_their_stdin() {
    let setting = Setting::with_profile();
    let daemon = setting.listen();
    let path = setting.path("text");
    std::fs::write(&path, "hello").expect("write");
    let mut command = setting.command(&["--json", "--offline", "send", "team", "-"]);
    command
        .env_remove("MORTISE_PASSPHRASE_FILE")
        .stdin(std::fs::File::open(&path).expect("open"));
    let ran = run(&mut command);
    assert_eq!(
        ran.exit, 12,
        "no such group, which is as far as it gets: {ran:?}"
    );
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn there_is_one_daemon() {
    let setting = Setting::with_profile();
    let _daemon = setting.listen();
    let second = setting.run(&["--json", "listen"]);
    assert_eq!(second.exit, 3, "{second:?}");
    let joining = setting.run(&["--json", "join", &setting.link().to_text()]);
    assert_eq!(joining.exit, 3, "{joining:?}");
}

#[test]
fn after_a_killed_daemon_everything_works() {
    let setting = Setting::with_profile();
    let daemon = setting.listen();
    daemon.signal(Signal::KILL);
    assert_eq!(daemon.wait(), None);
    assert!(setting.profile().socket().exists(), "left behind");
    assert_eq!(setting.run(&["whoami"]).exit, 0);
    drop(setting.listen());
}

#[test]
fn a_daemon_that_dies_in_the_middle_of_a_command_is_17() {
    let setting = Setting::with_profile();
    let _lock = setting.profile().lock().expect("lock");
    let socket = UnixListener::bind(setting.profile().socket()).expect("bind");
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().expect("accept");
        let mut line = String::new();
        BufReader::new(&stream)
            .read_line(&mut line)
            .expect("request");
        stream.write_all(b"{\"out\":\"half\"}\n").expect("answer");
        line
    });
    let ran = setting.run(&["--json", "whoami"]);
    let request = daemon.join().expect("thread");
    assert!(request.contains("\"whoami\""));
    assert_eq!(ran.exit, 17, "{ran:?}");
    assert_eq!(ran.out.lines().next(), Some("half"));
    assert_eq!(ran.json()["code"], "daemon");
}
