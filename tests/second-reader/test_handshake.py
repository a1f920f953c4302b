"""QUIC, TLS and framing with the real relay: section 4 of the spec."""

import os

import pytest

from reader.connection import Closed, Refusal, open_connection
from reader.device import DeviceKeys
from reader.organisation import found
from reader.raw_public_keys import X25519MLKEM768
from reader.structures import FRAME_LIMIT, ClientToRelay, RelayToClient

X25519 = 0x001D
NO_APPLICATION_PROTOCOL = "quic 0x178"


def test_a_device_with_a_raw_public_key_is_let_in(relay, run):
    """REQ-002, REQ-004, REQ-005."""

    async def conversation():
        device = DeviceKeys()
        first = await open_connection(relay.address, relay.pin, device.tls)
        assert first.tls().negotiated_group == X25519MLKEM768
        assert first.tls().client_signature_schemes == [0x0807]
        second = await open_connection(relay.address, relay.pin, device.tls, groups=(X25519,))
        assert second.tls().negotiated_group == X25519
        assert first.binding() != second.binding()
        for connection in (first, second):
            with pytest.raises(Refusal, match="UNKNOWN_ORG"):
                await connection.live("hello", org=bytes(32), roster_seq=0)
            assert not connection.tls().session_resumed and not connection.new_tokens()

    run(conversation())


def test_another_relay_is_not_taken(relay, run):
    """REQ-002: the pin is the only thing that says who the relay is."""

    async def conversation():
        with pytest.raises(Closed, match="not the relay that the link names"):
            await open_connection(relay.address, os.urandom(32), DeviceKeys().tls)

    run(conversation())


def test_another_protocol_is_refused(relay, run):
    """REQ-002."""

    async def conversation():
        with pytest.raises(Closed, match=NO_APPLICATION_PROTOCOL):
            await open_connection(relay.address, relay.pin, DeviceKeys().tls, alpn="h3")

    run(conversation())


async def _answer(connection, data, end=True):
    stream = connection.open_stream()
    connection.send(stream, data, end)
    return RelayToClient.decode(await connection.next_frame(stream))


FETCH = ClientToRelay.encode({"id": 0x0102030405060708, "request": {"type": "fetch_slots"}})


def _frame(body):
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "data, number, code",
    [
        (bytes(4), 0, "MALFORMED"),
        (_frame(FETCH[:5]), 0, "MALFORMED"),
        (_frame(FETCH[:9]), 0x0102030405060708, "MALFORMED"),
        (_frame(FETCH + b"\0"), 0x0102030405060708, "MALFORMED"),
        (_frame(FETCH[:8] + b"\x7f\xff"), 0x0102030405060708, "MALFORMED"),
        ((FRAME_LIMIT + 1).to_bytes(4, "big"), 0, "TOO_LARGE"),
        ((64 * 1024 + 1).to_bytes(4, "big"), 0, "TOO_LARGE"),
        (_frame(FETCH), 0x0102030405060708, "HELLO_FIRST"),
    ],
    ids=["zero", "no id", "truncated", "trailing", "unknown type", "over all", "over unadmitted", "hello first"],
)
def test_a_frame_that_is_none_is_answered_on_its_stream(relay, run, data, number, code):
    """REQ-041, REQ-040, section 4.2: and the other streams go on."""

    async def conversation():
        connection = await open_connection(relay.address, relay.pin, DeviceKeys().tls)
        answer = await _answer(connection, data, end=code != "TOO_LARGE")
        assert (answer["id"], answer["response"]["code"]) == (number, code)
        with pytest.raises(Refusal, match="HELLO_FIRST"):
            await connection.ask("fetch_slots")

    run(conversation())


def test_a_second_hello_for_another_organisation_is_malformed(relay, run):
    """Section 8."""

    async def conversation():
        owner = await found(relay, "Ann")
        other = await found(relay, "Zoe")
        await owner.hello()
        with pytest.raises(Refusal, match="UNKNOWN_ORG"):
            await owner.connection.live("hello", org=os.urandom(32), roster_seq=1)
        with pytest.raises(Refusal, match="MALFORMED"):
            await owner.connection.live("hello", org=other.org, roster_seq=1)

    run(conversation())
