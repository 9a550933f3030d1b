"""What every decoder does with bytes: read them as a message of protobuf, and hold what it says to its bounds."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from driftline.core.errors import InvalidRecord

_M = TypeVar("_M", bound=Message)
# Of a collection's name and uid, a space's fingerprint, a store: ours are under 100.
LONGEST_NAME = 255
# "kafka:" or "source:" and a topic, which has at most 249 characters.
LONGEST_SOURCE = 300
LARGEST = 2**63 - 1


def parse(kind: type[_M], value: bytes | None) -> _M:
    """Raises InvalidRecord("undecodable")."""
    if value is None:
        raise InvalidRecord("undecodable", f"expected a {kind.__name__}, found a null value")
    message = kind()
    try:
        message.ParseFromString(value)
    except (DecodeError, ValueError) as error:
        raise InvalidRecord("undecodable", f"not a {kind.__name__}: {error}") from error
    return message


def bounded(what: str, text: str | bytes, most: int, least: int = 0) -> None:
    """Raises InvalidRecord("out_of_bounds"); sizes are in bytes."""
    size = len(text if isinstance(text, bytes) else text.encode())
    if not least <= size <= most:
        raise InvalidRecord("out_of_bounds", f"{what}: expected {least} to {most} bytes, found {size}")


def within(what: str, number: int, least: int, most: int) -> None:
    """Raises InvalidRecord("out_of_bounds")."""
    if not least <= number <= most:
        raise InvalidRecord("out_of_bounds", f"{what}: expected {least} to {most}, found {number}")
