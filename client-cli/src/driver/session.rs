//! The handle to the loop: commands, questions, and waiting with a limit.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use mortise_protocol::engine::{CommandKind, Event, IntentId};
use mortise_protocol::identity::{GroupId, LogSeq};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{ClientEngine, Request, Status};
use crate::error::CliError;
use crate::transport::Traffic;

/// How long a question may take: the loop is busy for seconds at most.
const QUESTION: Duration = Duration::from_secs(30);

/// A running engine. Dropping it ends the loop without a goodbye; nothing is lost by that.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    first_events: Mutex<Option<broadcast::Receiver<Event>>>,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A command that was handed to the engine: its events, in order.
#[derive(Debug)]
pub struct Pending {
    /// The command.
    pub id: IntentId,
    events: mpsc::Receiver<Event>,
    status: watch::Receiver<Status>,
}

impl Session {
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        status: watch::Receiver<Status>,
        events: broadcast::Receiver<Event>,
        task: JoinHandle<()>,
    ) -> Self {
        Self {
            requests,
            status,
            first_events: Mutex::new(Some(events)),
            task,
        }
    }

    /// Hands a command to the engine; when this returns, it is stored.
    ///
    /// # Errors
    /// What ended the session.
    pub async fn command(&self, kind: CommandKind) -> Result<Pending, CliError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Command { kind, reply }).await?;
        let (id, events) = self.answer(answer).await?;
        // A step that failed has ended the session, and said why there.
        if let Some(fault) = &self.status.borrow().fault {
            return Err(fault.clone().into());
        }
        Ok(Pending {
            id,
            events,
            status: self.status.clone(),
        })
    }

    /// Asks the engine.
    ///
    /// # Errors
    /// What ended the session.
    pub async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut ClientEngine) -> T + Send + 'static,
    ) -> Result<T, CliError> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |engine: &mut ClientEngine| {
            // Whoever asked may have gone.
            let _ = reply.send(look(engine));
        });
        self.ask(Request::Query(look)).await?;
        self.answer(answer).await
    }

    /// Per group, the first line of history that was written in this session.
    ///
    /// # Errors
    /// What ended the session.
    pub async fn first_lines(&self) -> Result<HashMap<GroupId, LogSeq>, CliError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::FirstLines(reply)).await?;
        self.answer(answer).await
    }

    /// What has crossed the network in this session, all its connections together.
    ///
    /// # Errors
    /// What ended the session.
    pub async fn traffic(&self) -> Result<Traffic, CliError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Traffic(reply)).await?;
        self.answer(answer).await
    }

    /// Everything that happened since the start, but for answers to commands of this session; given out once.
    #[must_use]
    pub fn take_events(&self) -> Option<broadcast::Receiver<Event>> {
        self.first_events
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }

    /// How the session stands, now and later.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until all that the relay had was dealt with and nothing waits to be sent but what it has no room for.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] or [`CliError::TimedOut`] after `within`; at once when waiting is pointless.
    pub async fn wait_synced(&self, within: Duration) -> Result<(), CliError> {
        let mut status = self.status.clone();
        let until = Instant::now() + within;
        loop {
            {
                let now = status.borrow_and_update();
                if let Some(error) = now.hopeless() {
                    return Err(error);
                }
                if now.synced || now.no_room {
                    return Ok(());
                }
            }
            match timeout_at(until, status.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.ended()),
                Err(_) => {
                    return Err(status
                        .borrow()
                        .too_late("catching up with the relay", within));
                }
            }
        }
    }

    /// Says goodbye to the relay, closes the store and waits until that is done.
    pub async fn close(&self) {
        if self.requests.send(Request::Close).await.is_ok() {
            self.requests.closed().await;
        }
    }

    async fn ask(&self, request: Request) -> Result<(), CliError> {
        self.requests
            .send_timeout(request, QUESTION)
            .await
            .map_err(|_| self.ended())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, CliError> {
        match tokio::time::timeout(QUESTION, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.ended()),
            Err(_) => Err(CliError::TimedOut {
                what: "a look into the database",
                after_ms: u64::try_from(QUESTION.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    fn ended(&self) -> CliError {
        match &self.status.borrow().fault {
            Some(fault) => fault.clone().into(),
            None => CliError::Internal("the session has ended".into()),
        }
    }
}

impl Pending {
    /// The next event of this command.
    ///
    /// # Errors
    /// The command's own failure; [`CliError::Unreachable`] or [`CliError::TimedOut`] after `within`; at once
    /// when waiting is pointless.
    pub async fn next(&mut self, what: &'static str, within: Duration) -> Result<Event, CliError> {
        let until = Instant::now() + within;
        loop {
            if let Ok(event) = self.events.try_recv() {
                return outcome(event);
            }
            if let Some(error) = self.status.borrow_and_update().hopeless() {
                // The engine's own word on the command, if it left one, goes first.
                return self.events.try_recv().map_or(Err(error), outcome);
            }
            // Biased: the command's own events explain more than the state of the line.
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => return outcome(event),
                    None => return Err(CliError::Internal("the session has ended".into())),
                },
                changed = self.status.changed() => if changed.is_err() {
                    return Err(CliError::Internal("the session has ended".into()));
                },
                () = tokio::time::sleep_until(until) => {
                    return Err(self.status.borrow().too_late(what, within));
                }
            }
        }
    }
}

fn outcome(event: Event) -> Result<Event, CliError> {
    match event {
        Event::Failed { error, .. } => Err(error.into()),
        event => Ok(event),
    }
}
