//! The handbook as data: what is tried, by whom, where, and what must come of it.

use super::Adversary;
use super::{Attack, attack, block, insiders, read, rejoin, review, write};

/// Every attack, in the handbook's order, insiders last.
pub(super) const TABLE: [Attack; 58] = [
    // Read.
    attack(
        "1",
        "old keys on new ciphertext",
        Adversary::WithRelay,
        read::old_keys,
    ),
    attack(
        "2",
        "a socket left open from before",
        Adversary::Departed,
        read::open_socket,
    )
    .over_quic(),
    attack(
        "3",
        "reconnecting with everything that was saved",
        Adversary::Departed,
        read::reconnect,
    )
    .over_quic(),
    attack(
        "4",
        "fetching by a known or guessed group id",
        Adversary::Departed,
        read::guessed_id,
    )
    .over_quic(),
    attack(
        "5",
        "all ciphertext and every Welcome handed over",
        Adversary::WithRelay,
        read::handed_over,
    )
    .over_quic(),
    attack(
        "6",
        "the second device",
        Adversary::Departed,
        read::second_device,
    ),
    attack(
        "7",
        "a KeyPackage from before, added afterwards",
        Adversary::WithMember,
        read::old_key_package,
    )
    .among_three(),
    attack(
        "8",
        "a cached Welcome",
        Adversary::WithRelay,
        read::cached_welcome,
    ),
    attack(
        "9",
        "an external join by an old GroupInfo",
        Adversary::WithRelay,
        read::external_join,
    ),
    attack(
        "10",
        "a PSK that the leaver knows",
        Adversary::WithMember,
        read::known_psk,
    )
    .among_three(),
    attack(
        "11",
        "the last-resort KeyPackage, claimed again",
        Adversary::WithMember,
        read::last_resort,
    ),
    attack(
        "12",
        "a backup of the device from before",
        Adversary::Departed,
        read::backup,
    ),
    // There are no attachments in this version: no blob, and no key of one.
    attack(
        "13",
        "what waits on the relay, hints on a live line, held keys on all that is stored",
        Adversary::WithRelay,
        read::what_waits,
    ),
    attack(
        "14",
        "a removal withheld from a member who keeps sending",
        Adversary::WithRelay,
        read::withheld,
    )
    .among_three()
    .alarms(),
    // Write.
    attack(
        "15",
        "a message in the old epoch",
        Adversary::WithRelay,
        write::old_epoch,
    )
    .over_quic(),
    attack(
        "16",
        "a message backdated to before the removal",
        Adversary::WithRelay,
        write::backdated,
    )
    .among_three()
    .alarms(),
    attack(
        "17",
        "the replay of an old commit",
        Adversary::WithRelay,
        write::replayed_commit,
    ),
    attack(
        "18",
        "a commit forked from the epoch before the removal",
        Adversary::WithRelay,
        write::forked_commit,
    ),
    attack(
        "19",
        "an Add planted earlier, carried by an admin's commit",
        Adversary::Departed,
        write::planted_add,
    ),
    attack(
        "20",
        "a Remove stored earlier, played again",
        Adversary::WithRelay,
        write::stored_remove,
    ),
    attack(
        "21",
        "an external proposal",
        Adversary::WithRelay,
        write::external_proposal,
    ),
    attack(
        "22",
        "an external commit that removes somebody",
        Adversary::WithRelay,
        write::external_removal,
    ),
    attack(
        "23",
        "a forged sender leaf",
        Adversary::Departed,
        write::forged_leaf,
    ),
    attack(
        "24",
        "the leaf index given to somebody else",
        Adversary::WithRelay,
        write::reused_leaf,
    ),
    attack(
        "25",
        "empty and truncated ciphertexts and tags",
        Adversary::Departed,
        write::truncated,
    ),
    attack(
        "26",
        "a captured message, played again",
        Adversary::WithRelay,
        write::captured,
    ),
    // Rejoin, ghosts.
    attack(
        "27",
        "a KeyPackage that the relay swaps",
        Adversary::WithRelay,
        rejoin::swapped_package,
    ),
    attack(
        "28",
        "a new name, and the same key",
        Adversary::WithMember,
        rejoin::same_key,
    ),
    attack(
        "29",
        "the same name, and a new key",
        Adversary::Departed,
        rejoin::new_key,
    ),
    attack(
        "30",
        "a sock puppet enrolled by the relay",
        Adversary::WithRelay,
        rejoin::sock_puppet,
    ),
    attack(
        "31",
        "a roster forged, reordered or rolled back",
        Adversary::WithRelay,
        rejoin::false_roster,
    ),
    attack(
        "32",
        "a policy that makes the leaver an admin",
        Adversary::WithMember,
        rejoin::admin_by_policy,
    )
    .among_three(),
    attack(
        "33",
        "a parallel group with the same id",
        Adversary::WithRelay,
        rejoin::parallel_group,
    ),
    attack(
        "34",
        "two logs for two groups of members",
        Adversary::WithRelay,
        rejoin::two_logs,
    )
    .among_three()
    .alarms(),
    // Block.
    attack(
        "35",
        "a flood of commits to starve the removal",
        Adversary::Departed,
        block::flood,
    ),
    attack(
        "36",
        "a garbage commit that wedges the epoch",
        Adversary::WithMember,
        block::garbage,
    )
    .among_three(),
    // Found in review.
    attack(
        "37",
        "removed from the group only: re-opening or re-keying it",
        Adversary::Departed,
        review::from_the_group_only,
    ),
    attack(
        "38",
        "a clean attestation of a group that is not",
        Adversary::WithMember,
        review::false_attestation,
    )
    .among_three()
    .alarms(),
    attack(
        "39",
        "a commit from before the order that evicts everybody",
        Adversary::WithRelay,
        review::eviction,
    ),
    attack(
        "40",
        "a live socket that claims the current head (one node)",
        Adversary::Departed,
        review::live_socket,
    ),
    attack(
        "41",
        "an invitation from before the removal",
        Adversary::Departed,
        review::old_invitation,
    )
    .over_quic(),
    attack(
        "42",
        "the PIN of a stolen link, guessed offline",
        Adversary::WithRelay,
        review::guessed_pin,
    ),
    attack(
        "43",
        "a wrong roster hash, to set off everybody's alarm",
        Adversary::Departed,
        review::false_alarm,
    ),
    attack(
        "44",
        "a group left out of the certificate",
        Adversary::WithRelay,
        review::left_out,
    )
    .alarms(),
    attack(
        "45",
        "a Welcome for a group that the victim is in",
        Adversary::WithRelay,
        review::second_welcome,
    ),
    attack(
        "46",
        "suspended keys, after the user has come back",
        Adversary::Departed,
        review::suspended_keys,
    ),
    attack(
        "47",
        "a flood of roster entries to starve an order",
        Adversary::Departed,
        review::roster_flood,
    ),
    attack(
        "48",
        "an illegal commit that a newcomer seems to confirm",
        Adversary::WithMember,
        review::unwitting_newcomer,
    )
    .among_three(),
    // Insiders.
    attack(
        "I1",
        "adding somebody from outside",
        Adversary::Insider,
        insiders::outsider,
    )
    .among_three(),
    attack(
        "I2",
        "removing an admin",
        Adversary::Insider,
        insiders::remove_admin,
    )
    .among_three(),
    attack(
        "I3",
        "promoting oneself",
        Adversary::Insider,
        insiders::promotion,
    )
    .among_three(),
    attack(
        "I4",
        "a bad proposal inside an admin's commit",
        Adversary::Insider,
        insiders::riding,
    )
    .among_three(),
    attack(
        "I5",
        "a wrong access key",
        Adversary::Insider,
        insiders::wrong_key,
    )
    .among_three(),
    attack(
        "I6",
        "a roster seq that was not applied",
        Adversary::Insider,
        insiders::unknown_seq,
    )
    .among_three(),
    attack(
        "I7",
        "sending to a tree known to be stale",
        Adversary::Insider,
        insiders::stale_tree,
    )
    .among_three(),
    attack(
        "I8",
        "rewriting the group's policy",
        Adversary::Insider,
        insiders::policy,
    )
    .among_three(),
    attack(
        "I9",
        "a bad path for some members only",
        Adversary::Insider,
        insiders::bad_path,
    )
    .among_three(),
    attack(
        "I10",
        "a path with a key that nothing can be sealed to",
        Adversary::Insider,
        insiders::unusable_key,
    )
    .among_three(),
];
