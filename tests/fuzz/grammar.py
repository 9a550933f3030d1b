"""Hostile inputs: JSON and texts that are nearly right, messages of any content, and mutations of bytes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Make = Callable[[], str]

# Of each kind of trouble some: what other parsers stumbled over, the ends of every range, what is syntax elsewhere.
_STRANGE = ["\x00", "a\x1fb", "\x7f", "\x85", "\u2028", "\u200b", "\ufeff", "�", "\U0010ffff", "中文", "é", "\u202eabc"]
_WORDS = re.findall(
    r"\S+",
    """
    a a/b ../.. $key $key.a null NaN -1 0 1.0 \u0663.\u0664 1_0 %00 {} [ " \\ ' "or"1"=="1
    2020-01-01 2020-13-45 0001-01-01T00:00:00+23:59 9999-12-31T23:59:59-23:59 2020-W01-1 24:00 2020-01-01T24:00:00Z
""",
)
DATES = ("2020-01-01", "2020-01-01T10:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59")
_LONG = ("9" * 30, "9" * 5_000, "x" * 63, "x" * 64, "x" * 600, "\u00e9" * 300, "y" * 5_000, "z" * 70_000, ". " * 3_000)
_TEXTS = ("", " 1", "x\n", *_STRANGE, *_WORDS, *_LONG, "A sentence. Another one! " * 40)
_PLAIN_TEXTS = ("red shoes", "\u00e4", "A title. Of two sentences.", "x", "\u4e2d\u6587")
_NUMBERS = re.findall(
    r"\S+",
    """
    0 -0 1 -1 1.5 -0.0 1e5 1E400 -1e400 1e308 5e-324 2147483648 9007199254740993 1125899906842624 1125899906842625
    9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775807 18446744073709551615
    18446744073709551616 -18446744073709551616 NaN Infinity -Infinity 01 1. .5 +1 0x10 1e 1_0
""",
)
_TOKENS = (
    *(bytes([byte]) for byte in b'{}[]",:\\\x00\xff\n\t'),
    *(b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"\r\n"),
    *(b"null", b"true", b"NaN", b"1e999", b"-9223372036854775808", b"18446744073709551615"),
    *(b"[" * 65, b"[" * 300, b'{"a":' * 70, b'{"not":' * 20, b"]" * 65),
    *(b"&a ", b"*a ", b"!!x ", b"? ", b"- ", b"|\n"),
    *(b"\x80" * 9 + b"\x01", b"\xff" * 9 + b"\x01"),
)
_DEEP = (3, 16, 17, 60, 63, 64, 65, 254, 400, 1_000, 1_024, 1_100, 5_000)
_INTEGERS = (0, 1, -1, 2, 7, 127, 128, 512, 65_536, 2**31 - 1, -(2**31), 2**50, 2**50 + 1, 2**62, 2**63 - 1, -(2**63))
_SMALL_INTEGERS = tuple(n for n in _INTEGERS if -(2**31) <= n < 2**31)
_FLOATS = (0.0, -0.0, 1.5, -1.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 1e15, 1e16, 3.5e38)


class Grammar:
    """Draws from one generator of random numbers, so that a seed gives the same inputs again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        # One in so many values is not what it should be; 0 for inputs that are right throughout.
        self.strange = 4

    def wild(self) -> bool:
        return self.strange > 0 and self.one_in(self.strange)

    def one_in(self, n: int) -> bool:
        return self.rng.randrange(n) == 0

    def pick(self, *makes: Make) -> str:
        return self.rng.choice(makes)()

    def text(self) -> str:
        """Mostly short; now and then one that is far over a limit."""
        if not self.wild():
            return self.rng.choice(_PLAIN_TEXTS)
        if self.one_in(2):
            return self.rng.choice(_TEXTS)
        return "".join(self.rng.choices("abcXYZ09 _-./:,äß\u4e2d\n\x00\"'\\{}[]", k=self.rng.randrange(12)))

    def string(self, *likely: str) -> str:
        """A JSON string; one of the likely ones, if it is to be right."""
        if likely and not self.wild():
            return json.dumps(self.rng.choice(likely))
        if self.wild() and self.one_in(4):
            return '"' + self.rng.choice(("\\ud800", "\\udc00\\ud800", "\\u0000", "\\x", "\\", "\n", "\x00")) + '"'
        return json.dumps(self.text(), ensure_ascii=self.one_in(2))

    def number(self) -> str:
        return self.rng.choice(_NUMBERS) if self.wild() else str(self.rng.randrange(1, 3_000))

    def deep(self) -> str:
        n = self.rng.choice(_DEEP)
        if self.one_in(2):
            return "[" * n + "]" * n
        key = self.string("a", "not", "and", "fields")
        return f"{{{key}:" * n + "1" + "}" * n

    def json(self, levels: int = 3) -> str:
        """Any JSON, seldom valid in all of it."""
        roll = self.rng.randrange(24)
        if roll < 7 or levels == 0:
            return self.pick(self.string, self.number, lambda: self.rng.choice(("null", "true", "false", "[]", "{}")))
        if roll == 7:
            return self.deep() if self.wild() else "[[1]]"
        if roll < 12:
            return self.string()
        if roll < 18:
            return self.list(lambda: self.json(levels - 1))
        return self.object({}, lambda: self.json(levels - 1))

    def list(self, make: Make, most: int = 4, least: int = 0) -> str:
        if self.wild() and self.one_in(40) and len(one := make()) < 40:
            return "[" + ",".join([one] * self.rng.choice((257, 1_024, 1_025, 5_000))) + "]"
        return "[" + ",".join(make() for _ in range(self.rng.randrange(least, most + 1))) + "]"

    def object(self, members: Mapping[str, Make], extra: Make | None = None) -> str:
        """The members; if it is not to be right, without some, with others, or with anything in one's place."""
        parts = [
            f"{json.dumps(name)}:{self.json() if self.wild() and self.one_in(3) else make()}"
            for name, make in members.items()
            if not (self.wild() and self.one_in(3))
        ]
        if extra is not None or (self.wild() and self.one_in(5)):
            parts += [f"{self.string()}:{(extra or self.json)()}" for _ in range(self.rng.randrange(4))]
            self.rng.shuffle(parts)
        return "{" + ",".join(parts) + "}"

    def message(self, message: Message, levels: int = 3) -> Message:
        """Fill a message with anything its fields may hold; required of us is only that nothing breaks by it."""
        for descriptor in message.DESCRIPTOR.fields:
            if self.wild() and self.one_in(2):
                continue
            if descriptor.is_repeated:
                count = self.rng.choice((0, 1, 1, 2, 3)) if not (self.wild() and self.one_in(100)) else 1_100
                self._repeat(message, descriptor, count, levels)
            elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
                if levels and (descriptor.containing_oneof is None or self.one_in(2)):
                    self.message(getattr(message, descriptor.name), levels - 1)
                    getattr(message, descriptor.name).SetInParent()
            else:
                setattr(message, descriptor.name, self._scalar(descriptor))
        return message

    def _repeat(self, message: Message, descriptor: Any, count: int, levels: int) -> None:
        target = getattr(message, descriptor.name)
        for _ in range(count):
            if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
                self.message(target.add(), levels - 1)
            else:
                target.append(self._scalar(descriptor))

    def _scalar(self, descriptor: Any) -> Any:
        wild = self.wild()
        match descriptor.type:
            case FieldDescriptor.TYPE_STRING:
                likely = {"definition_json": self.json, "state_json": self.json, "filter_json": self.json}
                return likely.get(descriptor.name, self.text)()
            case FieldDescriptor.TYPE_BYTES:
                if descriptor.name == "fields_json":
                    return self.json().encode()
                return self.rng.randbytes(self.rng.choice((0, 1, 4, 8, 32, 300)))
            case FieldDescriptor.TYPE_BOOL:
                return self.one_in(2)
            case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
                return self.rng.choice(_FLOATS) if wild else 1.5
            case FieldDescriptor.TYPE_ENUM:
                return self.rng.choice((0, 3, 99, -1)) if wild else self.rng.choice((1, 2))
            case FieldDescriptor.TYPE_INT32:
                return self.rng.choice(_SMALL_INTEGERS) if wild else self.rng.randrange(1, 4)
            case FieldDescriptor.TYPE_INT64:
                return self.rng.choice(_INTEGERS) if wild else self.rng.randrange(1, 4)
        raise AssertionError(f"a new kind of field: {descriptor.full_name}")


def mutate(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """The bytes with some places cut, doubled, flipped, or filled with what parsers stumble over."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((0, 1, 1, 2, 4, 16, 64)))
        match rng.randrange(7):
            case 0:
                del data[at:to]
            case 1:
                data[at:at] = data[at:to] * rng.choice((1, 1, 2, 40))
            case 2:
                data[at:to] = rng.choice(_TOKENS)
            case 3:
                data[at:at] = rng.choice(_TOKENS)
            case 4 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 5 if others:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                data[at:to] = other[start : start + rng.choice((1, 4, 16, 64, 1_000))]
            case _:
                del data[at:]
    return bytes(data[:300_000])
