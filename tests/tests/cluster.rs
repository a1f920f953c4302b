//! The networked store on a real PostgreSQL, and three nodes over it while everything breaks. Machines without the
//! servers skip this, and say so.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;
use std::time::Duration;

use mortise_protocol::identity::OrgId;
use mortise_protocol::store::{Reader as _, Space, Store as _, StoreError, Tx, Write, conformance};
use mortise_relay::core::layout::{GROUPS, INBOX_NEXT, LOG, ROSTER};
use mortise_relay::core::plan::{Plan, Reach};
use mortise_relay::core::{Core, CoreConfig};
use mortise_relay::store::postgres::{ConnectError, PgStore, draw_lane};
use mortise_tests::cluster::{self, Postgres, Programs, Sky};
use mortise_tests::demo::Binaries;

const ORG: OrgId = OrgId([7; 32]);

fn plan(reach: Reach, locks: &[&[u8]], wanted: &[(Space, &[u8])]) -> Plan {
    let mut rows: BTreeMap<Space, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (space, key) in wanted {
        rows.entry(*space).or_default().insert(key.to_vec());
    }
    Plan {
        org: ORG,
        reach,
        locks: locks.iter().map(|key| key.to_vec()).collect(),
        wanted: rows,
        ..Plan::reading()
    }
}

fn put(space: Space, key: &[u8], value: &[u8]) -> Write {
    Write {
        space,
        key: key.to_vec(),
        value: Some(value.to_vec()),
    }
}

fn lane() -> [u8; 16] {
    draw_lane().expect("randomness")
}

/// Two nodes' stores over one new database.
fn two(postgres: &Postgres, name: &str) -> (PgStore, PgStore) {
    let address = postgres.new_database(name).expect("a database");
    let first = PgStore::create(&address, lane()).expect("a schema");
    let second = PgStore::open(&address, lane()).expect("the schema");
    (first, second)
}

/// Runs something on a thread; it has ended when the channel says so.
fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::sync::mpsc::Receiver<T> {
    let (done, ended) = channel();
    std::thread::spawn(move || done.send(work()));
    ended
}

const SOON: Duration = Duration::from_secs(20);
/// Long enough to see that something waits.
const WAITS: Duration = Duration::from_millis(300);

/// REQ-300, REQ-301: the same suite as every other store, and a schema that is made once.
#[test]
fn a_networked_store_conforms() {
    if !cluster::is_here() {
        return;
    }
    let postgres = Postgres::start().expect("PostgreSQL");
    let number = Cell::new(0);
    conformance::run(|| {
        number.set(number.get() + 1);
        let name = format!("conforms{}", number.get());
        let address = postgres.new_database(&name).expect("a database");
        PgStore::create(&address, lane()).expect("a schema")
    });
    let address = postgres.new_database("twice").expect("a database");
    let empty = PgStore::open(&address, lane());
    assert!(matches!(empty, Err(ConnectError::Empty)));
    PgStore::create(&address, lane()).expect("a schema");
    // An `init` that did not come to its end is made again; one that did is not.
    let mut store = PgStore::create(&address, lane()).expect("the same schema");
    let key = mortise_protocol::identity::SigningKey::from_seed(&[1; 32]);
    let mut core = Core::load(&store, CoreConfig::new(key)).expect("load");
    let token = mortise_protocol::identity::sha256(b"token");
    core.add_claim_token(&mut store, token).expect("a token");
    let again = PgStore::create(&address, lane());
    assert!(matches!(again, Err(ConnectError::Exists)));
}

