//! Every command's `--help`, compared with a file: what users see changes on purpose or not at all.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p mortise-cli --test help` writes the file anew.

use mortise_client::commands::command;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/help.txt");

fn render(command: &mut clap::Command, path: &str, out: &mut String) {
    let help = command.render_long_help().to_string();
    *out += &format!("==== {path} --help\n");
    for line in help.lines() {
        *out += line.trim_end();
        out.push('\n');
    }
    let names: Vec<_> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .filter(|name| name != "help")
        .collect();
    for name in names {
        let sub = command.find_subcommand_mut(&name).expect("it is listed");
        render(sub, &format!("{path} {name}"), out);
    }
}

fn rendered() -> String {
    let mut command = command().term_width(100);
    command.build();
    let mut out = String::new();
    render(&mut command, "mortise", &mut out);
    out
}

#[test]
fn help_is_as_it_was() {
    let now = rendered();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &now).expect("write");
    }
    let before = std::fs::read_to_string(SNAPSHOT).expect("read");
    for (number, (a, b)) in before.lines().zip(now.lines()).enumerate() {
        assert_eq!(a, b, "line {} of {SNAPSHOT}", number + 1);
    }
    assert_eq!(before.lines().count(), now.lines().count(), "{SNAPSHOT}");
}

#[test]
fn every_command_has_an_example() {
    fn check(command: &mut clap::Command) {
        if command.get_name() == "help" {
            return;
        }
        let help = command.render_long_help().to_string();
        let name = command.get_name();
        assert!(help.contains("Examples:\n  "), "{name} has no examples");
        command.get_subcommands_mut().for_each(check);
    }
    let mut command = command();
    command.build();
    check(&mut command);
}
