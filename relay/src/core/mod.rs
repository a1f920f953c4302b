//! The relay's decisions, and nothing else: who is admitted, what enters a log, who may read, what an order does.
//!
//! Deterministic and sans-IO: the same [`Core`] runs under QUIC and in the simulator. It must never know a
//! socket, a file, a clock or randomness, never look inside ciphertext, and never answer before what the
//! answer says is durable.
//!
//! Inputs: [`Core::step`] (a batch of [`Input`]s, one transaction, one durable commit, then the
//! [`Output`]s), [`Core::try_step`], [`Core::refuse`], [`Core::add_claim_token`]. Getters: [`Core::status`],
//! [`Core::is_stopped`], [`Core::plan`], [`Core::find_moved`].

pub mod append;
mod checkpoints;
mod connections;
mod ends;
mod groups;
mod inbox;
mod journal;
mod key_packages;
pub mod layout;
mod moved;
mod order_state;
mod orders;
mod organisations;
mod outbox;
pub mod plan;
mod proofs;
pub mod quotas;
mod rate;
mod receipts;
mod restarts;
mod resyncs;
mod rosters;
mod slots;
mod status;
mod subscribers;
mod subscriptions;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use mortise_protocol::identity::{DeviceId, Hash, OrgId, PublicKey, SigningKey};
use mortise_protocol::roster::{MAX_ISSUE_SKEW_MS, RosterError, SignedEntry};
use mortise_protocol::store::{Store, StoreError, Tx, commit};
use mortise_protocol::wire::{ClientToRelay, ConnectionBinding, Refusal, RelayToClient, Response};

use self::connections::Connections;
use self::layout::{CLAIM_TOKENS, META, META_KEY, MetaRecord};
use self::order_state::OrderSets;
use self::quotas::Quotas;
use self::rate::Rates;
use self::rosters::Rosters;
use self::turn::Turn;

pub use self::moved::Moved;
pub use self::status::{OrgStatus, Status};

/// A connection; the driver never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A stream of a connection; the answer goes to the stream that the question came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A peer has finished the TLS handshake, in which it proved that it holds `transport_key`.
    Connected {
        /// The new connection.
        conn: ConnId,
        /// The peer's raw public key.
        transport_key: PublicKey,
        /// The connection's TLS exporter value.
        binding: ConnectionBinding,
    },
    /// The connection is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
    },
    /// A question, decoded.
    Frame {
        /// From whom.
        conn: ConnId,
        /// Where the answer goes.
        stream: StreamId,
        /// What is asked.
        frame: ClientToRelay,
    },
    /// The store has something that this core has not written: another node of the same relay has.
    Moved(Moved),
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Sends a frame.
    Send {
        /// To whom.
        conn: ConnId,
        /// On which stream.
        stream: StreamId,
        /// What.
        frame: RelayToClient,
    },
    /// Sends one frame to many: a new record to everybody who waits for it. It is made once, and encoded once.
    Broadcast {
        /// To whom, each on which stream.
        to: Vec<(ConnId, StreamId)>,
        /// What.
        frame: RelayToClient,
    },
    /// Sends what is queued, then closes the connection; the core has forgotten it already.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

impl Output {
    /// The same outputs with a [`Output::Send`] for each receiver, for a driver that has no use for one encoding.
    pub fn singly(outputs: Vec<Self>) -> impl Iterator<Item = Self> {
        outputs.into_iter().flat_map(|output| match output {
            Self::Broadcast { to, frame } => to
                .into_iter()
                .map(|(conn, stream)| Self::Send {
                    conn,
                    stream,
                    frame: frame.clone(),
                })
                .collect(),
            one => vec![one],
        })
    }
}

/// Why the relay closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// An order named the device (REQ-062); `REMOVED` on the wire (REQ-049).
    Removed,
}