/// REQ-301: of two who have read the same row, or have both found none, only one writes it.
#[test]
fn whoever_was_second_decides_anew() {
    if !cluster::is_here() {
        return;
    }
    let postgres = Postgres::start().expect("PostgreSQL");
    let (mut first, mut second) = two(&postgres, "second");
    let row: &[u8] = b"row";
    for value in [&b"1"[..], b"2", b"3"] {
        let both = plan(Reach::Writes, &[], &[(INBOX_NEXT, row)]);
        first.begin(&both).expect("begin");
        second.begin(&both).expect("begin");
        assert_eq!(first.read(INBOX_NEXT, row), second.read(INBOX_NEXT, row));
        first
            .apply(&[put(INBOX_NEXT, row, value)])
            .expect("the first");
        let late = second.apply(&[put(INBOX_NEXT, row, b"late")]);
        assert_eq!(late, Err(StoreError::Conflict));
        assert_eq!(first.read(INBOX_NEXT, row), Ok(Some(value.to_vec())));
    }
    // What was never read is written over, but for the tables that only grow.
    first.begin(&plan(Reach::Writes, &[], &[])).expect("begin");
    first.apply(&[put(LOG, b"1", b"a")]).expect("a record");
    second.begin(&plan(Reach::Writes, &[], &[])).expect("begin");
    assert_eq!(
        second.apply(&[put(LOG, b"1", b"b")]),
        Err(StoreError::Conflict)
    );
    // Who only reads sees one moment, and cannot write.
    second.begin(&plan(Reach::Reads, &[], &[])).expect("begin");
    assert_eq!(second.read(INBOX_NEXT, row), Ok(Some(b"3".to_vec())));
    first
        .apply(&[put(INBOX_NEXT, row, b"4"), put(GROUPS, b"g", b"h")])
        .expect("apply");
    assert_eq!(second.read(GROUPS, b"g"), Ok(None));
    let tx = Tx::new(&second);
    tx.put(GROUPS, *b"g", *b"i");
    let batch = tx.into_batch().expect("batch");
    assert_eq!(second.apply(&batch), Err(StoreError::Conflict));
    assert_eq!(second.read(GROUPS, b"g"), Ok(Some(b"h".to_vec())));
}

/// REQ-300: an order waits for whoever is writing, whoever writes waits for it, and one that hangs is not waited for.
#[test]
fn an_order_passes_every_lane() {
    if !cluster::is_here() {
        return;
    }
    let postgres = Postgres::start().expect("PostgreSQL");
    let (mut writer, mut order) = two(&postgres, "lanes");
    let entry = [&ORG.0[..], &1_u64.to_be_bytes()].concat();
    // A lane for each.
    for store in [&mut writer, &mut order] {
        store.begin(&plan(Reach::Writes, &[], &[])).expect("begin");
        store.end();
    }
    writer
        .begin(&plan(Reach::Writes, &[b"g"], &[]))
        .expect("begin");
    let key = entry.clone();
    let ordered = on_a_thread(move || {
        order.begin(&plan(Reach::Roster, &[], &[])).expect("begin");
        order.apply(&[put(ROSTER, &key, b"entry")]).expect("apply");
        order
    });
    assert!(
        ordered.recv_timeout(WAITS).is_err(),
        "it passed a lane that is held"
    );
    writer.apply(&[put(GROUPS, b"g", b"1")]).expect("apply");
    let mut order = ordered.recv_timeout(SOON).expect("the order");
    // Now the other way round.
    order.begin(&plan(Reach::Roster, &[], &[])).expect("begin");
    let written = on_a_thread(move || {
        let mut unseen = plan(Reach::Writes, &[], &[]);
        unseen.unseen = (ROSTER, ORG.0.to_vec(), ORG.0.to_vec(), 9);
        writer.begin(&unseen).expect("begin");
        let seen = writer
            .range(ROSTER, &ORG.0, &ORG.0, 9)
            .expect("range")
            .len();
        writer.end();
        (writer, seen)
    });
    assert!(
        written.recv_timeout(WAITS).is_err(),
        "it began while an order was being given"
    );
    let second = [&ORG.0[..], &2_u64.to_be_bytes()].concat();
    order
        .apply(&[put(ROSTER, &second, b"entry")])
        .expect("apply");
    let (mut writer, seen) = written.recv_timeout(SOON).expect("the writer");
    assert_eq!(
        seen, 2,
        "whoever was let in again has read what it waited for"
    );
    // A node that hangs loses its transaction, and with it the lane.
    writer
        .begin(&plan(Reach::Writes, &[b"g"], &[]))
        .expect("begin");
    order
        .begin(&plan(Reach::Roster, &[], &[]))
        .expect("the lane is free again");
    order.end();
    let lost = writer.apply(&[put(GROUPS, b"g", b"2")]);
    assert_eq!(lost, Err(StoreError::Lost));
    writer.reconnect().expect("reconnect");
    assert_eq!(writer.read(GROUPS, b"g"), Ok(Some(b"1".to_vec())));
}

