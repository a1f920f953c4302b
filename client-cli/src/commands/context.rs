//! What a verb works on, and the ways of waiting that verbs share.

use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::engine::{CommandKind, Event};
use mortise_protocol::wire::Refusal;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use crate::driver::Session;
use crate::error::CliError;
use crate::names::Names;
use crate::output::Printer;

/// More is refused before the engine sees it; the engine's own limit is lower.
pub(crate) const MAX_STDIN_BYTES: u64 = 1024 * 1024;

/// What a verb works on.
#[derive(Debug)]
pub struct Context {
    /// The running engine.
    pub session: Arc<Session>,
    /// Where results go.
    pub out: Printer,
    /// How long to wait for the relay.
    pub timeout: Duration,
    /// Not to wait for it at all.
    pub offline: bool,
    /// What `-` stands for.
    pub stdin: Stdin,
}

/// What `-` stands for.
#[derive(Debug)]
pub enum Stdin {
    /// This process's.
    Process,
    /// What the daemon's client has read.
    Given(String),
}

impl Stdin {
    /// All of it, as text, without one line break at its end.
    ///
    /// # Errors
    /// [`CliError::TooLarge`], [`CliError::File`], [`CliError::Usage`] when it is not UTF-8.
    pub async fn read(&self) -> Result<String, CliError> {
        let mut text = match self {
            Self::Given(text) => text.clone(),
            Self::Process => read_process_stdin().await?,
        };
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }
}

/// This process's stdin, whole.
///
/// # Errors
/// As [`Stdin::read`].
pub(crate) async fn read_process_stdin() -> Result<String, CliError> {
    let mut bytes = Vec::new();
    tokio::io::stdin()
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(CliError::file("read", "stdin"))?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(CliError::TooLarge(format!(
            "there are more than {MAX_STDIN_BYTES} bytes on stdin"
        )));
    }
    String::from_utf8(bytes).map_err(|_| CliError::Usage {
        what: "what is on stdin is not UTF-8 text".into(),
    })
}

/// How fresh what is shown is: an error to end with, once it has been shown.
#[derive(Debug)]
#[must_use]
pub struct Freshness(Option<CliError>);

impl Freshness {
    /// Ends the verb: well, if what it showed was up to date.
    ///
    /// # Errors
    /// Why it was not.
    pub fn finish(self) -> Result<(), CliError> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Context {
    /// Catches up with the relay, before something is shown. If that fails, what is stored is shown all the same.
    ///
    /// # Errors
    /// What makes it pointless to show anything.
    pub async fn freshen(&self) -> Result<Freshness, CliError> {
        if self.offline {
            return Ok(Freshness(None));
        }
        match self.session.wait_synced(self.timeout).await {
            Ok(()) => Ok(Freshness(None)),
            Err(
                error @ (CliError::Unreachable { .. }
                | CliError::TimedOut { .. }
                | CliError::Fingerprint(_)
                | CliError::Distrusted { .. }
                | CliError::NotHosted
                | CliError::Expelled),
            ) => {
                self.out
                    .note("this is what is stored here; there may be more")
                    .await;
                Ok(Freshness(Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Catches up with the relay, before something is changed.
    ///
    /// # Errors
    /// Why it is not possible now; nothing was changed.
    pub async fn sync(&self) -> Result<(), CliError> {
        if self.offline {
            return Err(CliError::Unreachable {
                reason: "--offline was given, and this needs the relay".into(),
            });
        }
        match self.session.wait_synced(self.timeout).await {
            // The relay answers; one group that cannot settle must not hold up an order.
            Err(CliError::TimedOut { .. }) => {
                self.out
                    .note("not everything is caught up with; going on")
                    .await;
                Ok(())
            }
            other => other,
        }
    }

    /// Who and what there is.
    ///
    /// # Errors
    /// What ended the session.
    pub async fn names(&self) -> Result<Names, CliError> {
        Names::load(&self.session).await
    }

    /// Gives the engine a command and waits for the event that `pick` takes.
    ///
    /// # Errors
    /// The command's failure; [`CliError::Queued`] if it is stored and not done in time.
    pub async fn carry_out<T>(
        &self,
        what: &'static str,
        kind: CommandKind,
        pick: impl FnMut(Event) -> Option<T>,
    ) -> Result<T, CliError> {
        self.carry_out_within(self.timeout, what, kind, pick).await
    }

    /// As [`Context::carry_out`], with its own limit.
    ///
    /// # Errors
    /// As [`Context::carry_out`].
    pub async fn carry_out_within<T>(
        &self,
        within: Duration,
        what: &'static str,
        kind: CommandKind,
        mut pick: impl FnMut(Event) -> Option<T>,
    ) -> Result<T, CliError> {
        let mut pending = self.session.command(kind).await?;
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match pending.next(what, left).await {
                Ok(Event::Delayed { .. }) => {
                    let cause = Box::new(CliError::Refused(Refusal::Storage));
                    return Err(CliError::Queued { what, cause });
                }
                Ok(event) => {
                    if let Some(done) = pick(event) {
                        return Ok(done);
                    }
                }
                Err(
                    cause @ (CliError::Unreachable { .. }
                    | CliError::TimedOut { .. }
                    | CliError::Fingerprint(_)
                    | CliError::NotHosted),
                ) => {
                    return Err(CliError::Queued {
                        what,
                        cause: Box::new(cause),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }
}