/// What the core is told once.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The key that the relay signs statements with; every Genesis must name its public half.
    pub statement_key: Arc<SigningKey>,
    /// How far a roster entry's time may be from the relay's clock, ms.
    pub max_clock_skew_ms: u64,
    /// How much devices may ask (REQ-320).
    pub quotas: Quotas,
}

impl CoreConfig {
    /// The configuration with this statement key, 10 minutes of clock skew, and the usual quotas.
    #[must_use]
    pub fn new(statement_key: SigningKey) -> Self {
        Self {
            statement_key: Arc::new(statement_key),
            max_clock_skew_ms: MAX_ISSUE_SKEW_MS,
            quotas: Quotas::default(),
        }
    }
}

/// Why the core cannot start, or an administrator's input was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored roster does not validate: the store was changed by somebody else.
    #[error("the stored roster of an organisation does not validate")]
    Roster {
        /// Whose.
        org: OrgId,
        /// Which rule it breaks.
        #[source]
        source: RosterError,
    },
    /// The store, or an organisation in it, belongs to another statement key.
    #[error("the store belongs to a relay with another statement key")]
    StatementKey,
    /// An earlier write failed; restart the relay once the disk is sound.
    #[error("the relay has stopped accepting after its store failed")]
    Stopped,
}

/// The relay's decisions over one store.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    rosters: Rosters,
    connections: Connections,
    rates: Rates,
    order_sets: OrderSets,
    /// Up to which item of its inbox each connected device was told of by [`Core::find_moved`].
    inboxes: BTreeMap<(OrgId, DeviceId), u64>,
    meta_stored: bool,
    stopped: bool,
}

impl Core {
    /// Replays every organisation's roster from the store, each entry validated anew, and verifies where the logs end.
    ///
    /// # Errors
    /// [`CoreError`]: the store failed, is damaged, or is another relay's.
    pub fn load(store: &dyn Store, config: CoreConfig) -> Result<Self, CoreError> {
        let core = Self::attach(store, config)?;
        ends::verify(store)?;
        Ok(core)
    }

