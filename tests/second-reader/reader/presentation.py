"""TLS presentation language (RFC 8446, section 3) with the vectors of RFC 9420, section 2.1.2: section 2 of the spec.

A structure is a value of one of the classes below. Decoded values are plain: `int`, `bytes`, `str` for the name of an
enum value, `list`, and `dict` by the spec's field names. `decode` refuses whatever REQ-003 names.
"""


class Malformed(Exception):
    """The bytes are not the canonical encoding of a value. `reason` is one word for why."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Cursor:
    """A position in bytes that were received."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        if count > self.left():
            raise Malformed("truncated", f"{count} bytes wanted, {self.left()} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def length(self):
        """A variable-size integer of 1, 2 or 4 bytes, in the fewest that hold it."""
        first = self.number(1)
        size = {0: 1, 1: 2, 2: 4}.get(first >> 6)
        if size is None:
            raise Malformed("length_form", "prefix 0b11")
        value = int.from_bytes(bytes([first & 0x3F]) + self.take(size - 1), "big")
        if encode_length(value)[0] >> 6 != first >> 6:
            raise Malformed("length_form", "not the fewest bytes")
        return value


def encode_length(value):
    for size, prefix in ((1, 0), (2, 1), (4, 2)):
        bits = 8 * size - 2
        if value < 1 << bits:
            return ((prefix << bits) | value).to_bytes(size, "big")
    raise ValueError("longer than a vector can be")


class Type:
    """What every structure can do. `read` takes from a cursor; `decode` takes all of the bytes."""

    def decode(self, data):
        cursor = Cursor(bytes(data))
        value = self.read(cursor)
        if cursor.left():
            raise Malformed("trailing_bytes", f"{cursor.left()} left")
        return value


class Uint(Type):
    def __init__(self, size):
        self.size = size

    def read(self, cursor):
        return cursor.number(self.size)

    def encode(self, value):
        return value.to_bytes(self.size, "big")


class Fixed(Type):
    """`opaque x[size]`."""

    def __init__(self, size):
        self.size = size

    def read(self, cursor):
        return cursor.take(self.size)

    def encode(self, value):
        if len(value) != self.size:
            raise ValueError(f"{len(value)} bytes instead of {self.size}")
        return bytes(value)


class Opaque(Type):
    """`opaque x<V>`, of at most `limit` bytes if one is given."""

    def __init__(self, limit=None):
        self.limit = limit

    def read(self, cursor):
        length = cursor.length()
        if length > cursor.left():
            raise Malformed("truncated", f"{length} bytes announced, {cursor.left()} left")
        if self.limit is not None and length > self.limit:
            raise Malformed("over_limit", f"{length} bytes, at most {self.limit}")
        return cursor.take(length)

    def encode(self, value):
        return encode_length(len(value)) + bytes(value)


class Vector(Type):
    """`T items<V>`: the length is in bytes."""

    def __init__(self, item, limit=None):
        self.item, self.limit = item, limit

    def read(self, cursor):
        inner, items = Cursor(Opaque().read(cursor)), []
        while inner.left():
            if self.limit is not None and len(items) == self.limit:
                raise Malformed("over_limit", f"more than {self.limit} items")
            items.append(self.item.read(inner))
        return items

    def encode(self, value):
        return Opaque().encode(b"".join(map(self.item.encode, value)))


class Enum(Type):
    """A closed enum; decodes to the name of the value."""

    @staticmethod
    def reason(_number):
        """Why a value that has no name is refused."""
        return "unknown_enum"

    def __init__(self, size, **values):
        self.size, self.values = size, values
        self.names = {number: name for name, number in values.items()}

    def read(self, cursor):
        number = cursor.number(self.size)
        if number not in self.names:
            raise Malformed(self.reason(number), hex(number))
        return self.names[number]

    def encode(self, value):
        return self.values[value].to_bytes(self.size, "big")


class Const(Type):
    """`uint8 version = 1`: any other value ends the reading there."""

    def __init__(self, size, value):
        self.size, self.value = size, value

    def read(self, cursor):
        found = cursor.number(self.size)
        if found != self.value:
            raise Malformed("wrong_version", f"{found} instead of {self.value}")
        return found

    def encode(self, value):
        if value != self.value:
            raise ValueError(f"{value} instead of {self.value}")
        return value.to_bytes(self.size, "big")


class Struct(Type):
    def __init__(self, **fields):
        self.fields = fields

    def read(self, cursor):
        return {name: kind.read(cursor) for name, kind in self.fields.items()}

    def encode(self, value):
        return b"".join(kind.encode(value[name]) for name, kind in self.fields.items())


class Select(Type):
    """A struct of a `type` and, beside it, the fields of that type's case."""

    def __init__(self, type_enum, **cases):
        self.type_enum, self.cases = type_enum, cases

    def read(self, cursor):
        name = self.type_enum.read(cursor)
        return {"type": name, **self.cases[name].read(cursor)}

    def encode(self, value):
        return self.type_enum.encode(value["type"]) + self.cases[value["type"]].encode(value)


EMPTY = Struct()
U8, U16, U32, U64 = Uint(1), Uint(2), Uint(4), Uint(8)


def jsonable(value):
    """The form that the vectors' JSON has: bytes as lower-case hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [jsonable(inner) for inner in value]
    return value
