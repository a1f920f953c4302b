"""Every vector in `spec/vectors`: decoded, verified, decided and encoded again, from the specification alone."""

import copy
import json
import pathlib

import pytest

from reader import names
from reader.authority import may
from reader.certificates import Defect, MerkleTree, is_included, set_holds, verify_certificate
from reader.connection import FRAME_LIMIT
from reader.content import BadContent, read_content, write_content
from reader.group import read_policy
from reader.invitations import BadLink, invitation_key, pin_characters, read_link, write_link
from reader.keys import SigningKey, hash_with_label, labelled, montgomery, verify_with_label
from reader.logs import (
    EXPORTER_LABEL,
    MLS_EXPORTER_LABEL,
    LogCursor,
    access_key_seed,
    attestation_holds,
    check_header,
    commit_entry_holds,
    entry_hash,
    proof_holds,
    record_id,
    restart_holds,
)
from reader.presentation import Malformed, jsonable
from reader.roster import (
    NO_HASH,
    Refused,
    Roster,
    checkpoint_fault,
    device_id,
    organisation_id,
    safety_number,
    sign_entry,
)
from reader.structures import (
    Certificate,
    Checkpoint,
    ClientToRelay,
    GroupPolicy,
    MemberCredential,
    PrivateMessage,
    PushType,
    RecordBody,
    RefusalCode,
    RelayToClient,
    RequestType,
    ResponseType,
    Resync,
    RosterEntry,
    SignedOrderSet,
)

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "spec" / "vectors"
FRAMES = {"client_to_relay": ClientToRelay, "relay_to_client": RelayToClient}


def load(name):
    return json.loads((DIRECTORY / name).read_text())


def cases(name, *path):
    """The cases under `path` of a file, as parameters that carry their names."""
    found = load(name)
    for step in path:
        found = found[step]
    return [pytest.param(case, id=str(case.get("name", at))) for at, case in enumerate(found)]


def raw(text):
    return bytes.fromhex(text)


@pytest.mark.parametrize("case", cases("keys.json", "labelled"))
def test_labelled(case):
    """REQ-001."""
    content, key = raw(case["content"]), SigningKey(raw(case["seed"]))
    assert labelled(case["label"], content).hex() == case["labelled"]
    assert hash_with_label(case["label"], content).hex() == case["hash"]
    assert key.public.hex() == case["public_key"]
    assert key.sign_with_label(case["label"], content).hex() == case["signature"]


@pytest.mark.parametrize("case", cases("keys.json", "identifiers"))
def test_identifiers(case):
    """REQ-010, REQ-012."""
    assert organisation_id(raw(case["public_key"])).hex() == case["organisation_id"]
    assert device_id(raw(case["public_key"])).hex() == case["device_id"]


@pytest.mark.parametrize("case", cases("keys.json", "sealing_keys"))
def test_sealing_keys(case):
    """REQ-013."""
    key = SigningKey(raw(case["seed"]))
    assert key.public.hex() == case["edwards_public_key"]
    assert montgomery(key.public).public_bytes_raw().hex() == case["x25519_public_key"]
    assert key.x25519().public_key().public_bytes_raw().hex() == case["x25519_public_key"]


@pytest.mark.parametrize("case", cases("keys.json", "signatures"))
def test_signatures(case):
    """REQ-001: every verifier decides alike."""
    public, signature = raw(case["public_key"]), raw(case["signature"])
    assert verify_with_label(public, case["label"], raw(case["content"]), signature) == case["valid"]


@pytest.mark.parametrize("case", cases("keys.json", "safety_numbers"))
def test_safety_numbers(case):
    """REQ-018."""
    sides = [(raw(side["user"]), [raw(k) for k in side["mls_signature_keys"]]) for side in (case["one"], case["other"])]
    assert safety_number(*sides) == case["number"]