    /// As [`Core::load`], of a store that others write to meanwhile: where its logs end is theirs to move.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub fn attach(store: &dyn Store, config: CoreConfig) -> Result<Self, CoreError> {
        let tx = Tx::new(store);
        let statement_key = config.statement_key.public();
        let meta: Option<MetaRecord> = layout::load(&tx, META, META_KEY)?;
        if meta
            .as_ref()
            .is_some_and(|m| m.statement_key != statement_key)
        {
            return Err(CoreError::StatementKey);
        }
        let mut rates = Rates::new(config.quotas);
        let rosters = Rosters::load(&tx, |roster, entry| {
            if let Ok(entry) = SignedEntry::parse(entry) {
                rates.replay(roster, &entry);
            }
        })?;
        rates.keep();
        if rosters
            .iter()
            .any(|r| r.statement_key() != Some(statement_key))
        {
            return Err(CoreError::StatementKey);
        }
        Ok(Self {
            config,
            rosters,
            connections: Connections::default(),
            rates,
            order_sets: OrderSets::default(),
            inboxes: BTreeMap::new(),
            meta_stored: meta.is_some(),
            stopped: false,
        })
    }

    /// Decides a batch: one transaction, one durable commit, and only then the outputs (REQ-070).
    ///
    /// If the commit fails, nothing happened and every question of the batch is refused with
    /// `STORAGE`. A full disk may be tried again; after any other failure the core has stopped (REQ-072).
    pub fn step(&mut self, store: &mut dyn Store, now_ms: u64, inputs: Vec<Input>) -> Vec<Output> {
        if self.stopped {
            return self.refuse(&inputs);
        }
        match self.run(store, now_ms, &inputs) {
            Ok(outputs) => outputs,
            Err(error) => self.recover(store, &error, &inputs),
        }
    }

    /// As [`Core::step`], over a store that several write to: after a failure it is as if the batch had never been, and
    /// nobody was told anything. The caller tries it again, or has it refused (REQ-301, REQ-302).
    ///
    /// Rosters that the batch has changed are read again by the next [`Moved::Roster`] of their organisation.
    ///
    /// # Errors
    /// [`StoreError`], from reading or from the commit.
    pub fn try_step(
        &mut self,
        store: &mut dyn Store,
        now_ms: u64,
        inputs: &[Input],
    ) -> Result<Vec<Output>, StoreError> {
        let result = self.run(store, now_ms, inputs);
        if result.is_err() {
            self.connections.revert();
            self.rates.revert();
            self.order_sets.forget();
            self.rosters.forget();
        }
        result
    }

    fn run(
        &mut self,
        store: &mut dyn Store,
        now_ms: u64,
        inputs: &[Input],
    ) -> Result<Vec<Output>, StoreError> {
        let tx = Tx::new(&*store);
        self.rates.meter.set_now(now_ms);
        let mut turn = Turn::new(
            &self.config,
            &mut self.rosters,
            &mut self.connections,
            &mut self.rates,
            &mut self.order_sets,
            &tx,
            now_ms,
        );
        for input in turn.sequence(inputs) {
            turn.handle(input)?;
        }
        let outputs = turn.into_outputs();
        self.put_meta(&tx);
        let batch = tx.into_batch()?;
        commit(store, &batch)?;
        self.meta_stored |= !batch.is_empty();
        self.connections.keep();
        self.rates.keep();
        self.rosters.keep();
        Ok(outputs)
    }

    /// The store is this relay's from its first row on.
    fn put_meta(&self, tx: &Tx<'_>) {
        if !self.meta_stored && !tx.is_empty() {
            let statement_key = self.config.statement_key.public();
            layout::save(tx, META, META_KEY, &MetaRecord { statement_key });
        }
    }

    /// After a failed commit: as if the batch had never been, but for who is connected.
    fn recover(&mut self, store: &dyn Store, error: &StoreError, inputs: &[Input]) -> Vec<Output> {
        self.connections.revert();
        self.rates.revert();
        self.order_sets.forget();
        let reverted = self.rosters.revert(&Tx::new(store));
        // A full disk says so before it writes; after anything else nobody knows what was written.
        self.stopped = !error.is_passing() || reverted.is_err();
        self.refuse(inputs)
    }

    /// Answers every question of a batch that was not written with `STORAGE`, and takes note of who came and went.
    pub fn refuse(&mut self, inputs: &[Input]) -> Vec<Output> {
        let mut outputs = Vec::new();
        for input in inputs {
            match input {
                Input::Frame {
                    conn,
                    stream,
                    frame,
                } if self.connections.contains(*conn) => outputs.push(Output::Send {
                    conn: *conn,
                    stream: *stream,
                    frame: RelayToClient::Response {
                        id: frame.id,
                        response: Response::Refused(Refusal::Storage),
                    },
                }),
                Input::Frame { .. } | Input::Moved(_) => {}
                other => self.connections.handle(other),
            }
        }
        self.connections.keep();
        outputs
    }

    /// Lets whoever holds the token with this SHA-256 found one organisation.
    ///
    /// # Errors
    /// [`CoreError::Store`], or [`CoreError::Stopped`].
    pub fn add_claim_token(
        &mut self,
        store: &mut dyn Store,
        token_hash: Hash,
    ) -> Result<(), CoreError> {
        if self.stopped {
            return Err(CoreError::Stopped);
        }
        let result = self.write_claim_token(store, token_hash);
        self.stopped = matches!(&result, Err(error) if !error.is_passing());
        Ok(result?)
    }

    fn write_claim_token(&mut self, store: &mut dyn Store, hash: Hash) -> Result<(), StoreError> {
        let tx = Tx::new(&*store);
        layout::save_bytes(&tx, CLAIM_TOKENS, hash.0, &[]);
        self.put_meta(&tx);
        let batch = tx.into_batch()?;
        commit(store, &batch)?;
        self.meta_stored = true;
        Ok(())
    }

    /// Whether the core refuses everything because its store failed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}
