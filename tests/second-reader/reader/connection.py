"""A device's connection to a relay: section 4 of the spec."""

import asyncio
import itertools

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events

from .logs import EXPORTER_LABEL
from .presentation import Malformed
from .raw_public_keys import PinnedQuicConnection
from .structures import FRAME_LIMIT, ClientToRelay, RelayToClient

CLOSE_CODES = {0: "NORMAL", 1: "REMOVED", 2: "TOO_SLOW", 3: "MALFORMED", 4: "TIMEOUT", 5: "SHUTTING_DOWN"}
PATIENCE_S = 15


class Stream:
    """The frames that came on one stream."""

    def __init__(self):
        self._bytes, self.frames, self.ended = b"", asyncio.Queue(), False

    def feed(self, data, end):
        self._bytes += data
        while len(self._bytes) >= 4:
            length = int.from_bytes(self._bytes[:4], "big")
            if not 0 < length <= FRAME_LIMIT:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._bytes) < 4 + length:
                break
            self.frames.put_nowait(self._bytes[4 : 4 + length])
            self._bytes = self._bytes[4 + length :]
        self.ended = self.ended or end
        if end:
            if self._bytes:
                raise ValueError("the stream ends within a frame")
            self.frames.put_nowait(None)


class Closed(Exception):
    """The relay closed the connection; `code` is a name of section 4.3, or QUIC's own number."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Refusal(Exception):
    """The relay's answer is a refusal; `fields` are those of section 14."""

    def __init__(self, fields):
        super().__init__(str(fields))
        self.code, self.fields = fields["code"], fields


class Connection(QuicConnectionProtocol):
    """Opened with `open_connection`."""

    def __init__(self, quic):
        super().__init__(quic)
        self._streams, self._ids = {}, itertools.count(1)
        self._live = self._submit = None
        self.pushes, self._answers = asyncio.Queue(), {}
        self.closed = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            try:
                self._streams[event.stream_id].feed(event.data, event.end_stream)
                if event.stream_id == self._live:
                    self._sort_live_frames()
            except (Malformed, ValueError) as error:
                self._give_up(error)
        elif isinstance(event, events.ConnectionTerminated) and not self.closed.done():
            application = event.frame_type is None
            code = CLOSE_CODES.get(event.error_code) if application else None
            self.closed.set_result(code or f"quic {event.error_code:#x} {event.reason_phrase}")

    def _give_up(self, error):
        """REQ-041: what the relay sent is no frame."""
        if not self.closed.done():
            self.closed.set_result(f"MALFORMED, found here: {error}")
        self.close(error_code=3)

    def _sort_live_frames(self):
        frames = self._streams[self._live].frames
        while not frames.empty():
            frame = frames.get_nowait()
            if frame is None:
                continue
            message = RelayToClient.decode(frame)
            if message["type"] == "push":
                self.pushes.put_nowait(message["push"])
            else:
                self._answers[message["id"]].set_result(message["response"])

    def binding(self):
        """REQ-052: what access proofs on this connection are bound to."""
        return self._quic.tls.export(EXPORTER_LABEL, 32)

    def tls(self):
        return self._quic.tls

    def new_tokens(self):
        return self._quic.new_tokens

    def open_stream(self):
        stream = self._quic.get_next_available_stream_id()
        self._streams[stream] = Stream()
        return stream

    def send(self, stream, data, end=False):
        self._quic.send_stream_data(stream, data, end)
        self.transmit()

    async def next_frame(self, stream):
        """The next frame's body, None at the end of the stream, or Closed."""
        frame = asyncio.ensure_future(self._streams[stream].frames.get())
        return await self._or_closed(frame)

    async def _or_closed(self, awaited):
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({awaited, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if awaited.done():
            return awaited.result()
        awaited.cancel()
        raise Closed(self.closed.result())

    def _encode(self, request):
        number = next(self._ids)
        body = ClientToRelay.encode({"id": number, "request": request})
        return number, len(body).to_bytes(4, "big") + body

    @staticmethod
    def _answer(number, frame):
        message = RelayToClient.decode(frame)
        if message["type"] != "response" or message["id"] != number:
            raise ValueError(f"not the answer to {number}: {message}")
        return _unless_refused(message["response"])

    async def ask(self, kind, **fields):
        """One request on a unary stream, and its one answer."""
        number, frame = self._encode({"type": kind, **fields})
        stream = self.open_stream()
        self.send(stream, frame, end=True)
        answer = await self.next_frame(stream)
        if answer is None or await self.next_frame(stream) is not None:
            raise ValueError("a unary stream with none or more than one answer")
        return self._answer(number, answer)

    async def submit(self, kind, **fields):
        """CreateGroup or Submit on the submit stream, answered in order."""
        if self._submit is None:
            self._submit = self.open_stream()
        number, frame = self._encode({"type": kind, **fields})
        self.send(self._submit, frame)
        return self._answer(number, await self.next_frame(self._submit))

    async def live(self, kind, **fields):
        """Hello or Subscribe on the live stream; pushes go to `pushes`."""
        if self._live is None:
            self._live = self.open_stream()
        number, frame = self._encode({"type": kind, **fields})
        self._answers[number] = asyncio.get_running_loop().create_future()
        self.send(self._live, frame)
        return _unless_refused(await self._or_closed(self._answers[number]))

    async def push(self):
        return await self._or_closed(asyncio.ensure_future(self.pushes.get()))

    async def close_code(self):
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self.closed)

    async def finish(self):
        """Closes with NORMAL and waits until the socket is gone."""
        self.close(error_code=0)
        self._transport.close()


def _unless_refused(response):
    if response["type"] == "refused":
        raise Refusal({name: value for name, value in response.items() if name != "type"})
    return response


_opened = []


async def finish_all():
    """Closes what a conversation opened, so that no relay waits for a peer that is gone."""
    while _opened:
        await _opened.pop().finish()


async def open_connection(address, pin, transport_key, **options):
    """Connects to `(host, port)`; raises Closed where the handshake fails."""
    loop = asyncio.get_running_loop()
    quic = PinnedQuicConnection(pin, transport_key, **options)
    _, connection = await loop.create_datagram_endpoint(lambda: Connection(quic), remote_addr=address)
    _opened.append(connection)
    connection.connect(address)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await connection.wait_connected()
    except ConnectionError as error:
        raise Closed(connection.closed.result()) from error
    return connection
