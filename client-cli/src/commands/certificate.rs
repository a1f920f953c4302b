//! `mortise certificate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use mortise_protocol::certificate::{
    MAX_CERTIFICATE_BYTES, VerifiedCertificate, VerifiedGroup, WitnessKind, verify,
};
use mortise_protocol::engine::{CertificationError, CommandKind, Event};
use mortise_protocol::identity::{OrgId, RosterSeq, UserId};
use mortise_protocol::roster::{EntrySigner, UserStatus};
use mortise_protocol::wire::GroupState;
use mortise_protocol::wire::log::Verdict;

use super::{Context, order};
use crate::error::CliError;
use crate::machine::now_ms;
use crate::output::{CertificateShown, Printer, Report, ShownGroup, ShownWitness};

/// How long the relay's answer may take: it may be long.
const ANSWER: Duration = Duration::from_secs(60);

/// Prove, to somebody who was not there, that a user was removed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mortise certificate export Bob --out bob.certificate
  mortise certificate verify bob.certificate --root 7f3a…")]
pub struct CertificateArgs {
    #[command(subcommand)]
    verb: CertificateVerb,
}

#[derive(Debug, Subcommand)]
enum CertificateVerb {
    Export(Export),
    Verify(Verify),
}

/// Write one file that shows who stated what about a user's removal or suspension
#[derive(Debug, Args)]
#[command(after_help = "\
The file holds the order, the chain of signatures from the organisation's root key to everybody who
stated something, the relay's signed statement about every group, members' attestations, and the
receipts that are sealed to this device. It holds no message and no name. It is verified before it
is written; a group of yours that the relay left out is an error.

With --disclose it shows the whole roster, and the trees of the groups that you are in: whoever
reads it sees who else is in them, by id and key.

Examples:
  mortise certificate export Bob --out bob.certificate
  mortise certificate export Bob --out bob.certificate --disclose")]
struct Export {
    /// The user, by name or by the beginning of their id
    user: String,
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also show the whole roster and who is in your groups
    #[arg(long)]
    disclose: bool,
}

/// Verify a certificate offline, with no account
#[derive(Debug, Args)]
#[command(after_help = "\
The fingerprint is the organisation's id, as `mortise whoami` shows it: get it over a channel that you
trust, not with the file. Exit code 24: the certificate does not hold.

Examples:
  mortise certificate verify bob.certificate --root 7f3a…
  mortise --json certificate verify bob.certificate --root 7f3a… | jq .follows")]
struct Verify {
    /// The certificate
    file: PathBuf,
    /// The fingerprint of the organisation's root key, 64 hexadecimal digits
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    root: OrgId,
}

fn fingerprint(text: &str) -> Result<OrgId, String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(OrgId)
        .ok_or_else(|| "must be 64 hexadecimal digits".into())
}

impl CertificateArgs {
    /// Verifying needs no profile.
    pub(super) fn needs_no_profile(&self) -> bool {
        matches!(self.verb, CertificateVerb::Verify(_))
    }

    /// The file's path, made absolute.
    pub(super) fn elsewhere(&self, args: Vec<String>) -> Vec<String> {
        let CertificateVerb::Export(export) = &self.verb else {
            return args;
        };
        let Ok(absolute) = std::path::absolute(&export.out) else {
            return args;
        };
        let (given, absolute) = (
            export.out.display().to_string(),
            absolute.display().to_string(),
        );
        args.into_iter()
            .map(|arg| match arg.strip_prefix("--out=") {
                Some(_) => format!("--out={absolute}"),
                None if arg == given => absolute.clone(),
                None => arg,
            })
            .collect()
    }

    pub(super) async fn run(self, cx: &Context) -> Result<(), CliError> {
        match self.verb {
            CertificateVerb::Export(export) => export.run(cx).await,
            CertificateVerb::Verify(verb) => verb.run(&cx.out).await,
        }
    }

