"""Message content: section 10.5, and as much of CBOR (RFC 8949) as it takes."""

import math
import struct
from dataclasses import dataclass

MEDIA_TYPES = ("text/plain;charset=utf-8", "text/markdown;variant=GFM-MIMI")
EXTENSION_DEPTH = 4


class BadContent(Exception):
    """Not one CBOR item in the deterministic encoding: BAD_CONTENT (REQ-140)."""


@dataclass
class Map:
    """Entries in the order of their keys' encodings."""

    entries: list


@dataclass
class Tag:
    inner: object


class Other:
    """An item that content has no use for: a float, undefined, a simple value."""


def _head(data, at):
    """Major type, low bits, argument and what follows; in the fewest bytes, and never of indefinite length."""
    if at >= len(data):
        raise BadContent("truncated")
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if low < 24:
        return major, low, low, at
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(low)
    if size is None or at + size > len(data):
        raise BadContent("truncated, or of indefinite length")
    value = int.from_bytes(data[at : at + size], "big")
    least = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[size]
    if major == 7:
        least = 32 if size == 1 else 0  # a simple value; a float
    if value < least:
        raise BadContent("not the shortest form")
    return major, low, value, at + size


def _check_float(low, value):
    """A float must be the shortest that keeps its value; of the NaNs there is one."""
    size, code = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}[low]
    (number,) = struct.unpack(code, value.to_bytes(size, "big"))
    if math.isnan(number):
        if (low, value) != (25, 0x7E00):
            raise BadContent("another NaN")
        return
    for shorter_size, shorter in ((2, ">e"), (4, ">f")):
        if shorter_size >= size:
            break
        try:
            same = struct.unpack(shorter, struct.pack(shorter, number))[0] == number
        except OverflowError:
            same = False
        if same:
            raise BadContent("a float that fits a shorter form")


def _item(data, at, depth=0):
    if depth > 64:
        raise BadContent("nested too deeply")
    major, low, value, at = _head(data, at)
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        body = data[at : at + value]
        if len(body) < value:
            raise BadContent("truncated")
        try:
            return (body if major == 2 else body.decode()), at + value
        except UnicodeDecodeError as error:
            raise BadContent("text that is not UTF-8") from error
    if major == 4:
        items = []
        for _ in range(value):
            item, at = _item(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        return _map(data, at, value, depth)
    if major == 6:
        inner, at = _item(data, at, depth + 1)
        return Tag(inner), at
    if low in (25, 26, 27):
        _check_float(low, value)
    return {20: False, 21: True, 22: None}.get(low, Other()), at


def _map(data, at, count, depth):
    entries, before = [], b""
    for _ in range(count):
        start = at
        key, at = _item(data, at, depth + 1)
        if data[start:at] <= before:
            raise BadContent("keys twice, or in another order")
        before = data[start:at]
        value, at = _item(data, at, depth + 1)
        entries.append((key, value))
    return Map(entries), at


def _is_within(item, depth):
    """Whether arrays, maps and tags lie at most `depth` deep in one another."""
    if isinstance(item, list):
        inner = item
    elif isinstance(item, Map):
        inner = [part for entry in item.entries for part in entry]
    elif isinstance(item, Tag):
        inner = [item.inner]
    else:
        return True
    return depth > 0 and all(_is_within(part, depth - 1) for part in inner)


def _is_name(key):
    if isinstance(key, int) and not isinstance(key, bool):
        return abs(key) < 1 << 53
    return isinstance(key, str) and 1 <= len(key.encode()) <= 255


def _is_bytes(item, length):
    return isinstance(item, bytes) and len(item) == length


def read_content(data):
    """The text, or None for content of a form that this version does not show (REQ-095)."""
    item, end = _item(data, 0)
    if end != len(data):
        raise BadContent("trailing bytes")
    if not (isinstance(item, list) and len(item) == 7):
        return None
    salt, replaces, topic, expires, reply, extensions, part = item
    if replaces is not None or expires is not None:
        return None
    if not (_is_bytes(salt, 16) and isinstance(topic, bytes) and (reply is None or _is_bytes(reply, 32))):
        return None
    if not (isinstance(extensions, Map) and _is_within(extensions, EXTENSION_DEPTH)):
        return None
    if not all(_is_name(key) for key, _ in extensions.entries):
        return None
    return _read_part(part)


def _read_part(part):
    if not (isinstance(part, list) and len(part) == 5):
        return None
    disposition, language, cardinality, media_type, content = part
    if (disposition, cardinality) != (1, 1) or isinstance(disposition, bool) or isinstance(cardinality, bool):
        return None
    if not isinstance(language, str) or media_type not in MEDIA_TYPES or not isinstance(content, bytes):
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _encode(major, value):
    for size, low in ((0, 24), (1, 24), (2, 25), (4, 26), (8, 27)):
        if size == 0 and value < 24:
            return bytes([major << 5 | value])
        if size and value < 1 << 8 * size:
            return bytes([major << 5 | low]) + value.to_bytes(size, "big")
    raise ValueError("too large for CBOR")


def _bytes(value):
    return _encode(2, len(value)) + value


def _text(value):
    return _encode(3, len(value.encode())) + value.encode()


def write_content(salt, text):
    null = b"\xf6"
    part = _encode(4, 5) + _encode(0, 1) + _text("") + _encode(0, 1) + _text("text/plain;charset=utf-8")
    part += _bytes(text.encode())
    return _encode(4, 7) + _bytes(salt) + null + _bytes(b"") + null + null + _encode(5, 0) + part