@pytest.mark.parametrize("direction", FRAMES)
def test_frames(direction):
    """REQ-041, section 8: every type."""
    structure, seen = FRAMES[direction], set()
    for case in load("frames.json")[direction]:
        frame = raw(case["frame"])
        assert int.from_bytes(frame[:4], "big") == len(frame) - 4
        value = structure.decode(frame[4:])
        assert jsonable(value) == case["fields"]
        assert structure.encode(value) == frame[4:]
        for cut in range(0, len(frame) - 4, max(1, len(frame) // 200)):
            with pytest.raises(Malformed):
                structure.decode(frame[4 : 4 + cut])
        inner = value.get("request") or value.get("response") or value["push"]
        seen.add((value.get("type"), inner["type"], inner.get("code")))
    to_client = len(ResponseType.values) - 1 + len(RefusalCode.values) + len(PushType.values)
    assert len(seen) == {"client_to_relay": len(RequestType.values), "relay_to_client": to_client}[direction]


@pytest.mark.parametrize("case", cases("frames.json", "refused"))
def test_refused_frames(case):
    """REQ-003."""
    with pytest.raises(Malformed) as refused:
        FRAMES[case["direction"]].decode(raw(case["body"]))
    assert refused.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("frames.json", "refused_lengths"))
def test_refused_lengths(case):
    """REQ-041."""
    assert case["limit"] in (FRAME_LIMIT, 64 * 1024)
    length = int.from_bytes(raw(case["header"]), "big")
    assert case["refusal"] == ("MALFORMED" if length == 0 else "TOO_LARGE") and not 0 < length <= case["limit"]


def summary(roster):
    """The state of a roster in the form of roster.json."""
    return {
        "seq": roster.seq,
        "hash": roster.hash.hex(),
        "fence": roster.fence,
        "users": {u.hex(): {"role": r.role, "status": r.status} for u, r in roster.users.items()},
        "devices": {
            d.hex(): {"user": r.user.hex(), "added": r.added, "burned": r.burned or 0}
            for d, r in roster.devices.items()
        },
        "invitations": {
            i.hex(): {"user": r.user.hex(), "status": r.state} for i, r in roster.invitations.items()
        },
        "policy": jsonable(roster.policy),
        "directory_generation": max(roster.directory, default=0),
    }


def chain(until=None):
    """The roster of the vectors after the entry at seq `until`."""
    vectors = load("roster.json")
    roster = Roster(raw(vectors["organisation"]))
    for case in vectors["entries"][:until]:
        roster.apply(raw(case["entry"]))
    return roster


def test_roster_entries():
    """Section 5: the chain, and what it leads to after each entry."""
    vectors = load("roster.json")
    roster = Roster(raw(vectors["organisation"]))
    assert roster.hash == NO_HASH
    for case in vectors["entries"]:
        data = raw(case["entry"])
        value = RosterEntry.decode(data)
        assert jsonable(value) == case["fields"]
        assert RosterEntry.encode(value) == data
        assert sign_entry(SigningKey(raw(case["signer_seed"])), value["tbs"]) == data
        roster.apply(data)
        assert summary(roster) == case["state"], case["name"]


@pytest.mark.parametrize("case", cases("roster.json", "refused"))
def test_refused_entries(case):
    """Section 5.3: the same entry, the same name, and nothing changed."""
    roster, data = chain(case["after_seq"]), raw(case["entry"])
    before = summary(roster)
    with pytest.raises(Refused) as refused:
        roster.apply(data.ljust(case["padded_to_bytes"], b"\0"), case.get("relay_now_ms"))
    assert (refused.value.name, refused.value.code) == (case["refusal"], case["code"])
    assert summary(roster) == before


@pytest.mark.parametrize("case", cases("roster.json", "checkpoints"))
def test_checkpoints(case):
    """REQ-105."""
    data, rosters = raw(case["checkpoint"]), [chain(0)]
    for written in load("roster.json")["entries"]:
        rosters.append(copy.deepcopy(rosters[-1]))
        rosters[-1].apply(raw(written["entry"]))
    value = Checkpoint.decode(data)
    assert jsonable(value) == case["fields"] and Checkpoint.encode(value) == data
    assert checkpoint_fault(data, rosters) == case["fault"]


def test_authority():
    """REQ-016: every cell."""
    cells = load("authority.json")["cells"]
    assert len(cells) == len({(c["operation"], c["actor"], c["target"]) for c in cells})
    for cell in cells:
        operation = "".join("_" + c.lower() if c.isupper() else c for c in cell["operation"]).lstrip("_")
        assert may(cell["actor"], operation, cell["target"]) == cell["allowed"], cell


@pytest.mark.parametrize("case", cases("groups.json", "credentials"))
def test_credentials(case):
    """REQ-080."""
    if case["refusal"]:
        assert case["refusal"] == "BAD_CREDENTIAL"
        with pytest.raises(Malformed):
            MemberCredential.decode(raw(case["identity"]))
        return
    value = MemberCredential.decode(raw(case["identity"]))
    assert jsonable(value) == case["fields"] and MemberCredential.encode(value).hex() == case["identity"]


def test_resyncs():
    """REQ-156."""
    for case in load("groups.json")["resyncs"]:
        value = Resync.decode(raw(case["resync"]))
        assert jsonable(value) == case["fields"] and Resync.encode(value).hex() == case["resync"]


def test_policies():
    """REQ-094."""
    for case in load("groups.json")["policies"]:
        value = read_policy(raw(case["policy"]))
        assert jsonable(value) == case["fields"] and GroupPolicy.encode(value).hex() == case["policy"]


@pytest.mark.parametrize("case", cases("groups.json", "refused_policies"))
def test_refused_policies(case):
    """REQ-094."""
    assert case["refusal"] == "POLICY_MISSING"
    with pytest.raises(Malformed):
        read_policy(raw(case["policy"]))


@pytest.mark.parametrize("case", cases("invitations.json", "keys"))
def test_invitation_keys(case):
    """REQ-021, REQ-104."""
    pin = pin_characters(case["pin"]) if case["pin"] else b""
    key = invitation_key(raw(case["invitation"]), raw(case["secret"]), pin)
    assert key.public.hex() == case["public_key"]


@pytest.mark.parametrize("kind", ["join", "claim"])
def test_links(kind):
    """REQ-020."""
    for case in load("invitations.json")[kind + "_links"]:
        link = read_link(kind, case["link"])
        assert jsonable(link) == case["fields"]
        assert write_link(kind, link) == case["link"]


@pytest.mark.parametrize("case", cases("invitations.json", "refused_join_links"))
def test_refused_links(case):
    """REQ-020."""
    with pytest.raises(BadLink) as refused:
        read_link("join", case["link"])
    assert refused.value.reason == case["refusal"]


def test_names():
    """REQ-030, REQ-031."""
    vectors = load("names.json")
    org, key, generation = raw(vectors["organisation"]), raw(vectors["directory_key"]), vectors["generation"]
    assert names.commitment(key).hex() == vectors["commitment"]
    for case in vectors["profiles"]:
        profile, user = raw(case["profile"]), raw(case["user"])
        assert names.open_profile(key, org, user, profile) == case["opens_to"], case["name"]
        if case["opens_to"] is not None:
            sealed = names.seal_profile(key, generation, org, user, case["opens_to"], profile[8:20])
            assert sealed == profile
    for case in vectors["predecessors"]:
        sealed = raw(case["predecessor"])
        opened = names.open_predecessor(key, org, generation, sealed, raw(case["commitment"]))
        assert (opened and opened.hex()) == case["opens_to"], case["name"]
        if opened:
            assert names.seal_predecessor(key, org, generation, opened, sealed[:12]) == sealed
    private = SigningKey(raw(vectors["recipient"]["seal_seed"])).x25519()
    for case in vectors["slots"]:
        slot = {n: value if n == "generation" else raw(value) for n, value in case["slot"].items()}
        opened = names.open_slot(slot, org, private, raw(vectors["commitment"]))
        assert (opened and opened.hex()) == case["opens_to"], case["name"]


def test_access_keys():
    """REQ-050."""
    vectors = load("access.json")
    assert vectors["mls_exporter_label"].encode() == MLS_EXPORTER_LABEL
    assert vectors["tls_exporter_label"].encode() == EXPORTER_LABEL
    for case in vectors["keys"]:
        seed = access_key_seed(raw(case["exporter_secret"]), raw(case["group"]))
        assert (seed.hex(), SigningKey(seed).public.hex()) == (case["seed"], case["public_key"])


@pytest.mark.parametrize("case", cases("access.json", "proofs"))
def test_access_proofs(case):
    """REQ-052."""
    proof = {name: raw(value) for name, value in case["proof"].items()}
    key, binding, group, entry = (raw(case[name]) for name in ("access_key", "binding", "group", "entry_hash"))
    holds = proof_holds(proof, key, binding, group, case["epoch"], entry, case["purpose"])
    assert case["refusal"] == (None if holds else "ACCESS_DENIED")


def test_log():
    """REQ-042, REQ-043, REQ-044; and that a log which leaves out, swaps or restamps a record is another one."""
    vectors = load("logs.json")["log"]
    group, ends = raw(vectors["group"]), []
    for case in vectors["records"]:
        payload, told = raw(case["payload"]), case["cursor"]
        body = RecordBody.decode(payload)
        assert jsonable(body) == case["fields"] and RecordBody.encode(body) == payload
        assert record_id(payload).hex() == case["record_id"]
        if body["type"] in ("create", "commit"):
            epoch = 0 if body["type"] == "create" else case["epoch"] + 1
            opening = entry_hash(group, epoch, payload)
            if epoch == 0:
                cursor = LogCursor.created(opening, case["fence"])
            else:
                fork = LogCursor.created(opening, case["fence"])
                cursor.open(payload, case["fence"])
                assert fork.hash != cursor.hash
        else:
            forks = [LogCursor(cursor.hash, cursor.count)]
            forks.append(LogCursor(cursor.hash, cursor.count))
            forks[1].add(payload, case["fence"] + 1)
            cursor.add(payload, case["fence"])
            assert all(fork.hash != cursor.hash for fork in forks)
        assert (told["epoch"], told["opening_entry"]) == (epoch, opening.hex())
        assert (told["count"], told["hash"]) == (cursor.count, cursor.hash.hex())
        if body["type"] in ("message", "commit"):
            data = check_header(body["type"], body[body["type"]], group, case["epoch"])
            ends.append((data["log_count"], data["log_hash"].hex()))
    before = [(c["cursor"]["count"], c["cursor"]["hash"]) for c in vectors["records"]]
    assert set(ends) <= set(before)


@pytest.mark.parametrize("case", cases("logs.json", "headers", "decided"))
def test_headers(case):
    """REQ-045, REQ-046."""
    context, message = load("logs.json")["headers"], raw(case["message"])
    try:
        data = check_header(case["record"], message, raw(context["group"]), context["epoch"])
    except Malformed:
        assert case["authenticated_data"] is None
    else:
        assert jsonable(data) == case["authenticated_data"]
        assert PrivateMessage.encode(PrivateMessage.decode(message)) == message


@pytest.mark.parametrize("case", cases("logs.json", "commit_entries"))
def test_commit_entries(case):
    """REQ-051."""
    payload = raw(case["payload"])
    body = RecordBody.decode(payload)
    assert RecordBody.encode(body) == payload
    holds = commit_entry_holds(body, raw(case["mls_signature_key"]), raw(case["group"]), case["epoch"])
    assert case["refusal"] == (None if holds else "BAD_ENTRY_SIGNATURE")


@pytest.mark.parametrize("case", cases("logs.json", "attestations"))
def test_attestations(case):
    """REQ-064."""
    payload = raw(case["payload"])
    assert RecordBody.encode(RecordBody.decode(payload)) == payload
    holds = attestation_holds(payload, raw(case["mls_signature_key"]), raw(case["access_key"]))
    assert case["refusal"] == (None if holds else "BAD_ATTESTATION")


@pytest.mark.parametrize("case", cases("logs.json", "restarts"))
def test_restarts(case):
    """REQ-150."""
    payload = raw(case["payload"])
    assert RecordBody.encode(RecordBody.decode(payload)) == payload
    holds = restart_holds(payload, raw(case["mls_signature_key"]))
    assert case["refusal"] == (None if holds else "BAD_RESTART")


def test_texts():
    """REQ-095."""
    for case in load("content.json")["texts"]:
        data = raw(case["content"])
        assert read_content(data) == case["text"]
        assert write_content(raw(case["salt"]), case["text"]) == data


@pytest.mark.parametrize("case", cases("content.json", "decided"))
def test_contents(case):
    """REQ-095."""
    try:
        decision = "unsupported" if read_content(raw(case["content"])) is None else "text"
    except BadContent:
        decision = "BAD_CONTENT"
    assert decision == case["decision"]


@pytest.mark.parametrize("case", cases("certificates.json", "merkle"))
def test_merkle_trees(case):
    """REQ-170."""
    leaves = [raw(leaf) for leaf in case["leaves"]]
    tree = MerkleTree(leaves)
    assert tree.root().hex() == case["root"]
    for at, (leaf, path) in enumerate(zip(leaves, case["paths"], strict=True)):
        path = [raw(sibling) for sibling in path]
        assert tree.path(at) == path
        assert is_included(raw(case["root"]), leaf, at, len(leaves), path)
        assert not is_included(raw(case["root"]), leaf, at + 1, len(leaves), path)


@pytest.mark.parametrize("case", cases("certificates.json", "sets"))
def test_sets(case):
    """REQ-171."""
    signed = SignedOrderSet.decode(raw(case["set"]))
    assert jsonable(signed) == case["fields"]
    assert SignedOrderSet.encode(signed).hex() == case["set"]
    assert set_holds(signed, [raw(group) for group in case["groups"]], raw(case["statement_key"]))


@pytest.mark.parametrize("case", cases("certificates.json", "certificates"))
def test_certificates(case):
    """REQ-176 to REQ-178."""
    file = raw(case["file"])
    try:
        verify_certificate(file, raw(case["root"]))
        error = None
    except Defect as defect:
        error = str(defect)
    assert error == case["error"]
    if case["fields"] is not None:
        decoded = Certificate.decode(file)
        assert jsonable(decoded) == case["fields"]
        assert Certificate.encode(decoded) == file