    pub(super) async fn verify(self, out: &Printer) -> Result<(), CliError> {
        match self.verb {
            CertificateVerb::Verify(verb) => verb.run(out).await,
            CertificateVerb::Export(_) => {
                Err(CliError::Internal("this verb needs a profile".into()))
            }
        }
    }
}

impl Export {
    async fn run(self, cx: &Context) -> Result<(), CliError> {
        if self.out.exists() {
            return Err(CliError::FileExists { path: self.out });
        }
        cx.sync().await?;
        let names = cx.names().await?;
        let user = names.find_user(&self.user)?;
        let order = order_against(cx, user).await?;
        cx.out
            .note("asking the relay for its statement, and for receipts")
            .await;
        let kind = CommandKind::CollectEvidence { order };
        let evidence = cx
            .carry_out_within(
                ANSWER.max(cx.timeout),
                "the certificate",
                kind,
                |event| match event {
                    Event::Evidence { evidence, .. } => Some(evidence),
                    _ => None,
                },
            )
            .await
            .map_err(not_queued)?;
        let receipts = evidence.receipts.len();
        cx.out
            .note(&format!(
                "{} groups, {} attestations, {receipts} receipts; checking all of it",
                evidence.groups.len(),
                evidence.attestations.len(),
            ))
            .await;
        let disclose = self.disclose;
        let (file, root) = cx
            .session
            .query(move |engine| {
                let file = engine.certificate(now_ms(), *evidence, disclose);
                file.map(|file| (file, engine.org()))
            })
            .await?
            .map_err(refused)?;
        let shown = verify(&file, root)?;
        write_new(&self.out, &file)?;
        let sealed = shown
            .groups
            .iter()
            .filter(|g| g.state == GroupState::Sealed);
        let report = Report::CertificateExported {
            file: self.out.display().to_string(),
            bytes: file.len(),
            seq: order.0,
            groups: shown.groups.len(),
            sealed: sealed.count(),
            receipts,
            disclosed: disclose,
        };
        cx.out.report(&report).await
    }
}

/// The order that put a user out.
async fn order_against(cx: &Context, user: UserId) -> Result<RosterSeq, CliError> {
    let status = cx
        .session
        .query(move |engine| engine.roster().user(user).map(|record| record.status))
        .await?;
    match status {
        Some(UserStatus::Removed { at } | UserStatus::Suspended { at }) => Ok(at),
        _ => Err(CliError::NotNow {
            what: "the user belongs to the organisation: there is no order to certify".into(),
            advice: "remove them with `mortise offboard`, or suspend them with `mortise suspend`",
        }),
    }
}

/// Nothing was stored that would be done later.
fn not_queued(error: CliError) -> CliError {
    match error {
        CliError::Queued { cause, .. } => *cause,
        other => other,
    }
}

fn refused(error: CertificationError) -> CliError {
    match error {
        CertificationError::Certificate(error) => CliError::Certificate(error),
        CertificationError::Engine(error) => error.into(),
        convicting => CliError::Distrusted {
            reason: convicting.to_string(),
        },
    }
}

/// Writes a file that must not be there yet; nothing is left behind when it fails.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut file = match std::fs::File::create_new(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::FileExists { path: path.into() });
        }
        other => other.map_err(CliError::file("write", path))?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // What is half written proves nothing.
        let _ = std::fs::remove_file(path);
        CliError::file("write", path)(error)
    })
}

impl Verify {
    async fn run(self, out: &Printer) -> Result<(), CliError> {
        let metadata = std::fs::metadata(&self.file).map_err(CliError::file("read", &self.file))?;
        if metadata.len() > MAX_CERTIFICATE_BYTES as u64 {
            return Err(CliError::TooLarge(
                "the file is too large for a certificate".into(),
            ));
        }
        let bytes = std::fs::read(&self.file).map_err(CliError::file("read", &self.file))?;
        let shown = show(&verify(&bytes, self.root)?);
        out.report(&Report::Certificate(Box::new(shown))).await
    }
}