/// REQ-302: a batch whose commit was on its way when the database went is uncertain; once it is back, it is looked for.
#[test]
fn a_lost_database_is_found_again() {
    if !cluster::is_here() {
        return;
    }
    let mut postgres = Postgres::start().expect("PostgreSQL");
    let (mut store, _other) = two(&postgres, "lost");
    store.begin(&plan(Reach::Writes, &[], &[])).expect("begin");
    postgres
        .restart(rustix::process::Signal::QUIT)
        .expect("restart");
    assert_eq!(
        store.apply(&[put(GROUPS, b"g", b"1")]),
        Err(StoreError::Lost)
    );
    assert!(store.is_uncertain(), "it had been sent");
    assert_eq!(
        store.begin(&plan(Reach::Writes, &[], &[])),
        Err(StoreError::Lost)
    );
    store.reconnect().expect("reconnect");
    store
        .begin(&plan(Reach::Writes, &[], &[(GROUPS, b"g")]))
        .expect("begin");
    assert!(!store.is_uncertain(), "it can be read now");
    assert_eq!(store.read(GROUPS, b"g"), Ok(None));
    store.apply(&[put(GROUPS, b"g", b"1")]).expect("apply");
}

/// REQ-300: the database is one relay's, whoever of its nodes comes.
#[test]
fn a_database_belongs_to_one_statement_key() {
    if !cluster::is_here() {
        return;
    }
    let postgres = Postgres::start().expect("PostgreSQL");
    let (mut store, _other) = two(&postgres, "keys");
    let key = |n| mortise_protocol::identity::SigningKey::from_seed(&[n; 32]);
    let mut core = Core::load(&store, CoreConfig::new(key(1))).expect("load");
    let token = mortise_protocol::identity::sha256(b"token");
    core.add_claim_token(&mut store, token).expect("a token");
    assert!(Core::attach(&store, CoreConfig::new(key(1))).is_ok());
    assert!(Core::attach(&store, CoreConfig::new(key(2))).is_err());
}

/// The relay as it is delivered.
fn programs() -> Programs {
    Programs {
        relay: Binaries::beside_this_program().expect("built").relay,
        planted: None,
    }
}

fn keeps_its_promises(seed: u64) {
    if !cluster::is_here() {
        return;
    }
    println!("seed {seed}");
    let outcome = cluster::run(seed, &programs(), Sky::Everything).expect("a run");
    let tally = outcome
        .checked
        .unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    assert!(tally.appends > 50, "{tally:?}");
    assert!(tally.commits > 0 && tally.orders > 0, "{tally:?}");
    assert!(tally.delivered > tally.appends, "{tally:?}");
}

/// REQ-055, REQ-060, REQ-300 to REQ-303: three nodes while everything breaks, told by the clients.
#[test]
fn three_nodes_are_one_relay_seed_1() {
    keeps_its_promises(1);
}

/// REQ-055, REQ-060, REQ-300 to REQ-303.
#[test]
fn three_nodes_are_one_relay_seed_2() {
    keeps_its_promises(2);
}

/// REQ-055, REQ-060, REQ-300 to REQ-303.
#[test]
fn three_nodes_are_one_relay_seed_3() {
    keeps_its_promises(3);
}

/// REQ-300: an order that meets a node between its reads and its commit waits for it; without the lane it does not, and
/// the checker says so. On a machine with no time, the database may end the held transaction before the order is answered:
/// then nothing was broken, and the next seed is tried.
#[test]
fn a_missing_lane_is_noticed() {
    if !cluster::is_here() {
        return;
    }
    let with_lane = programs();
    let without_lane = Programs {
        planted: Some(with_lane.relay.with_file_name("mortise-cluster")),
        ..with_lane.clone()
    };
    let outcome = cluster::run(1, &with_lane, Sky::AtCommits).expect("a run");
    let met = outcome.blows.get("orders at a commit");
    assert!(met.is_some(), "{:?}", outcome.blows);
    let tally = outcome.checked.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(tally.orders > 0, "{tally:?}");
    let fault = (1..=12).find_map(|seed| {
        println!("seed {seed}");
        let planted = cluster::run(seed, &without_lane, Sky::AtCommits).expect("a run");
        planted.checked.err()
    });
    println!(
        "without the lane: {}",
        fault.expect("nobody keeps the fence")
    );
}
