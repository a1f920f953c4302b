//! The files in `spec/vectors` are what the product makes, and the product takes and refuses what they say.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use mortise_protocol::content::{Content, decode as read_content};
use mortise_protocol::group::GroupPolicy;
use mortise_protocol::identity::{
    ClaimLink, DeviceId, DirectoryKey, Epoch, GroupId, Hash, InvitationId, JoinLink, OrgId,
    PublicKey, RosterSeq, SealSecret, SealedProfile, Signature, SigningKey, Slot, UserId, decode,
    encode, open_slot, safety_number, sha256,
};
use mortise_protocol::roster::authority::{Operation, Role, Target, check};
use mortise_protocol::roster::{MAX_ISSUE_SKEW_MS, Roster, SignedEntry, check_issue_time};
use mortise_protocol::wire::aad::{ContentType, PrivateHeader};
use mortise_protocol::wire::log::{LogCursor, entry_hash};
use mortise_protocol::wire::{
    AccessProof, Checkpoint, ClientToRelay, ConnectionBinding, FrameError, Purpose, RecordBody,
    RelayToClient, decode_frame_length,
};
use mortise_tests::vectors::{self, name_of, state, variant};
use serde_json::Value;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/vectors")
}

/// REQ-001, REQ-003: the protocol's bytes are what they were; a change here is a change of the protocol.
#[test]
fn the_vectors_are_made_by_the_product_byte_for_byte() {
    let update = std::env::var_os("UPDATE_VECTORS").is_some();
    for (name, value) in vectors::all() {
        let (path, text) = (directory().join(name), vectors::text(&value));
        if update {
            std::fs::write(&path, &text).expect("the source tree is writable");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "{name} is not what the product makes now: it is another protocol. \
             If that is meant, say so in the specification, raise the version once there is a release, and run \
             UPDATE_VECTORS=1 cargo test -p mortise-tests --test vectors"
        );
    }
}

/// Nothing lies in the folder that is not made, and so not compared, by the test above.
#[test]
fn every_file_of_vectors_is_made_here() {
    let made: Vec<&str> = vectors::all().iter().map(|(name, _)| *name).collect();
    for file in std::fs::read_dir(directory()).expect("the folder") {
        let name = file.expect("a file").file_name();
        let name = name.to_string_lossy();
        assert!(
            name == "README.md" || made.contains(&name.as_ref()),
            "{name}"
        );
    }
}

fn load(name: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(name)).expect(name);
    serde_json::from_str(&text).expect(name)
}

fn list(value: &Value) -> &[Value] {
    let all = value.as_array().expect("a list");
    assert!(!all.is_empty());
    all
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().expect(field)
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().expect(field)
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    HEXLOWER
        .decode(text(value, field).as_bytes())
        .expect("hexadecimal")
}

fn array<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    bytes(value, field).try_into().expect(field)
}

/// The name of the refusal, or nothing: for a case that says `null` where all is well.
fn refusal(value: &Value) -> Option<&str> {
    value["refusal"].as_str()
}

/// REQ-001, REQ-018: strict signatures, and the number that people compare.
#[test]
fn signatures_and_safety_numbers_are_decided_alike() {
    let file = load("keys.json");
    for case in list(&file["signatures"]) {
        let key = PublicKey(array(case, "public_key"));
        let signature = Signature(array(case, "signature"));
        let held = key.verify(text(case, "label"), &bytes(case, "content"), &signature);
        assert_eq!(held.is_ok(), case["valid"], "{}", case["name"]);
    }
    for case in list(&file["safety_numbers"]) {
        let side = |name: &str| {
            let side = &case[name];
            let keys: Vec<PublicKey> = side["mls_signature_keys"]
                .as_array()
                .expect("keys")
                .iter()
                .map(|key| {
                    let key = HEXLOWER.decode(key.as_str().expect("hex").as_bytes());
                    PublicKey(key.expect("hex").try_into().expect("32 bytes"))
                })
                .collect();
            (UserId(array(side, "user")), keys)
        };
        let (one, other) = (side("one"), side("other"));
        let number = safety_number((one.0, &one.1), (other.0, &other.1));
        assert_eq!(number, text(case, "number"));
    }
}

