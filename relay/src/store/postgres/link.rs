//! One connection to PostgreSQL, and the statements that it speaks: what belongs together travels together.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use mortise_protocol::identity::OrgId;
use mortise_protocol::store::{Pair, Space, StoreError, after_prefix};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::schema::table_of;
use crate::core::plan::{Plan, Reach};

/// How long one journey may take: longer, and the database counts as gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rows as a transaction found them.
pub(super) type Found = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

/// What a statement does to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verb {
    Read,
    Lock,
    Range,
    RangeToEnd,
    Insert,
    Upsert,
    Update,
    Delete,
    DeleteBlindly,
}

impl Verb {
    fn sql(self, t: &str) -> String {
        // Where what is changed is not what was read, the division fails, and the transaction with it.
        let checked = |change: String, sent: &str| {
            format!(
                "WITH done AS ({change} RETURNING 1)
                 SELECT 1 / (CASE WHEN count(*) = cardinality({sent}) THEN 1 ELSE 0 END) FROM done"
            )
        };
        match self {
            Self::Read => format!("SELECT key, value FROM {t} WHERE key = ANY($1::bytea[])"),
            Self::Lock => format!(
                "SELECT key, value FROM {t} WHERE key = ANY($1::bytea[]) ORDER BY key FOR UPDATE"
            ),
            Self::Range => format!(
                "SELECT key, value FROM {t} WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3"
            ),
            Self::RangeToEnd => {
                format!("SELECT key, value FROM {t} WHERE key >= $1 ORDER BY key LIMIT $2")
            }
            Self::Insert => format!(
                "INSERT INTO {t} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[])"
            ),
            Self::Upsert => format!(
                "INSERT INTO {t} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[])
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            ),
            Self::Update => checked(
                format!(
                    "UPDATE {t} AS t SET value = n.after
                     FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS n (key, before, after)
                     WHERE t.key = n.key AND t.value = n.before"
                ),
                "$1::bytea[]",
            ),
            Self::Delete => checked(
                format!(
                    "DELETE FROM {t} AS t USING unnest($1::bytea[], $2::bytea[]) AS n (key, before)
                     WHERE t.key = n.key AND t.value = n.before"
                ),
                "$1::bytea[]",
            ),
            Self::DeleteBlindly => format!("DELETE FROM {t} WHERE key = ANY($1::bytea[])"),
        }
    }
}

/// What a batch changes in one table.
#[derive(Debug, Default)]
pub(super) struct Changes {
    inserted: Vec<(Vec<u8>, Vec<u8>)>,
    upserted: Vec<(Vec<u8>, Vec<u8>)>,
    updated: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    deleted: Vec<(Vec<u8>, Vec<u8>)>,
    deleted_blindly: Vec<Vec<u8>>,
}

impl Changes {
    /// A row that the transaction has found (`Some`), or has not looked for.
    pub(super) fn add(
        &mut self,
        append_only: bool,
        key: Vec<u8>,
        before: Option<Option<Vec<u8>>>,
        after: Option<Vec<u8>>,
    ) {
        match (before, after) {
            (Some(None), Some(after)) => self.inserted.push((key, after)),
            (None, Some(after)) if append_only => self.inserted.push((key, after)),
            (Some(Some(before)), Some(after)) => self.updated.push((key, before, after)),
            (Some(Some(before)), None) => self.deleted.push((key, before)),
            (None, Some(after)) => self.upserted.push((key, after)),
            (None, None) => self.deleted_blindly.push(key),
            (Some(None), None) => {}
        }
    }
}

/// A statement with its parameters, on its way.
type Sent<'a> = LocalBoxFuture<'a, Result<Vec<Row>, tokio_postgres::Error>>;

/// An open connection.
pub(super) struct Link {
    client: Client,
    statements: RefCell<HashMap<(Verb, Space), Statement>>,
    others: RefCell<HashMap<&'static str, Statement>>,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            statements: RefCell::default(),
            others: RefCell::default(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs SQL that has no parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), StoreError> {
        patiently(self.client.batch_execute(sql)).await
    }

