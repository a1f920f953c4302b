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
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(low)
    if size is None or at + size > len(data):
        raise BadContent("truncated, or of indefinite length")
    return major, low, int.from_bytes(data[at : at + size], "big"), at + size


def _item(data, at, depth=0):
    if depth > 16:
        raise BadContent("nested too deeply")
    major, low, value, at = _head(data, at)
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        if at + value > len(data):
            raise BadContent("truncated")
        body = data[at : at + value]
        try:
            return (body if major == 2 else body.decode()), at + value
        except UnicodeDecodeError as error:
            raise BadContent("text that is not UTF-8") from error
    if major in (4, 5):
        items = []
        for _ in range(value * (major - 3)):
            item, at = _item(data, at, depth + 1)
            items.append(item)
        return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at
    if major == 7 and low in (20, 21, 22):
        return {20: False, 21: True, 22: None}[low], at
    raise BadContent("a kind of item that content does not have")


def read_content(data):
    """`{"salt", "text"}`; the text is None for content of a kind that this version does not show (REQ-095)."""
    item, end = _item(data, 0)
    if end != len(data):
        raise BadContent("trailing bytes")
    if not (isinstance(item, list) and len(item) == 7):
        raise BadContent("not a mimiContent")
    salt, replaces, topic, expires, reply, extensions, part = item
    if not (isinstance(salt, bytes) and len(salt) == 16):
        raise BadContent("salt")
    if not (isinstance(topic, bytes) and isinstance(extensions, dict) and isinstance(part, list)):
        raise BadContent("not a mimiContent")
    plain = replaces is None and expires is None and reply is None and not topic and not extensions
    shown = plain and len(part) == 5 and part[:4] == [1, "", 1, "text/plain;charset=utf-8"]
    if not shown or not isinstance(part[4], bytes):
        return {"salt": salt, "text": None}
    try:
        return {"salt": salt, "text": part[4].decode()}
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