/// REQ-003, REQ-041: frames of every type, and what is none.
#[test]
fn frames_decode_and_what_is_none_does_not() {
    let file = load("frames.json");
    let again = |direction: &str, body: &[u8]| match direction {
        "client_to_relay" => decode::<ClientToRelay>(body).map(|value| encode(&value)),
        _ => decode::<RelayToClient>(body).map(|value| encode(&value)),
    };
    for direction in ["client_to_relay", "relay_to_client"] {
        for case in list(&file[direction]) {
            let frame = bytes(case, "frame");
            assert_eq!(
                again(direction, &frame[4..]).as_deref(),
                Ok(&frame[4..]),
                "{case}"
            );
        }
    }
    for case in list(&file["refused"]) {
        let refused = again(text(case, "direction"), &bytes(case, "body"));
        assert!(refused.is_err(), "{case}");
    }
    for case in list(&file["refused_lengths"]) {
        let limit = usize::try_from(number(case, "limit")).expect("a size");
        let name = match decode_frame_length(array(case, "header"), limit) {
            Ok(_) => "accepted",
            Err(FrameError::Empty) => "MALFORMED",
            Err(_) => "TOO_LARGE",
        };
        assert_eq!(refusal(case), Some(name));
    }
}

/// REQ-010 to REQ-026: the chain, the state after each entry, and every refusal by its name and number.
#[test]
fn the_roster_is_decided_as_written() {
    let file = load("roster.json");
    let mut roster = Roster::new(OrgId(array(&file, "organisation")));
    let mut after = vec![roster.clone()];
    for case in list(&file["entries"]) {
        roster.apply(&bytes(case, "entry")).expect("a valid entry");
        assert_eq!(state(&roster), case["state"], "{}", case["name"]);
        after.push(roster.clone());
    }
    let mut names = std::collections::BTreeSet::new();
    for case in list(&file["refused"]) {
        let mut entry = bytes(case, "entry");
        let whole = usize::try_from(number(case, "padded_to_bytes")).expect("a size");
        entry.resize(whole, 0);
        let seq = usize::try_from(number(case, "after_seq")).expect("a seq");
        let refused = match case["relay_now_ms"].as_u64() {
            None => after[seq].clone().apply(&entry).map(|_| ()),
            Some(now_ms) => {
                let entry = SignedEntry::parse(&entry).expect("an entry");
                check_issue_time(entry.tbs().issued_at_ms, now_ms, MAX_ISSUE_SKEW_MS)
            }
        };
        let refused = refused.expect_err(text(case, "name"));
        assert_eq!(Some(variant(&refused).as_str()), refusal(case), "{case}");
        assert_eq!(u64::from(refused.code()), number(case, "code"));
        names.insert(variant(&refused));
    }
    for case in list(&file["checkpoints"]) {
        let checkpoint: Checkpoint = decode(&bytes(case, "checkpoint")).expect("a checkpoint");
        let fault = checkpoint
            .verify(&roster)
            .err()
            .map(|fault| variant(&fault));
        assert_eq!(fault.as_deref(), case["fault"].as_str(), "{case}");
    }
    let spec = include_str!("../../spec/mortise.md");
    let (_, table) = spec.split_once("### 5.3 Refusals").expect("the table");
    let (table, _) = table.split_once("\n## 6").expect("its end");
    for row in table.lines().filter(|line| line.starts_with("| 0x")) {
        let name = row.split('|').nth(2).expect("a name").trim();
        if name.ends_with("(by the relay only)") {
            continue;
        }
        assert!(names.contains(name), "no vector is refused with {name}");
    }
}

/// REQ-016: every cell.
#[test]
fn authority_is_decided_as_written() {
    let file = load("authority.json");
    let role = |name: &str| name.parse::<Role>().expect("a role");
    for cell in list(&file["cells"]) {
        let operation = Operation::ALL
            .into_iter()
            .find(|operation| operation.name() == text(cell, "operation"))
            .expect("an operation");
        let target = match text(cell, "target") {
            "own" => Target::Own,
            "organisation" => Target::Organisation,
            "organisation, with an order" => Target::WithOrder,
            other => Target::Role(role(other)),
        };
        let allowed = check(role(text(cell, "actor")), operation, target);
        assert_eq!(allowed, cell["allowed"], "{cell}");
    }
}