    pub(super) async fn rows(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.other(sql).await?;
        patiently(self.client.query(&statement, params)).await
    }

    /// How many rows a table has, each looked at.
    pub(super) async fn count(&self, table: &str) -> Result<i64, StoreError> {
        let sql = format!("SELECT count(*) FROM {table} WHERE length(value) > 0");
        let row = patiently(self.client.query_one(&sql, &[])).await?;
        Ok(row.get(0))
    }

    async fn other(&self, sql: &'static str) -> Result<Statement, StoreError> {
        let known = self.others.borrow().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = patiently(self.client.prepare(sql)).await?;
        self.others.borrow_mut().insert(sql, statement.clone());
        Ok(statement)
    }

    async fn statement(&self, verb: Verb, space: Space) -> Result<Statement, StoreError> {
        let known = self.statements.borrow().get(&(verb, space)).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let table = table_of(space).ok_or(StoreError::Corrupt {
            reason: "a space without a table",
        })?;
        let statement = patiently(self.client.prepare(&verb.sql(table.name))).await?;
        let mut statements = self.statements.borrow_mut();
        statements.insert((verb, space), statement.clone());
        Ok(statement)
    }

    fn send<'a>(
        &'a self,
        statement: Statement,
        params: Vec<Box<dyn ToSql + Sync + 'a>>,
    ) -> Sent<'a> {
        Box::pin(async move {
            let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| &**p as _).collect();
            self.client.query(&statement, &params).await
        })
    }

    fn execute<'a>(&'a self, sql: &'a str) -> Sent<'a> {
        Box::pin(async move { self.client.batch_execute(sql).await.map(|()| Vec::new()) })
    }

    pub(super) async fn read(
        &self,
        space: Space,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Pair>, StoreError> {
        let statement = self.statement(Verb::Read, space).await?;
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let rows = patiently(self.client.query(&statement, &[&keys])).await?;
        pairs(&rows)
    }

    pub(super) async fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let (statement, params) = self.ranging(space, prefix, from, limit).await?;
        pairs(&patiently(self.send(statement, params)).await?)
    }

    async fn ranging<'a>(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<(Statement, Vec<Box<dyn ToSql + Sync + 'a>>), StoreError> {
        let start = from.max(prefix).to_vec();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(match after_prefix(prefix) {
            Some(end) => (
                self.statement(Verb::Range, space).await?,
                vec![Box::new(start), Box::new(end), Box::new(limit)],
            ),
            None => (
                self.statement(Verb::RangeToEnd, space).await?,
                vec![Box::new(start), Box::new(limit)],
            ),
        })
    }

    /// Opens a transaction and brings what the plan names, in one journey. `None` where this node has no lane yet.
    ///
    /// The order of the statements is the order of the locks (REQ-300): the lane, or the organisation and then all
    /// lanes; after that the roster; after that the groups' heads; then everything else.
    pub(super) async fn begin(
        &self,
        plan: &Plan,
        lane: &[u8],
        without_lane: bool,
    ) -> Result<Option<(Found, Vec<Pair>)>, StoreError> {
        let mut sent: Vec<Sent<'_>> = vec![self.execute(match plan.reach {
            Reach::Reads => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Reach::Writes | Reach::Roster => "BEGIN ISOLATION LEVEL READ COMMITTED",
        })];
        let gates = self.gates(plan, lane, without_lane).await?;
        let first_gate = sent.len();
        sent.extend(gates);
        let at_roster = sent.len();
        let (space, prefix, from, limit) = &plan.unseen;
        let (statement, params) = self.ranging(*space, prefix, from, *limit).await?;
        sent.push(self.send(statement, params));
        let mut spaces = Vec::new();
        if !plan.locks.is_empty() {
            let statement = self.statement(Verb::Lock, plan.locked_space).await?;
            let keys: Vec<_> = plan.locks.iter().map(Vec::as_slice).collect();
            sent.push(self.send(statement, vec![Box::new(keys)]));
            spaces.push((plan.locked_space, plan.locks.iter().collect::<Vec<_>>()));
        }
        for (space, keys) in &plan.wanted {
            let unlocked =
                |key: &&Vec<u8>| *space != plan.locked_space || !plan.locks.contains(*key);
            let keys: Vec<_> = keys.iter().filter(unlocked).collect();
            let statement = self.statement(Verb::Read, *space).await?;
            let wanted: Vec<_> = keys.iter().map(|key| key.as_slice()).collect();
            sent.push(self.send(statement, vec![Box::new(wanted)]));
            spaces.push((*space, keys));
        }
        let answers = together(sent).await?;
        let is_gated = plan.reach == Reach::Writes && !without_lane;
        if is_gated && answers[first_gate].is_empty() {
            return Ok(None);
        }
        let mut found = Found::new();
        for ((space, keys), rows) in spaces.into_iter().zip(&answers[at_roster + 1..]) {
            found.extend(keys.into_iter().map(|key| ((space, key.clone()), None)));
            found.extend(pairs(rows)?.into_iter().map(|(k, v)| ((space, k), Some(v))));
        }
        Ok(Some((found, pairs(&answers[at_roster])?)))
    }

    async fn gates<'a>(
        &'a self,
        plan: &Plan,
        lane: &[u8],
        without_lane: bool,
    ) -> Result<Vec<Sent<'a>>, StoreError> {
        let org = plan.org.0.to_vec();
        Ok(match plan.reach {
            Reach::Reads => Vec::new(),
            Reach::Writes if without_lane => Vec::new(),
            Reach::Writes => {
                let sql = "SELECT roster_seq FROM gate WHERE org = $1 AND lane = $2 FOR UPDATE";
                let params: Vec<Box<dyn ToSql + Sync>> =
                    vec![Box::new(org), Box::new(lane.to_vec())];
                vec![self.send(self.other(sql).await?, params)]
            }
            Reach::Roster => {
                let lanes = "SELECT lane FROM gate WHERE org = $1 ORDER BY lane FOR UPDATE";
                vec![
                    self.send(
                        self.other(LOCK_ORGANISATION).await?,
                        vec![Box::new(org.clone())],
                    ),
                    self.send(self.other(lanes).await?, vec![Box::new(org)]),
                ]
            }
        })
    }

    /// Gives this node a lane in an organisation, while no entry is being appended to its roster.
    pub(super) async fn make_lane(&self, org: OrgId, lane: &[u8]) -> Result<(), StoreError> {
        self.run("ROLLBACK").await?;
        let insert = "INSERT INTO gate (org, lane, roster_seq)
                      SELECT org, $2, roster_seq FROM organisations WHERE org = $1
                      ON CONFLICT (org, lane) DO NOTHING";
        let org = org.0.to_vec();
        let sent = vec![
            self.execute("BEGIN ISOLATION LEVEL READ COMMITTED"),
            self.send(
                self.other(LOCK_ORGANISATION).await?,
                vec![Box::new(org.clone())],
            ),
            self.send(
                self.other(insert).await?,
                vec![Box::new(org), Box::new(lane.to_vec())],
            ),
            self.execute("COMMIT"),
        ];
        together(sent).await.map(drop)
    }

    /// Writes everything and commits, in one journey. `roster_seq` is where an organisation's roster ends now.
    pub(super) async fn commit(
        &self,
        changes: BTreeMap<Space, Changes>,
        roster: Option<(OrgId, i64)>,
    ) -> Result<(), StoreError> {
        let mut sent: Vec<Sent<'_>> = Vec::new();
        for (space, changes) in changes {
            self.send_changes(space, changes, &mut sent).await?;
        }
        if let Some((org, seq)) = roster {
            for sql in [
                "UPDATE organisations SET roster_seq = $2 WHERE org = $1",
                "UPDATE gate SET roster_seq = $2 WHERE org = $1",
            ] {
                let params: Vec<Box<dyn ToSql + Sync>> =
                    vec![Box::new(org.0.to_vec()), Box::new(seq)];
                sent.push(self.send(self.other(sql).await?, params));
            }
        }
        sent.push(self.execute("COMMIT"));
        together(sent).await.map(drop)
    }

    async fn send_changes<'a>(
        &'a self,
        space: Space,
        changes: Changes,
        sent: &mut Vec<Sent<'a>>,
    ) -> Result<(), StoreError> {
        for (verb, pairs) in [
            (Verb::Insert, changes.inserted),
            (Verb::Upsert, changes.upserted),
            (Verb::Delete, changes.deleted),
        ] {
            if !pairs.is_empty() {
                let (keys, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                let params: Vec<Box<dyn ToSql + Sync>> = vec![Box::new(keys), Box::new(values)];
                sent.push(self.send(self.statement(verb, space).await?, params));
            }
        }
        if !changes.updated.is_empty() {
            let mut columns = (Vec::new(), Vec::new(), Vec::new());
            for (key, before, after) in changes.updated {
                columns.0.push(key);
                columns.1.push(before);
                columns.2.push(after);
            }
            let params: Vec<Box<dyn ToSql + Sync>> = vec![
                Box::new(columns.0),
                Box::new(columns.1),
                Box::new(columns.2),
            ];
            sent.push(self.send(self.statement(Verb::Update, space).await?, params));
        }
        if !changes.deleted_blindly.is_empty() {
            let statement = self.statement(Verb::DeleteBlindly, space).await?;
            sent.push(self.send(statement, vec![Box::new(changes.deleted_blindly)]));
        }
        Ok(())
    }
}

