"""What the relay signs about an order, receipts, and certificates: sections 11.4 to 11.6."""

from .keys import hash_with_label, verify_with_label
from .presentation import Malformed
from .roster import NO_HASH, Refused, Roster
from .structures import (
    AttestationStatement,
    Certificate,
    CertificateTbs,
    OrderGroupState,
    OrderSet,
    OrderState,
    ReceiptStatement,
)


class Defect(Exception):
    """Why a certificate does not hold: a name of REQ-178."""


def defect_if(condition, name):
    if condition:
        raise Defect(name)


def leaf_hash(content):
    return hash_with_label("merkle leaf", content)


def node_hash(left, right):
    return hash_with_label("merkle node", left + right)


class MerkleTree:
    """REQ-170, by the recursive definition of RFC 6962, section 2.1."""

    def __init__(self, contents):
        self.leaves = [leaf_hash(content) for content in contents]

    @staticmethod
    def _split(count):
        return 1 << (count - 1).bit_length() - 1

    def _root(self, leaves):
        if not leaves:
            return hash_with_label("merkle empty", b"")
        if len(leaves) == 1:
            return leaves[0]
        half = self._split(len(leaves))
        return node_hash(self._root(leaves[:half]), self._root(leaves[half:]))

    def root(self):
        return self._root(self.leaves)

    def path(self, index, leaves=None):
        leaves = self.leaves if leaves is None else leaves
        if len(leaves) == 1:
            return []
        half = self._split(len(leaves))
        if index < half:
            return [*self.path(index, leaves[:half]), self._root(leaves[half:])]
        return [*self.path(index - half, leaves[half:]), self._root(leaves[:half])]


def is_included(root, content, index, count, path):
    """RFC 9162, section 2.1.3.2."""
    if index >= count:
        return False
    last, found = count - 1, leaf_hash(content)
    for sibling in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            found = node_hash(sibling, found)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and found == root


def set_holds(signed, groups, statement_key):
    """REQ-171."""
    body = signed["set"]
    return (
        body["count"] == len(groups)
        and groups == sorted(set(groups))
        and body["root"] == MerkleTree(groups).root()
        and verify_with_label(statement_key, "order set", OrderSet.encode(body), signed["signature"])
    )


def verify_certificate(data, root):
    """REQ-178: the roster that is shown, or Defect."""
    defect_if(data[:1] not in (b"", b"\x01"), "wrong_version")
    try:
        certificate = Certificate.decode(data)
    except Malformed as error:
        raise Defect("malformed") from error
    tbs = certificate["tbs"]
    defect_if(tbs["org"] != root, "wrong_root")
    roster, orders = read_chain(tbs)
    maker = roster.devices.get(tbs["device"])
    defect_if(
        maker is None
        or maker.burned is not None
        or not signed_by(maker, "certificate", CertificateTbs.encode(tbs), certificate["signature"]),
        "maker",
    )
    check_state(tbs, roster, orders)
    check_rows(tbs)
    check_attestations(tbs, roster)
    check_receipts(tbs, roster)
    check_agreement(tbs)
    # No vector discloses a tree that is one: this reader does not know MLS's.
    defect_if(tbs["trees"], "tree")
    return roster


def signed_by(device, label, content, signature):
    return verify_with_label(device.keys["mls_signature_key"], label, content, signature)


def read_chain(tbs):
    roster, orders = Roster(org=tbs["org"]), set()
    for item in tbs["chain"]:
        if item["type"] == "hidden":
            defect_if(roster.seq == 0, "chain")
            roster.seq, roster.hash = roster.seq + 1, item["hash"]
            roster.hashes.append(item["hash"])
            continue
        before = roster.fence
        try:
            roster.apply(item["entry"])
        except Refused as refused:
            raise Defect("chain") from refused
        if roster.fence != before:
            orders.add(roster.seq)
    defect_if(roster.seq == 0 or roster.hash == NO_HASH, "chain")
    return roster, orders


def check_state(tbs, roster, orders):
    state = tbs["state"]["state"]
    seq = state["order_seq"]
    defect_if(seq not in orders, "not_an_order")
    chain = hash_with_label("roster chain", b"".join(roster.hashes))
    defect_if(
        (state["org"], state["order_hash"], state["head"], state["chain"])
        != (tbs["org"], roster.hashes[seq - 1], {"seq": roster.seq, "hash": roster.hash}, chain),
        "other_state",
    )
    key = roster.policy["statement_key"]
    holds = verify_with_label(key, "order state", OrderState.encode(state), tbs["state"]["signature"])
    defect_if(not holds, "relay_signature")


def check_rows(tbs):
    state, rows = tbs["state"]["state"], tbs["groups"]
    groups = [row["group"] for row in rows]
    defect_if(
        groups != sorted(set(groups))
        or state["count"] != len(groups)
        or state["set_root"] != MerkleTree(groups).root()
        or state["root"] != MerkleTree([OrderGroupState.encode(row) for row in rows]).root(),
        "groups",
    )
    for row in rows:
        verdicts = {attested["verdict"] for attested in row["attested"]}
        follows = {
            "sealed": not verdicts,
            "rotated": "rotated" in verdicts,
            "clean": verdicts == {"clean"},
            "ended": True,
        }
        defect_if(not follows[row["state"]], "row")


def check_attestations(tbs, roster):
    state = tbs["state"]["state"]
    named = [(row["group"], attested) for row in tbs["groups"] for attested in row["attested"]]
    for (group, attested), attestation in zip(named, tbs["attestations"], strict=False):
        said = attestation["statement"]
        same = ("device", "verdict", "epoch", "entry_hash")
        device = roster.devices.get(said["device"])
        content = AttestationStatement.encode(said)
        s = said["roster_seq"]
        defect_if(
            (said["group"], said["order_seq"], said["order_hash"])
            != (group, state["order_seq"], state["order_hash"])
            or any(said[name] != attested[name] for name in same)
            or not state["order_seq"] <= s <= roster.seq
            or roster.hashes[s - 1] != said["roster_hash"]
            or device is None
            or not device.added <= s
            or (device.burned is not None and device.burned <= s)
            or not signed_by(device, "attestation", content, attestation["device_signature"])
            or not verify_with_label(
                attested["access_key"], "attestation access", content, attestation["access_signature"]
            ),
            "attestation",
        )
    defect_if(len(named) != len(tbs["attestations"]), "attestation_count")


def check_receipts(tbs, roster):
    state = tbs["state"]["state"]
    groups = {row["group"] for row in tbs["groups"]}
    places = [(r["statement"]["group"], r["statement"]["device"]) for r in tbs["receipts"]]
    defect_if(places != sorted(set(places)), "receipt")
    for receipt in tbs["receipts"]:
        said = receipt["statement"]
        device = roster.devices.get(said["device"])
        names = ("org", "order_seq", "order_hash", "set_root")
        defect_if(
            any(said[name] != state[name] for name in names)
            or said["group"] not in groups
            or device is None
            or (device.burned is not None and device.burned <= state["order_seq"])
            or not signed_by(device, "receipt", ReceiptStatement.encode(said), receipt["signature"]),
            "receipt",
        )


def check_agreement(tbs):
    entries, trees = {}, {}
    for statement in [*tbs["attestations"], *tbs["receipts"]]:
        said = statement["statement"]
        place = (said["group"], said["epoch"])
        defect_if(entries.setdefault(place, said["entry_hash"]) != said["entry_hash"], "contradiction")
        if "tree_hash" in said:
            tree = (said["tree_hash"], said["confirmed_transcript_hash"])
            defect_if(trees.setdefault(place, tree) != tree, "contradiction")