/// REQ-020: links read back, and damaged ones do not.
#[test]
fn links_are_read_as_written() {
    let file = load("invitations.json");
    for case in list(&file["join_links"]) {
        let link = JoinLink::parse(text(case, "link")).expect("a link");
        assert_eq!(link.to_text().as_str(), text(case, "link"));
        let fields = &case["fields"];
        assert_eq!(link.invitation, InvitationId(array(fields, "invitation")));
        assert_eq!(link.secret.dangerous_bytes(), &array(fields, "secret"));
    }
    for case in list(&file["claim_links"]) {
        let link = ClaimLink::parse(text(case, "link")).expect("a link");
        assert_eq!(link.to_text().as_str(), text(case, "link"));
        assert_eq!(
            link.token.dangerous_bytes(),
            &array(&case["fields"], "token")
        );
    }
    for case in list(&file["refused_join_links"]) {
        let refused = JoinLink::parse(text(case, "link")).expect_err("no link");
        assert_eq!(Some(variant(&refused).as_str()), refusal(case), "{case}");
    }
}

/// REQ-030, REQ-031: names and slots open where they should and nowhere else.
#[test]
fn names_open_as_written() {
    let file = load("names.json");
    let org = OrgId(array(&file, "organisation"));
    let key = DirectoryKey::from_bytes(array(&file, "directory_key"));
    for case in list(&file["profiles"]) {
        let profile = SealedProfile(bytes(case, "profile").into());
        let opened = key.open_profile(org, UserId(array(case, "user")), &profile);
        assert_eq!(opened.ok().as_deref(), case["opens_to"].as_str(), "{case}");
    }
    let seed = array(&file["recipient"], "seal_seed");
    let secret = SealSecret::new(SigningKey::from_seed(&seed));
    for case in list(&file["slots"]) {
        let slot = Slot {
            device: DeviceId(array(&case["slot"], "device")),
            filler: DeviceId(array(&case["slot"], "filler")),
            generation: RosterSeq(number(&case["slot"], "generation")),
            enc: bytes(&case["slot"], "enc").into(),
            ciphertext: bytes(&case["slot"], "ciphertext").into(),
        };
        let opened = open_slot(org, &slot, &secret, Hash(array(&file, "commitment")));
        let opened = opened
            .ok()
            .map(|key| HEXLOWER.encode(key.dangerous_bytes().as_slice()));
        assert_eq!(opened.as_deref(), case["opens_to"].as_str(), "{case}");
    }
    for case in list(&file["predecessors"]) {
        let generation = RosterSeq(number(&file, "generation"));
        let (sealed, commitment) = (bytes(case, "predecessor"), Hash(array(case, "commitment")));
        let opened = key
            .unwrap_predecessor(org, generation, &sealed, commitment)
            .ok()
            .map(|key| HEXLOWER.encode(key.dangerous_bytes().as_slice()));
        assert_eq!(opened.as_deref(), case["opens_to"].as_str(), "{case}");
    }
}

/// REQ-080, REQ-094: policies read back, and what is none does not.
#[test]
fn groups_are_read_as_written() {
    let file = load("groups.json");
    for case in list(&file["policies"]) {
        let policy = bytes(case, "policy");
        let read = GroupPolicy::from_bytes(&policy).expect("a policy");
        assert_eq!(read.to_bytes(), policy);
    }
    for case in list(&file["refused_policies"]) {
        assert_eq!(GroupPolicy::from_bytes(&bytes(case, "policy")), None);
    }
}

/// REQ-050, REQ-052: keys from seeds, and a proof for one place only.
#[test]
fn access_is_decided_as_written() {
    let file = load("access.json");
    for case in list(&file["keys"]) {
        let key = SigningKey::from_seed(&array(case, "seed"));
        assert_eq!(key.public(), PublicKey(array(case, "public_key")));
    }
    for case in list(&file["proofs"]) {
        let proof = AccessProof {
            entry_hash: Hash(array(&case["proof"], "entry_hash")),
            signature: Signature(array(&case["proof"], "signature")),
        };
        let purpose = match text(case, "purpose") {
            "read" => Purpose::Read,
            _ => Purpose::Append,
        };
        let held = proof.verify(
            &PublicKey(array(case, "access_key")),
            &ConnectionBinding(array(case, "binding")),
            GroupId(array(case, "group")),
            Epoch(number(case, "epoch")),
            purpose,
        );
        let held = held.is_ok() && proof.entry_hash == Hash(array(case, "entry_hash"));
        assert_eq!(held, refusal(case).is_none(), "{case}");
    }
}

