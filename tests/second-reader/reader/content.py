"""Message content: section 10.5, and as much of CBOR (RFC 8949) as it takes."""


class BadContent(Exception):
    """The content does not decode: BAD_CONTENT."""


def _head(data, at):
    if at >= len(data):
        raise BadContent("truncated")
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if low < 24:
        return major, low, low, at
    if low == 31 and major in (2, 3, 4, 5):
        return major, low, None, at
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(low)
    if size is None or at + size > len(data):
        raise BadContent("truncated, or no item begins like that")
    return major, low, int.from_bytes(data[at : at + size], "big"), at + size


def _string(data, at, major, length, depth):
    if length is None:
        body, (items, at) = b"", _items(data, at, None, depth)
        for item in items:
            if not isinstance(item, bytes if major == 2 else str):
                raise BadContent("a chunk of another kind")
            body += item if major == 2 else item.encode()
    else:
        if at + length > len(data):
            raise BadContent("truncated")
        body, at = data[at : at + length], at + length
    try:
        return (body if major == 2 else body.decode()), at
    except UnicodeDecodeError as error:
        raise BadContent("text that is not UTF-8") from error


def _items(data, at, count, depth):
    items = []
    while len(items) != count:
        if count is None and data[at : at + 1] == b"\xff":
            return items, at + 1
        item, at = _item(data, at, depth + 1)
        items.append(item)
    return items, at


class Other:
    """An item that content has no use for: a float, a tag, a simple value."""


def _item(data, at, depth=0):
    if depth > 16:
        raise BadContent("nested too deeply")
    major, low, value, at = _head(data, at)
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        return _string(data, at, major, value, depth)
    if major in (4, 5):
        items, at = _items(data, at, None if value is None else value * (major - 3), depth)
        if major == 4:
            return items, at
        if len(items) % 2:
            raise BadContent("a key without a value")
        return (Other() if items else {}), at  # this version knows no extension
    if major == 6:
        return Other(), _item(data, at, depth + 1)[1]
    return {20: False, 21: True, 22: None}.get(low, Other()), at


def read_content(data):
    """The text, or None for content of a kind that this version does not show (REQ-095)."""
    item, end = _item(data, 0)
    if end != len(data):
        raise BadContent("trailing bytes")
    form = [bytes, None, bytes, None, None, dict, list]
    if not (isinstance(item, list) and len(item) == len(form)):
        return None
    for value, kind in zip(item, form):
        if not (value is None if kind is None else isinstance(value, kind)):
            return None
    salt, part = item[0], item[6]
    if len(salt) != 16 or len(part) != 5 or part[:4] != [1, "", 1, "text/plain;charset=utf-8"]:
        return None
    if not isinstance(part[4], bytes):
        return None
    try:
        return part[4].decode()
    except UnicodeDecodeError as error:
        raise BadContent("text that is not UTF-8") from error


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