/// Locks an organisation's row, and makes it first where there is none.
const LOCK_ORGANISATION: &str = "INSERT INTO organisations (org, roster_seq) VALUES ($1, 0)
    ON CONFLICT (org) DO UPDATE SET roster_seq = organisations.roster_seq RETURNING roster_seq";

/// Sends all of it in this order without waiting, and then waits for all answers; the first that failed counts.
async fn together(sent: Vec<Sent<'_>>) -> Result<Vec<Vec<Row>>, StoreError> {
    let answers = tokio::time::timeout(PATIENCE, join_all(sent)).await;
    let answers = answers.map_err(|_| StoreError::Lost)?;
    answers
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| explain(&error))
}

async fn patiently<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(|error| explain(&error)),
        Err(_) => Err(StoreError::Lost),
    }
}

fn pairs(rows: &[Row]) -> Result<Vec<Pair>, StoreError> {
    let pair = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter()
        .map(pair)
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| explain(&error))
}

/// What a failure means for the batch.
pub(super) fn explain(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        return match error.is_closed()
            || std::error::Error::source(error).is_some_and(|s| s.is::<std::io::Error>())
        {
            true => StoreError::Lost,
            false => StoreError::Backend {
                reason: error.to_string(),
            },
        };
    };
    match code.code() {
        // Serialization, deadlock, a key that another has inserted, a row that another has changed (see `Verb::sql`).
        "40001" | "40P01" | "23505" | "22012" => StoreError::Conflict,
        "53100" => StoreError::Full,
        // A standby; idle for too long; shut down, crashed, starting; too many connections; not there (class 08).
        "25006" | "25P03" | "57P01" | "57P02" | "57P03" | "57P05" | "53300" => StoreError::Lost,
        class if class.starts_with("08") => StoreError::Lost,
        _ => StoreError::Backend {
            reason: describe(error, code),
        },
    }
}

/// The code and what it stands for: PostgreSQL's own words may quote keys.
fn describe(error: &tokio_postgres::Error, code: &SqlState) -> String {
    let message = error.as_db_error().map_or("", |db| db.message());
    format!("SQLSTATE {}: {message}", code.code())
}
