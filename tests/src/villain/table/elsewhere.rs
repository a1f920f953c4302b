//! Rules that a member's keys and a public interface of openmls do not let anybody break, and what shows them.

use super::{Check, Row};

fn elsewhere(
    rules: &'static [&'static str],
    how: &'static str,
    why: &'static str,
    test: &'static str,
) -> Row {
    let check = Check::Elsewhere { test, why };
    Row { rules, how, check }
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        elsewhere(
            &["REQ-390", "LOG_FORK"],
            "a Welcome with the hash of another log",
            "it is the relay's to give; a joiner without a hash of its own learns of it by the first message, as LOG_FORK",
            "`a_hash_of_another_log_for_who_joins`, `a_hash_of_another_log_for_who_is_let_in_anew` (tests/tests/liar_relay.rs)",
        ),
        elsewhere(
            &["REQ-093", "REQ-158", "WELCOME_UNASKED"],
            "a second Welcome into a group that the device is in",
            "openmls makes no Add of a key that is in the tree",
            "`a_welcome_for_a_group_that_one_is_in_is_refused` in tests/tests/rules.rs",
        ),
        elsewhere(
            &["ValSem107", "valn0304"],
            "a leaf that is removed twice in one commit",
            "openmls takes equal proposals of one commit for one, on every device alike; there are no Updates that could \
             contradict a Remove (REQ-081)",
            "openmls: `test_valsem107`",
        ),
        elsewhere(
            &["ValSem109", "ValSem110", "valn0601", "valn0602"],
            "an Update of another member, by reference",
            "no Update is ever stored here (FORBIDDEN_PROPOSAL), so no commit can refer to one",
            "openmls: `test_valsem110`, `fail_insufficient_extensiontype_capabilities_update_proposal_valn0502`",
        ),
        elsewhere(
            &["ValSem112"],
            "an Update by somebody who is no member",
            "it would be a PublicMessage, which is refused unopened (BAD_HEADER)",
            "openmls: `test_valsem112`",
        ),
        elsewhere(
            &[
                "ValSem240",
                "ValSem241",
                "ValSem242",
                "ValSem244",
                "ValSem245",
                "ValSem246",
                "valn0401",
                "valn0402",
                "valn0404",
                "valn0405",
                "valn0406",
                "valn0407",
            ],
            "external commits",
            "they are PublicMessages, which are refused unopened (BAD_HEADER)",
            "openmls: `test_valsem240` to `test_valsem246`",
        ),
        elsewhere(
            &["valn1501", "valn1502", "valn1503", "valn1504"],
            "application messages and proposals by external senders and new members",
            "they are PublicMessages, which are refused unopened (BAD_HEADER)",
            "openmls: `test_valn1504`",
        ),
        elsewhere(
            &["ValSem300"],
            "a ratchet tree that ends with blank nodes",
            "the tree is in the GroupInfo, which openmls encrypts as it made it",
            "openmls: `test_ratchet_tree_trailing_blank_nodes`; the RFC's tree-validation vectors (`./x vectors`)",
        ),
        elsewhere(
            &["valn1402", "valn1406", "valn1408", "valn1409", "valn1410"],
            "a Welcome to a tree whose hashes, unmerged leaves or keys contradict each other",
            "the tree is in the GroupInfo, which openmls encrypts as it made it",
            "the RFC's tree-validation and tree-operations vectors (`./x vectors`)",
        ),
        elsewhere(
            &["valn1404", "valn1415"],
            "a Welcome to a group of another ciphersuite than the KeyPackage's, or that the joiner's leaf is not able for",
            "openmls adds no such KeyPackage (ValSem105, ValSem106 above), so there is no such Welcome",
            "openmls: `join_rejects_unsupported_group_context_extension`",
        ),
        elsewhere(
            &["valn1401"],
            "a Welcome with PSKs of a use that does not fit",
            "no PSK is ever in a commit that is followed (rows above)",
            "openmls: `test_valsem401_valsem402`",
        ),
        elsewhere(
            &["valn0102"],
            "the signature of a leaf in a KeyPackage",
            "as of a KeyPackage, above: both are signed by one key",
            "openmls: `valn0108`",
        ),
        elsewhere(
            &["valn0106"],
            "the lifetime of a leaf",
            "left to whoever adds (REQ-092), since receivers' clocks differ",
            "`key_package::tests`; tests/tests/groups.rs",
        ),
        elsewhere(
            &["valn0110"],
            "the source of a leaf in an Update",
            "no Update is accepted (REQ-081)",
            "openmls: `test_valsem110`",
        ),
        elsewhere(
            &["valn0205"],
            "the versions of a KeyPackage and of the MLSMessage around it",
            "a KeyPackage comes from the relay to whoever adds, not to a receiver",
            "openmls: `key_package_version`",
        ),
        elsewhere(
            &["valn0301", "valn1204"],
            "that a list of proposals is valid for a commit by a member",
            "the sum of the rows above about proposals",
            "openmls: the tests of those",
        ),
        elsewhere(
            &["valn1602", "valn1603", "valn1604"],
            "extensions in structures that they do not belong to (GroupInfo, GroupContext, KeyPackage)",
            "openmls has no such type: what does not belong there does not decode",
            "openmls: `duplicate_extensions_are_rejected`, `key_package_builder_leaf_node_extensions_validation`",
        ),
        elsewhere(
            &["REQ-061", "FENCE_MISSED"],
            "a record after an order, with a fence from before it",
            "it takes a relay that pushes the order and holds nothing else back",
            "tests/tests/rules.rs: `a_fence_that_an_order_raised_is_missed`",
        ),
        elsewhere(
            &["GROUP_CLOSED"],
            "a record in a group that was closed by then",
            "it takes a relay that goes on with a log after its organisation has closed it",
            "tests/tests/rules.rs: `a_record_after_the_closing_entry_is_refused`",
        ),
        elsewhere(
            &["ADD_TWICE"],
            "a device in the tree is added with a second leaf",
            "openmls refuses it first (ValSem101 above)",
            "protocol/src/group/validate_tests.rs: `adds_are_held_to_the_roster`",
        ),
        elsewhere(
            &["REQ-088"],
            "a commit counts when it is met in the log, and not before",
            "it is about the device's own commits",
            "tests/tests/rules.rs: `a_race_of_commits_is_won_once_and_nothing_is_forgotten`, `the_sender_is_told_once_in_either_order`",
        ),
        elsewhere(
            &["REQ-092"],
            "KeyPackages that were swapped, are too old or of another suite",
            "they come from the relay to whoever adds",
            "tests/tests/liar_relay.rs; tests/tests/groups.rs",
        ),
        elsewhere(
            &["REQ-122"],
            "history is deleted when its time is over",
            "a promise of honest devices; there is nothing to refuse",
            "tests/tests/groups.rs; tests/tests/villain/away.rs",
        ),
        elsewhere(
            &["REQ-151", "REQ-154", "REQ-155"],
            "what is done after a refusal: private and public faults, two who confirm each other",
            "a repair, not a refusal",
            "tests/tests/villain/faults.rs",
        ),
    ]
}
