//! `mortise listen`: the device that stays online.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use mortise_protocol::engine::{Alarm, Event, HistoryRecord};
use mortise_protocol::identity::{GroupId, LogSeq};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::driver::{Link, Session, Status};
use crate::error::CliError;
use crate::names::Names;
use crate::output::{HistoryLine, Printer, Report};
use crate::transport::TransportError;

/// Lines that are asked for at a time.
const PAGE: usize = 500;
/// How old the list of names must be before it is asked for again because of a name that is missing.
const NAMES_AGE: Duration = Duration::from_secs(2);

/// Stay online: receive, rotate keys, serve the other commands
#[derive(Debug, Args)]
#[command(after_help = "\
Receives messages and prints them, adds what others were asked to add, and after an order rotates
the keys of every group that it is in. While it runs, the other commands on this profile work
through it. It reconnects by itself. SIGTERM or SIGINT ends it, with exit code 0; it ends with
exit code 10 when the organisation puts this device out.

Examples:
  mortise listen
  mortise --json listen | jq -r 'select(.event == \"message\") | .name + \": \" + .text'
  mortise --profile /var/lib/bot --passphrase-file /run/secrets/mortise --json listen")]
pub struct Listen {}

/// Prints what happens, until something ends it.
pub(crate) struct Watch {
    session: Arc<Session>,
    out: Printer,
    names: Names,
    names_at: Instant,
    /// Per group, the last line that was printed.
    printed: HashMap<GroupId, LogSeq>,
    announced: bool,
}

impl Watch {
    /// Watches this session.
    ///
    /// # Errors
    /// What ended the session.
    pub(crate) async fn new(session: Arc<Session>, out: Printer) -> Result<Self, CliError> {
        Ok(Self {
            names: Names::load(&session).await?,
            names_at: Instant::now(),
            session,
            out,
            printed: HashMap::new(),
            announced: false,
        })
    }

    /// Runs until the device is put out, the session ends, or nobody reads the output any more.
    ///
    /// # Errors
    /// Always: why it ended.
    pub(crate) async fn run(mut self, events: broadcast::Receiver<Event>) -> CliError {
        let status = self.session.status();
        let line = watch_line(status, self.out.clone());
        let events = async move {
            match self.print_all(events).await {
                Ok(never) => never,
                Err(error) => error,
            }
        };
        // Biased: what has happened is told before the state that it led to.
        tokio::select! {
            biased;
            error = events => error,
            error = line => error,
        }
    }