/// REQ-042 to REQ-044: ids, opening entries and cursors of a whole log.
#[test]
fn the_log_is_hashed_as_written() {
    let file = load("logs.json");
    let group = GroupId(array(&file["log"], "group"));
    let mut cursor = LogCursor::created(Hash([0; 32]), RosterSeq(0));
    for case in list(&file["log"]["records"]) {
        let (payload, fence) = (bytes(case, "payload"), RosterSeq(number(case, "fence")));
        let told = &case["cursor"];
        let body: RecordBody = decode(&payload).expect("a record");
        assert_eq!(encode(&body), payload);
        assert_eq!(sha256(&payload), Hash(array(case, "record_id")));
        cursor = match body {
            RecordBody::Create { .. } | RecordBody::Commit(_) => {
                let opening = entry_hash(group, Epoch(number(told, "epoch")), &payload);
                assert_eq!(opening, Hash(array(told, "opening_entry")));
                match body {
                    RecordBody::Create { .. } => LogCursor::created(opening, fence),
                    _ => cursor.opens(sha256(&payload), fence),
                }
            }
            _ => cursor.after(sha256(&payload), fence),
        };
        assert_eq!(u64::from(cursor.count), number(told, "count"));
        assert_eq!(cursor.hash, Hash(array(told, "hash")));
    }
}

/// REQ-046, REQ-051, REQ-064: headers, commit entries and attestations.
#[test]
fn records_are_decided_as_written() {
    let file = load("logs.json");
    let context = &file["headers"];
    for case in list(&context["decided"]) {
        let header = PrivateHeader::parse(&bytes(case, "message"))
            .ok()
            .filter(|header| {
                let commit = header.content_type == ContentType::Commit;
                header.group == GroupId(array(context, "group"))
                    && header.epoch == Epoch(number(context, "epoch"))
                    && commit == (text(case, "record") == "commit")
            });
        assert_eq!(
            header.is_some(),
            case["authenticated_data"].is_object(),
            "{case}"
        );
    }
    for case in list(&file["commit_entries"]) {
        let Ok(RecordBody::Commit(entry)) = decode(&bytes(case, "payload")) else {
            panic!("a commit: {case}")
        };
        let held = entry.verify(
            GroupId(array(case, "group")),
            Epoch(number(case, "epoch")),
            &PublicKey(array(case, "mls_signature_key")),
        );
        assert_eq!(held.is_ok(), refusal(case).is_none(), "{case}");
    }
    for case in list(&file["restarts"]) {
        let Ok(RecordBody::Restart(restart)) = decode(&bytes(case, "payload")) else {
            panic!("a restart: {case}")
        };
        let held = restart.verify(&PublicKey(array(case, "mls_signature_key")));
        assert_eq!(held.is_ok(), refusal(case).is_none(), "{case}");
    }
    for case in list(&file["attestations"]) {
        let Ok(RecordBody::Attestation(attestation)) = decode(&bytes(case, "payload")) else {
            panic!("an attestation: {case}")
        };
        let held = attestation.verify(
            &PublicKey(array(case, "mls_signature_key")),
            &PublicKey(array(case, "access_key")),
        );
        assert_eq!(held.is_ok(), refusal(case).is_none(), "{case}");
    }
}

/// REQ-095: what is text, what is of another kind, and what is refused.
#[test]
fn content_is_decided_as_written() {
    let file = load("content.json");
    for case in list(&file["texts"]) {
        let read = read_content(&bytes(case, "content"));
        let Ok(Content::Text(message)) = read else {
            panic!("a text: {case}")
        };
        assert_eq!(message.text, text(case, "text"));
        assert_eq!(message.encode(), bytes(case, "content"));
    }
    for case in list(&file["decided"]) {
        let decision = match read_content(&bytes(case, "content")) {
            Ok(Content::Text(_)) => "text",
            Ok(_) => "unsupported",
            Err(_) => "BAD_CONTENT",
        };
        assert_eq!(decision, text(case, "decision"), "{case}");
    }
}

/// Refusals in the files go by the names that the product's errors begin with.
#[test]
fn a_refusal_is_named_as_in_the_specification() {
    assert_eq!(
        name_of(&mortise_protocol::wire::Refusal::AccessDenied),
        "ACCESS_DENIED"
    );
}
