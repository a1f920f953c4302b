//! Which exit codes each command can end with, for its `--help`; the words are those of [`Exit::meaning`].

use clap::{Command, CommandFactory as _};

use super::Cli;
use crate::exit::Exit;

/// What any command that works on a profile can end with, and any that connects.
const OF_ALL: &str = "\
Any command can also end with 2 to 6, 17 or 23, and one that connects with 7, 8, 10, 15, 16, 18
or 19: see `mortise --help`.";

/// The codes that a command has besides those, `Ok` aside; `None` for no such command.
fn codes(path: &str) -> Option<&'static [Exit]> {
    use Exit as E;
    Some(match path {
        "org create" => &[E::Link],
        "org recover" => &[E::RootKey],
        "join" => &[E::Link],
        "invite" => &[E::Unknown, E::NotAllowed, E::Queued],
        "users" | "devices list" | "roster log" | "roster verify" | "policy show"
        | "group list" | "whoami" | "listen" => &[],
        "devices add" | "policy set" => &[E::NotAllowed, E::Queued],
        "offboard" | "suspend" | "devices revoke" => {
            &[E::Sealed, E::Unknown, E::NotAllowed, E::Queued]
        }
        "role" | "profile" | "group create" | "group add" | "group remove" | "group admin add"
        | "group admin remove" | "group leave" | "group restart" | "group resync"
        | "group close" => &[E::Unknown, E::NotAllowed, E::Queued],
        "group rename" | "group topic" | "group policy" => {
            &[E::Unknown, E::NotAllowed, E::TooLarge, E::Queued]
        }
        "group show" | "read" | "verify" => &[E::Unknown],
        "send" => &[E::Unknown, E::NotAllowed, E::TooLarge, E::Queued, E::Stale],
        "certificate export" => &[E::Unknown, E::NotAllowed, E::Certificate],
        "certificate verify" => &[E::Certificate],
        _ => return None,
    })
}

/// The command line, with each command's exit codes at the end of its help.
#[must_use]
pub fn command() -> Command {
    with_exits(Cli::command(), "")
}

fn with_exits(mut command: Command, path: &str) -> Command {
    let names: Vec<_> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in &names {
        let below = format!("{path} {name}").trim_start().to_owned();
        command = command.mut_subcommand(name, |sub| with_exits(sub, &below));
    }
    let Some(codes) = codes(path) else {
        return command;
    };
    let examples = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut text = format!("{examples}\n\nExit codes:\n");
    for code in std::iter::once(&Exit::Ok).chain(codes) {
        text += &format!("  {:>2}  {}\n", code.number(), code.meaning());
    }
    command.after_help(text + OF_ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &Command, path: &str, out: &mut Vec<String>) {
        let mut subs = command.get_subcommands().peekable();
        if subs.peek().is_none() && !path.is_empty() {
            out.push(path.to_owned());
        }
        for sub in subs {
            leaves(sub, format!("{path} {}", sub.get_name()).trim_start(), out);
        }
    }

    #[test]
    fn every_command_says_how_it_can_end() {
        let mut all = Vec::new();
        leaves(&Cli::command(), "", &mut all);
        let silent: Vec<_> = all
            .into_iter()
            .filter(|path| codes(path).is_none())
            .collect();
        assert_eq!(silent, [""; 0]);
    }
}