    async fn print_all(
        &mut self,
        mut events: broadcast::Receiver<Event>,
    ) -> Result<CliError, CliError> {
        loop {
            match events.recv().await {
                Ok(Event::Expelled) => {
                    self.out.report(&Report::Expelled).await?;
                    return Err(CliError::Expelled);
                }
                Ok(event) => self.print(event).await?,
                Err(RecvError::Lagged(_)) => self.catch_up().await?,
                // The other half knows why.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    async fn print(&mut self, event: Event) -> Result<(), CliError> {
        let report = match event {
            Event::Message { group, seq } => return self.print_lines(group, seq).await,
            Event::Synced if !self.announced => {
                self.announced = true;
                Report::Listening
            }
            Event::Joined { group } => {
                self.load_names().await?;
                Report::GroupJoined {
                    group: group.to_string(),
                    group_name: self.names.group(group),
                }
            }
            Event::RosterChanged { head } => {
                self.load_names().await?;
                Report::RosterChanged { seq: head.0 }
            }
            Event::DirectoryOpened => {
                self.load_names().await?;
                Report::NamesOpened
            }
            event => match unasked(&event, &self.session, &self.names).await? {
                Some(report) => report,
                None => return Ok(()),
            },
        };
        self.out.report(&report).await
    }

    /// The line at `seq`, and any before it that were missed since the last one that was printed.
    async fn print_lines(&mut self, group: GroupId, seq: LogSeq) -> Result<(), CliError> {
        let before = LogSeq(seq.0.saturating_sub(1));
        let mut after = self.printed.get(&group).copied().unwrap_or(before);
        while after < seq {
            let page = self
                .session
                .query(move |engine| engine.messages(group, after, PAGE))
                .await??;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for record in &page {
                self.print_line(group, record).await?;
            }
        }
        Ok(())
    }

    async fn print_line(&mut self, group: GroupId, record: &HistoryRecord) -> Result<(), CliError> {
        let unknown = record
            .user
            .is_some_and(|user| self.names.user(user).is_none());
        // Names that cannot be read yet are not looked for with every line.
        let due = self.names_at.elapsed() >= NAMES_AGE;
        if self.names.group(group).is_none() || unknown && due {
            self.load_names().await?;
        }
        self.printed.insert(group, record.seq);
        self.out
            .report(&Report::History(HistoryLine::new(
                group,
                record,
                &self.names,
            )))
            .await
    }

    async fn load_names(&mut self) -> Result<(), CliError> {
        self.names = Names::load(&self.session).await?;
        self.names_at = Instant::now();
        Ok(())
    }

    /// After the terminal was too slow for the events: the history has them all.
    async fn catch_up(&mut self) -> Result<(), CliError> {
        self.load_names().await?;
        for (group, first) in self.session.first_lines().await? {
            let before = LogSeq(first.0.saturating_sub(1));
            self.printed.entry(group).or_insert(before);
            self.print_lines(group, LogSeq(u64::MAX)).await?;
        }
        Ok(())
    }
}

/// What an event means that no command of this session waits for; `None` if it is nobody's business.
///
/// # Errors
/// What ended the session.
pub(crate) async fn unasked(
    event: &Event,
    session: &Session,
    names: &Names,
) -> Result<Option<Report>, CliError> {
    Ok(match event {
        Event::Appended { group, seq, .. } => Some(Report::Appended {
            group: group.to_string(),
            group_name: names.group(*group),
            seq: seq.0,
        }),
        Event::GroupCreated { group, .. } => Some(Report::GroupCreated {
            group: group.to_string(),
            group_name: names.group(*group).unwrap_or_default(),
        }),
        Event::Invited {
            user, link, pin, ..
        } => {
            let (address, key) = session
                .query(|engine| (engine.relay().address.clone(), engine.relay().key))
                .await?;
            Some(Report::Invited {
                user: user.to_string(),
                name: names.user(*user),
                invitation: link.invitation().to_string(),
                expires_at_ms: None,
                link: link.to_text(&address, key).to_string(),
                pin: pin.as_ref().map(|pin| pin.to_text().to_string()),
            })
        }
        Event::Ordered { order, .. } => Some(Report::Ordered {
            measure: "order",
            seq: order.0,
            user: None,
            name: None,
            device: None,
            and_devices: Vec::new(),
            already: false,
        }),
        Event::GroupContinued {
            group, successor, ..
        } => Some(Report::GroupContinued {
            group: group.to_string(),
            group_name: names.group(*group),
            successor: successor.to_string(),
        }),
        Event::CatchingUp { group, done, total } => Some(Report::CatchingUp {
            group: group.to_string(),
            group_name: names.group(*group),
            done: done.0,
            total: total.0,
        }),
        Event::Delayed { group, .. } => Some(Report::Delayed {
            group: group.to_string(),
            group_name: names.group(*group),
        }),
        Event::Failed { error, .. } => Some(Report::error(&error.clone().into())),
        Event::NumberChanged { user } => Some(Report::NumberChanged {
            user: user.to_string(),
            name: names.user(*user),
        }),
        Event::Alarm(alarm) => Some(alarm_report(alarm)),
        _ => None,
    })
}

fn alarm_report(alarm: &Alarm) -> Report {
    let (kind, group, seq, device) = match alarm {
        Alarm::Refused {
            group, seq, device, ..
        } => ("refused", Some(*group), Some(seq.0), *device),
        Alarm::RosterFork { seq } => ("roster_fork", None, Some(seq.0), None),
        Alarm::BadRosterEntry { seq, .. } => ("bad_roster_entry", None, Some(seq.0), None),
        Alarm::FalseAttestation {
            group,
            device,
            order,
        } => (
            "false_attestation",
            Some(*group),
            Some(order.0),
            Some(*device),
        ),
        Alarm::OmittedGroup { group, order } => {
            ("omitted_group", Some(*group), Some(order.0), None)
        }
        Alarm::TwoSets { order } => ("two_sets", None, Some(order.0), None),
        Alarm::Stale { .. } => ("stale", None, None, None),
        Alarm::Clock { .. } => ("clock", None, None, None),
        _ => ("other", None, None, None),
    };
    Report::Alarm {
        kind,
        group: group.map(|group| group.to_string()),
        seq,
        device: device.map(|device| device.to_string()),
        message: alarm.to_string(),
    }
}

/// Tells on stderr how the line stands; ends when the session can go no further.
async fn watch_line(mut status: watch::Receiver<Status>, out: Printer) -> CliError {
    let mut told = None;
    let mut was_up = false;
    let mut was_synced = false;
    let mut turned_away = None;
    loop {
        let now = status.borrow_and_update().clone();
        if let Some(fault) = now.fault {
            return fault.into();
        }
        if now.expelled {
            // The event that says so comes first, unless this was known before the start.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return CliError::Expelled;
        }
        if let Some(reason) = now.distrusted {
            return CliError::Distrusted { reason };
        }
        was_synced |= now.synced;
        if turned_away != now.turned_away {
            match now.turned_away.clone().map(CliError::from) {
                Some(error) if !was_synced => return error,
                Some(error) => out.note(&format!("{error}; trying again")).await,
                None => {}
            }
            turned_away = now.turned_away;
        }
        if told.as_ref() != Some(&now.link) {
            match &now.link {
                Link::Up => out.note("connected to the relay").await,
                Link::Down(error @ TransportError::WrongFingerprint { .. }) if !was_up => {
                    return error.clone().into();
                }
                Link::Down(error) => out.note(&format!("{error}; trying again")).await,
                Link::Connecting | Link::Offline => {}
            }
            was_up |= now.link == Link::Up;
            told = Some(now.link);
        }
        if status.changed().await.is_err() {
            return CliError::Internal("the session has ended".into());
        }
    }
}
