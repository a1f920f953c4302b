//! Each kind of trouble has its exit code, says what to do, and loses nothing.

use mortise_client::output::clean;

use crate::setting::{Ran, Setting, bare, run};

/// The exit code, and that both people and programs are told.
#[track_caller]
fn fails(ran: &Ran, exit: i32, code: &str) {
    assert_eq!(ran.exit, exit, "{ran:?}");
    assert!(ran.err.starts_with("mortise: "), "{ran:?}");
    assert!(ran.err.contains("\n  next: "), "{ran:?}");
    let json = ran.json();
    assert_eq!(json["event"], "error", "{ran:?}");
    assert_eq!(json["code"], code, "{ran:?}");
    assert_eq!(json["exit"], exit, "{ran:?}");
    for line in ran.err.lines() {
        assert_eq!(clean(line), line);
    }
}

#[test]
fn a_wrong_command_line_is_2() {
    for args in [
        &["--json"][..],
        &["--json", "no-such-verb"],
        &["--json", "send", "team"],
        &["--json", "invite"],
        &["--json", "invite", "Ann", "--device"],
        &["--json", "invite", "Ann", "--expires", "7"],
        &["--json", "role", "Ann", "king"],
        &["--json", "offboard", "Ann", "--wait", "soon"],
        &["--json", "suspend"],
        &["--json", "invite", "Ann", "--again", "Bob"],
        &["--json", "invite", "--again", "Bob", "--role", "admin"],
        &["--json", "devices", "revoke"],
        &["--json", "policy", "set"],
        &["--json", "policy", "set", "--suite", "0x0002"],
        &["--json", "policy", "set", "--staleness", "sometimes"],
        &["--json", "profile", " "],
        &["--json", "group", "policy", "team"],
        &["--json", "group", "policy", "team", "--retention", "36h"],
        &["--json", "group", "admin", "add", "team"],
        &["--json", "group", "rename", "team", "a\nb"],
        &["--json", "join", "x", "--pin", "1234"],
        &["--json", "org", "recover", "--name", "Olga"],
        &[
            "--json",
            "org",
            "recover",
            "--root-key",
            "x",
            "--name",
            "O",
            "--relay",
            "h:1",
        ],
    ] {
        let ran = run(&mut bare(args));
        assert_eq!(ran.exit, 2, "{args:?}: {ran:?}");
        assert_eq!(ran.json()["code"], "usage", "{args:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    for args in [
        &["--help"][..],
        &["--version"],
        &["send", "--help"],
        &["help", "group", "add"],
    ] {
        let ran = run(&mut bare(args));
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{args:?}");
        assert!(!ran.out.is_empty());
    }
}

#[test]
fn no_profile_is_3() {
    let setting = Setting::empty();
    fails(&setting.run(&["--json", "whoami"]), 3, "profile");
    fails(&setting.run(&["--json", "listen"]), 3, "profile");
    assert!(!setting.profile().dir().exists(), "nothing was made");
}

#[test]
fn an_existing_profile_is_not_joined_over() {
    let setting = Setting::with_profile();
    let before = std::fs::read(setting.profile().database()).expect("read");
    let link = setting.link().to_text();
    fails(&setting.run(&["--json", "join", &link]), 3, "profile");
    let after = std::fs::read(setting.profile().database()).expect("read");
    assert_eq!(before, after);
}

#[test]
fn a_profile_in_use_is_3() {
    let setting = Setting::with_profile();
    let lock = setting.profile().lock().expect("lock");
    let ran = setting.run(&["--json", "whoami"]);
    fails(&ran, 3, "profile");
    assert!(ran.err.contains("another mortise is using this profile"));
    drop(lock);
    assert_eq!(setting.run(&["whoami"]).exit, 0);
}

#[test]
fn a_wrong_empty_or_missing_passphrase_is_4() {
    let setting = Setting::with_profile();
    for (content, says) in [("wrong", "wrong"), ("", "empty"), ("\n", "empty")] {
        std::fs::write(setting.path("pass"), content).expect("write");
        let ran = setting.run(&["--json", "whoami"]);
        fails(&ran, 4, "passphrase");
        assert!(ran.err.contains(says), "{ran:?}");
    }
    let mut command = setting.command(&["--json", "whoami"]);
    fails(
        &run(command.env_remove("MORTISE_PASSPHRASE_FILE")),
        4,
        "passphrase",
    );
}

#[test]
fn a_damaged_database_or_key_file_is_5() {
    let setting = Setting::with_profile();
    for file in [setting.profile().database(), setting.profile().key_file()] {
        let good = std::fs::read(&file).expect("read");
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x80;
        std::fs::write(&file, bad).expect("write");
        let ran = setting.run(&["--json", "whoami"]);
        fails(&ran, 5, "corrupt");
        std::fs::remove_file(&file).expect("remove");
        fails(&setting.run(&["--json", "whoami"]), 5, "corrupt");
        std::fs::write(&file, good).expect("write");
    }
    assert_eq!(setting.run(&["whoami"]).exit, 0);
}

#[test]
fn a_silent_relay_is_7_and_what_is_stored_is_shown() {
    let setting = Setting::with_profile();
    fails(&setting.run(&["--json", "users"]), 7, "unreachable");
    for verb in [
        &["--json", "invite", "Ann"][..],
        &["--json", "suspend", "Ann"],
        &["--json", "policy", "set", "--pin", "required"],
        &["--json", "profile", "Ann"],
        &["--json", "devices", "add"],
        &["--json", "group", "rename", "team", "crew"],
        &["--json", "group", "leave", "team"],
        &["--json", "group", "restart", "team"],
        &["--json", "group", "close", "team"],
    ] {
        let ran = setting.run(verb);
        fails(&ran, 7, "unreachable");
        assert_eq!(ran.json()["queued"], false, "{ran:?}");
    }
    assert_eq!(setting.run(&["--offline", "users"]).exit, 0);
    assert_eq!(setting.run(&["whoami"]).exit, 0);
}

#[test]
fn a_join_that_never_reached_the_relay_leaves_nothing() {
    let setting = Setting::empty();
    let link = setting.link().to_text();
    fails(&setting.run(&["--json", "join", &link]), 7, "unreachable");
    assert!(!setting.profile().exists());
    fails(&setting.run(&["--json", "join", &link]), 7, "unreachable");
}

#[test]
fn a_link_that_does_not_read_is_11() {
    let setting = Setting::empty();
    let link = setting.link().to_text();
    let cut = &link[..link.len() - 5];
    for link in [
        cut,
        "mortise://claim/AQ",
        "https://example.org",
        "mortise://join/Ag",
    ] {
        fails(&setting.run(&["--json", "join", link]), 11, "link");
    }
    let key = setting.path("root.key");
    let key = key.to_str().expect("UTF-8");
    let args = [
        "--json",
        "org",
        "create",
        "--claim",
        cut,
        "--name",
        "O",
        "--root-key-out",
        key,
    ];
    fails(&setting.run(&args), 11, "link");
    assert!(!setting.path("root.key").exists());
    assert!(!setting.profile().exists());
}

#[test]
fn a_link_with_a_pin_asks_for_it_before_it_does_anything() {
    let setting = Setting::empty();
    let mut link = setting.link();
    link.needs_pin = true;
    let link = link.to_text();
    let ran = setting.run(&["--json", "join", &link]);
    fails(&ran, 11, "link");
    assert!(ran.err.contains("needs a PIN"), "{ran:?}");
    assert!(!setting.profile().dir().exists(), "nothing was made");
    let args = ["--json", "join", &link, "--pin", "abcd 2345"];
    fails(&setting.run(&args), 7, "unreachable");
}

#[test]
fn a_root_key_that_does_not_read_is_22() {
    let setting = Setting::empty();
    let file = setting.path("root.key");
    let path = file.to_str().expect("UTF-8");
    let recover = [
        "--json",
        "org",
        "recover",
        "--root-key",
        path,
        "--name",
        "O",
    ];
    fails(&setting.run(&recover), 3, "profile");
    let other = format!(
        "mortise-root-key-1 {} {}\n",
        "ab".repeat(32),
        "cd".repeat(32)
    );
    for content in ["", "mortise-root-key-1 abc def\n", "hello\n", &other] {
        std::fs::write(&file, content).expect("write");
        fails(&setting.run(&recover), 22, "root_key");
    }
    assert!(!setting.profile().exists());
}

#[test]
fn a_link_may_come_from_a_file_or_from_stdin() {
    let setting = Setting::empty();
    let path = setting.path("link");
    std::fs::write(&path, format!("  {}\n", setting.link().to_text().as_str())).expect("write");
    let file = path.to_str().expect("UTF-8");
    fails(
        &setting.run(&["--json", "join", "--link-file", file]),
        7,
        "unreachable",
    );
    let mut command = setting.command(&["--json", "join", "-"]);
    let stdin = std::fs::File::open(&path).expect("open");
    fails(&run(command.stdin(stdin)), 7, "unreachable");
}

#[test]
fn unknown_names_are_12() {
    let setting = Setting::with_profile();
    let ran = setting.run(&["--json", "--offline", "send", "no\u{1b}[31mwhere", "hi"]);
    fails(&ran, 12, "unknown");
    fails(
        &setting.run(&["--json", "--offline", "group", "show", "nowhere"]),
        12,
        "unknown",
    );
    fails(
        &setting.run(&["--json", "--offline", "devices", "list", "nobody"]),
        12,
        "unknown",
    );
    fails(
        &setting.run(&["--json", "--offline", "read", "nowhere"]),
        12,
        "unknown",
    );
    fails(
        &setting.run(&["--json", "--offline", "verify", "nobody"]),
        12,
        "unknown",
    );
}

#[test]
fn too_much_on_stdin_is_14() {
    let setting = Setting::with_profile();
    let path = setting.path("big");
    std::fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).expect("write");
    let mut command = setting.command(&["--json", "send", "team", "-"]);
    let stdin = std::fs::File::open(&path).expect("open");
    fails(&run(command.stdin(stdin)), 14, "too_large");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let setting = Setting::with_profile();
    let mut child = setting
        .command(&["whoami"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}
