//! Two MLS stacks in one group, over a real relay.

use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID};
use mortise_protocol::roster::Role;
use mortise_tests::mixed::scenario::play_all;
use mortise_tests::mixed::script::{Options, run};
use mortise_tests::mixed::{Manner, OneSuite, Wish, World};

fn manner(seed: u64, suite: u16) -> Manner {
    Manner {
        suite: OneSuite::new(suite).expect("one of ours"),
        always_path: seed.is_multiple_of(2),
        patience_ms: 0,
        seed,
    }
}

fn text(text: &str) -> Wish {
    Wish::Text(text.into())
}

fn update() -> Wish {
    Wish::Commit {
        add: Vec::new(),
        remove: Vec::new(),
        policy: Vec::new(),
    }
}

/// The first steps: an invitation, a group made by openmls, texts and commits from both sides, equal authenticators.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_stack_joins_and_takes_part() {
    let mut world = World::found(SUITE_CLASSICAL).await.expect("a world");
    let manner = Some(manner(1, SUITE_CLASSICAL));
    let other = world
        .add_user(Role::Member, manner)
        .await
        .expect("mls-rs joins");
    let ours = world
        .add_user(Role::Member, None)
        .await
        .expect("openmls joins");
    world.settle().await.expect("everybody is there");
    let users = vec![world.members[other].user(), world.members[ours].user()];
    let group = world.create(0, users).await.expect("a group");
    world.settle().await.expect("all are in it");
    for (number, wish) in [
        (other, text("from mls-rs")),
        (0, text("from openmls")),
        (other, update()),
        (ours, text("in the next epoch")),
        (other, text("and again")),
    ] {
        world
            .wish(number, group, wish)
            .await
            .expect("an outcome")
            .expect("it is allowed");
        world.settle().await.expect("all agree");
    }
    let lines = world.members[ours].view().texts[&group].clone();
    assert_eq!(lines.len(), 4);
    for member in &world.members {
        assert_eq!(member.view().texts[&group], lines);
    }
    world.close().await;
}

/// The working group's scenarios that our policy permits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scenarios_of_the_working_group_pass() {
    let names = play_all(SUITE_CLASSICAL).await.expect("all of them");
    assert_eq!(names.len(), 19, "{names:?}");
}

/// Two seeded scripts in their short form; `./x mixed` runs twenty long ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_two_stacks_agree() {
    for (seed, suite) in [(101, SUITE_CLASSICAL), (102, SUITE_HYBRID)] {
        let options = Options {
            seed,
            suite,
            steps: 25,
        };
        let tally = run(options).await.expect("the script");
        assert!(tally.compared > 10, "{tally:?}");
        assert!(tally.commits_by_other > 0, "{tally:?}");
    }
}
