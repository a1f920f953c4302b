//! The tables, their migrations, and which table is which space of the layout.
//!
//! Plain SQL that PostgreSQL, CockroachDB and YugabyteDB take (tried on PostgreSQL alone). A migration that was ever
//! published is never changed; the next one is added below it.

use mortise_protocol::store::Space;

use crate::core::layout;

/// A table of keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) space: Space,
    pub(super) name: &'static str,
    /// Rows are never written over: a second one under the same key is another writer's.
    pub(super) append_only: bool,
}

const fn table(space: Space, name: &'static str) -> Table {
    let append_only = space.0 == layout::LOG.0 || space.0 == layout::ROSTER.0;
    Table {
        space,
        name,
        append_only,
    }
}

/// One table for each space of the layout.
pub(super) const TABLES: &[Table] = &[
    table(layout::META, "meta"),
    table(layout::CLAIM_TOKENS, "claim_tokens"),
    table(layout::ROSTER, "roster"),
    table(layout::SLOTS, "slots"),
    table(layout::SLOTLESS, "slotless"),
    table(layout::CHECKPOINTS, "checkpoints"),
    table(layout::KEY_QUEUES, "key_queues"),
    table(layout::KEY_PACKAGES, "key_packages"),
    table(layout::LAST_RESORTS, "last_resorts"),
    table(layout::GROUPS, "group_heads"),
    table(layout::ORG_GROUPS, "org_groups"),
    table(layout::EPOCHS, "epochs"),
    table(layout::LOG, "log"),
    table(layout::RECORD_IDS, "record_ids"),
    table(layout::UNCONFIRMED, "unconfirmed"),
    table(layout::RESTARTS, "restarts"),
    table(layout::RESYNCS, "resyncs"),
    table(layout::RESYNC_GROUPS, "resync_groups"),
    table(layout::WELCOMES, "welcomes"),
    table(layout::WELCOMES_LEFT, "welcomes_left"),
    table(layout::INBOX, "inbox"),
    table(layout::INBOX_NEXT, "inbox_next"),
    table(layout::ATTESTATIONS, "attestations"),
    table(layout::ORDERED, "ordered"),
    table(layout::RECEIPTS, "receipts"),
];

/// The table of a space.
pub(super) fn table_of(space: Space) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.space == space)
}

/// What makes the schema from nothing, step by step; a database says which step it is at.
///
/// `gate` has a row per organisation and node: its lane. `roster_seq` is where the roster ended when an entry was last
/// appended; an append rewrites it in all lanes, so that databases without lasting locks notice each other too.
pub(super) fn migrations() -> Vec<String> {
    let mut first = String::from(
        "CREATE TABLE organisations (org bytea PRIMARY KEY, roster_seq bigint NOT NULL);
         CREATE TABLE gate (org bytea NOT NULL, lane bytea NOT NULL, roster_seq bigint NOT NULL,
                            PRIMARY KEY (org, lane));
         CREATE TABLE nodes (lane bytea PRIMARY KEY, seen_ms bigint NOT NULL);\n",
    );
    // As they were when this migration was written: new tables go into a migration of their own.
    for table in TABLES {
        first.push_str(&format!(
            "CREATE TABLE {} (key bytea PRIMARY KEY, value bytea NOT NULL);\n",
            table.name
        ));
    }
    vec![first]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_table_has_a_name_and_a_space_of_its_own() {
        let names: BTreeSet<_> = TABLES.iter().map(|table| table.name).collect();
        let spaces: BTreeSet<_> = TABLES.iter().map(|table| table.space).collect();
        assert_eq!((names.len(), spaces.len()), (TABLES.len(), TABLES.len()));
        assert!(table_of(layout::LOG).is_some_and(|table| table.append_only));
        assert!(table_of(layout::GROUPS).is_some_and(|table| !table.append_only));
    }
}