fn show(verified: &VerifiedCertificate) -> CertificateShown {
    let (order, state) = (&verified.order, &verified.state);
    let key = verified.roster.statement_key();
    CertificateShown {
        root: verified.roster.org().to_string(),
        seq: order.seq.0,
        user: order.user.map(|user| user.to_string()),
        devices: order.devices.iter().map(ToString::to_string).collect(),
        ordered_by: match verified.ordered_by {
            EntrySigner::Root => "the root key".into(),
            EntrySigner::Device(device) => format!("device {device}"),
            EntrySigner::Invitation(invitation) => format!("invitation {invitation}"),
        },
        ordered_at_ms: order.at_ms,
        fenced_at_ms: state.appended_at_ms,
        connections_closed: state.closed,
        stated_at_ms: state.at_ms,
        statement_key: key.map_or_else(String::new, |key| data_encoding::HEXLOWER.encode(&key.0)),
        maker: verified.maker.to_string(),
        made_at_ms: verified.at_ms,
        hidden_entries: verified.hidden,
        groups: verified.groups.iter().map(shown_group).collect(),
        follows: follows(verified),
        does_not_follow: does_not_follow(verified),
    }
}

fn shown_group(group: &VerifiedGroup) -> ShownGroup {
    let witnesses = group.witnesses.iter().map(|witness| ShownWitness {
        kind: match witness.kind {
            WitnessKind::Attestation => "attestation",
            WitnessKind::Receipt => "receipt",
        },
        device: witness.device.to_string(),
        user: witness.user.to_string(),
        verdict: match witness.verdict {
            Verdict::Rotated => "rotated",
            Verdict::Clean => "clean",
        },
        epoch: witness.epoch.0,
        at_ms: witness.at_ms,
    });
    let users = |leaves: &Vec<mortise_protocol::group::validate::Leaf>| {
        let mut users: Vec<String> = leaves.iter().map(|leaf| leaf.user.to_string()).collect();
        users.sort_unstable();
        users.dedup();
        users
    };
    ShownGroup {
        group: group.group.to_string(),
        state: order::word(group.state),
        confirmed: group.is_confirmed(),
        witnesses: witnesses.collect(),
        members: group.tree.as_ref().map(users),
    }
}

fn count(verified: &VerifiedCertificate, state: GroupState) -> usize {
    verified
        .groups
        .iter()
        .filter(|group| group.state == state)
        .count()
}

fn follows(verified: &VerifiedCertificate) -> Vec<String> {
    let of = |state| count(verified, state);
    let mut lines = vec![
        "somebody who may has ordered it, on the organisation's own chain".to_owned(),
        format!(
            "the relay has signed that these {} groups are all that there were at the order",
            verified.groups.len()
        ),
        format!(
            "members have signed that {} of them changed their keys without the departed, and that {} did not hold them",
            of(GroupState::Rotated),
            of(GroupState::Clean)
        ),
    ];
    if verified.groups.iter().any(|group| group.tree.is_some()) {
        lines.push("where a tree is disclosed, it is the one that was signed, and the departed are not in it".into());
    }
    lines
}

fn does_not_follow(verified: &VerifiedCertificate) -> Vec<String> {
    let mut lines = vec![
        "that the departed have forgotten what they had received before".to_owned(),
        "that a member who signed told the truth: the hashes in a receipt show what is in a tree, not what is absent".into(),
        "that no group was hidden by the relay and all of its members together".into(),
    ];
    let sealed = count(verified, GroupState::Sealed);
    if sealed > 0 {
        lines.push(format!(
            "anything about the {sealed} sealed groups: no member has spoken since; honest devices send nothing there before"
        ));
    }
    if verified.hidden > 0 {
        lines.push(format!(
            "what the {} hidden entries of the roster say: the relay and the maker vouch that they change nothing here",
            verified.hidden
        ));
    }
    lines
}
