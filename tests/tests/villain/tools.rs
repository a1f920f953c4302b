//! The villain's tools work: what is refused of it later is not refused for them.

use mortise_protocol::group::{SUITE_CLASSICAL, SUITE_HYBRID, Violation};
use mortise_tests::villain::{Package, Plan, Twist};

use crate::room::Room;

/// REQ-082: what a villain's tools make is followed when nothing is wrong with it: what is refused is not refused for
/// the tools.
#[test]
fn an_honest_commit_by_a_villains_hands_is_followed() {
    for suite in [SUITE_CLASSICAL, SUITE_HYBRID] {
        let mut room = Room::new(31, suite, 3);
        let mut villain = room.villain();
        let adds = vec![Package::stocked(&room.world, room.outsider, suite)];
        let plan = Plan {
            adds,
            ..Plan::default()
        };
        let made = villain.commit(&room.world, plan);
        room.submit(&villain, &made);
        room.wait(100);
        villain.follow();
        let text = villain.message(&room.world, b"not a content", None, &Twist::default());
        room.submit(&villain, &text);
        room.wait(100);
        for who in [room.members[0], room.members[1], room.outsider] {
            assert_eq!(room.violations(who), [Violation::BadContent], "{who:?}");
            let view = room.world.view(who, room.group);
            assert_eq!(view.members.len(), 4);
            assert_eq!(
                view.epoch_authenticator,
                villain.look(|mls| mls.epoch_authenticator().as_slice().to_vec())
            );
        }
    }
}
