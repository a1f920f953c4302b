//! What founding and joining share: a fresh profile, the exchange with the relay, and what is left of either
//! when it breaks off.
//!
//! A link can be used once, so the new keys are stored before anything that uses it up is sent, and a mark says
//! whether that has happened. What broke off before is wiped; what broke off after is taken up again.

use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::engine::{
    Admission, AdmissionError, AdmissionStep, Engine, Identity, load_identity, save_identity,
};
use mortise_protocol::store::SqliteStore;
use mortise_protocol::wire::{ClientToRelay, Request};
use tokio::time::{Instant, timeout_at};

use super::Global;
use crate::driver::Session;
use crate::error::CliError;
use crate::machine::{now_ms, system_rng};
use crate::profile::{Profile, ProfileLock, Unfinished, Way};
use crate::transport::{self, Connection};
use crate::{database, keystore, passphrase};

/// A profile on its way to becoming one.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) profile: Profile,
    lock: ProfileLock,
    store: SqliteStore,
    way: Way,
}

/// What is there before founding or joining.
#[derive(Debug)]
pub(super) enum Ground {
    /// Nothing: a new profile was made.
    Fresh(Site),
    /// The same broke off, at a point where the relay may have heard of it.
    Interrupted(Site, Box<Identity>),
}

/// Prepares the profile: makes it, or finds what an earlier attempt left.
///
/// # Errors
/// [`CliError::ProfileExists`], [`CliError::ProfileLocked`], [`CliError::ProfileUnfinished`], those of the
/// passphrase, the key file and the database.
pub(super) fn prepare(global: &Global, way: Way) -> Result<Ground, CliError> {
    let profile = global.profile()?;
    let mark = profile.unfinished()?;
    if profile.exists() && mark.is_none() {
        return Err(CliError::ProfileExists {
            dir: profile.dir().into(),
        });
    }
    profile.make_dir()?;
    let lock = profile.lock()?;
    match mark {
        Some(mark) if mark.sent => take_up(global, profile, lock, mark, way),
        _ => make(global, profile, lock, way).map(Ground::Fresh),
    }
}

fn make(global: &Global, profile: Profile, lock: ProfileLock, way: Way) -> Result<Site, CliError> {
    let passphrase = passphrase::choose(global.passphrase_file.as_deref())?;
    profile.wipe(&lock)?;
    profile.mark_unfinished(Unfinished::new(way, false))?;
    let made = keystore::create(&profile, &passphrase, &mut system_rng())
        .and_then(|key| database::create(&profile, &key));
    match made {
        Ok(store) => Ok(Site {
            profile,
            lock,
            store,
            way,
        }),
        Err(error) => {
            profile.wipe(&lock)?;
            Err(error)
        }
    }
}

fn take_up(
    global: &Global,
    profile: Profile,
    lock: ProfileLock,
    mark: Unfinished,
    way: Way,
) -> Result<Ground, CliError> {
    let unfinished = || CliError::ProfileUnfinished {
        dir: profile.dir().into(),
    };
    if mark.way != way {
        return Err(unfinished());
    }
    let passphrase = passphrase::read(global.passphrase_file.as_deref())?;
    let key = keystore::open(&profile, &passphrase)?;
    let store = database::open(&profile, &key)?;
    let identity = load_identity(&store)?.ok_or_else(unfinished)?;
    let site = Site {
        profile,
        lock,
        store,
        way,
    };
    Ok(Ground::Interrupted(site, Box::new(identity)))
}

impl Site {
    /// Talks to the relay until the device is admitted. What failed for good leaves no profile behind.
    ///
    /// # Errors
    /// [`CliError::Unreachable`], [`CliError::Fingerprint`], [`CliError::LinkRefused`], [`CliError::TimedOut`], …
    pub(super) async fn admit(
        mut self,
        admission: &mut Admission,
        within: Duration,
    ) -> Result<Self, CliError> {
        let error = match self.exchange(admission, within).await {
            Ok(()) => {
                self.profile.mark_finished()?;
                return Ok(self);
            }
            Err(error) => error,
        };
        let in_doubt = self.profile.unfinished()?.is_some_and(|mark| mark.sent);
        match error {
            // The relay has said no: there is no doubt.
            Broken::Refused(error) => {
                self.wipe()?;
                Err(error)
            }
            Broken::Off(error) if in_doubt => Err(error),
            Broken::Off(error) => {
                self.wipe()?;
                Err(error)
            }
        }
    }

    /// Deletes the profile that came to nothing.
    pub(super) fn wipe(self) -> Result<(), CliError> {
        drop(self.store);
        self.profile.wipe(&self.lock)
    }

    /// Opens the engine on it. The lock is to be kept for as long as the session lives.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn start(
        self,
        within: Duration,
    ) -> Result<(Arc<Session>, Profile, ProfileLock), CliError> {
        let engine = Engine::open(self.store, Box::new(system_rng()))?;
        let session = Session::start(engine, within, false);
        Ok((Arc::new(session), self.profile, self.lock))
    }

    async fn exchange(
        &mut self,
        admission: &mut Admission,
        within: Duration,
    ) -> Result<(), Broken> {
        save_identity(&mut self.store, admission.identity()).map_err(CliError::from)?;
        let relay = admission.identity().relay.clone();
        let key = admission.transport_key();
        let mut connection = transport::connect(&relay.address, relay.key, key, within)
            .await
            .map_err(CliError::from)?;
        let until = Instant::now() + within;
        let first = admission.start();
        self.send(&connection, admission, first)?;
        loop {
            let frame = match timeout_at(until, connection.recv()).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(CliError::from(connection.end()).into()),
                Err(_) => return Err(too_late(within).into()),
            };
            match admission.handle_frame(now_ms(), frame)? {
                AdmissionStep::Wait => {}
                AdmissionStep::Send(frames) => self.send(&connection, admission, frames)?,
                AdmissionStep::Admitted => break,
            }
        }
        save_identity(&mut self.store, admission.identity()).map_err(CliError::from)?;
        connection.close().await;
        Ok(())
    }

    /// Sends, after what the frames depend on is stored.
    fn send(
        &mut self,
        connection: &Connection,
        admission: &Admission,
        frames: Vec<ClientToRelay>,
    ) -> Result<(), CliError> {
        let uses_up_the_link = |frame: &ClientToRelay| {
            matches!(
                frame.request,
                Request::Found { .. } | Request::AppendRoster { .. }
            )
        };
        if frames.iter().any(uses_up_the_link) {
            save_identity(&mut self.store, admission.identity())?;
            self.profile
                .mark_unfinished(Unfinished::new(self.way, true))?;
        }
        for frame in frames {
            connection.send(&frame)?;
        }
        Ok(())
    }
}

/// How an exchange failed.
#[derive(Debug)]
enum Broken {
    /// The relay, or what it showed, makes it impossible.
    Refused(CliError),
    /// Something in between.
    Off(CliError),
}

impl From<CliError> for Broken {
    fn from(error: CliError) -> Self {
        Self::Off(error)
    }
}

impl From<AdmissionError> for Broken {
    fn from(error: AdmissionError) -> Self {
        Self::Refused(match error {
            AdmissionError::Refused(refusal) => refusal.into(),
            AdmissionError::WrongPin => CliError::WrongPin,
            other => CliError::LinkRefused {
                reason: other.to_string(),
            },
        })
    }
}

fn too_late(within: Duration) -> CliError {
    CliError::TimedOut {
        what: "being admitted by the relay",
        after_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
    }
}
