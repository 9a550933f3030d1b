"""Reading what any producer may send.

Header keys are bytes to the broker and to most clients, and strings to kafka-python: one key that is not UTF-8 raises
out of every poll, so that a single record would stop its partition for good. kafka-python offers no hook for it, so
its record reader is extended here, once for the process; the rest of the reading stays its own.

Compressed batches need no code: kafka-python reads gzip, snappy, lz4 and zstd with the libraries of its extras.
"""

from __future__ import annotations

from typing import Any

from kafka.record.default_records import DefaultRecordBatch


class _Forgiving(bytearray):
    """Bytes whose slices decode whatever they hold: what is not UTF-8 becomes `\\xNN`."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Forgiving(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        del errors
        return super().decode(encoding, "backslashreplace")


def read_any_header_keys() -> None:
    """Extend kafka-python's reader of record batches; once is enough."""
    read = DefaultRecordBatch._read_msg
    if getattr(read, "reads_any_header_keys", False):
        return

    def read_msg(batch: Any) -> Any:
        try:
            return read(batch)
        except UnicodeDecodeError:
            # It moves on only after a whole record: this one is read again. So are the rest of its batch, since a
            # batch of such records would otherwise be copied for each of them.
            batch._buffer = _Forgiving(batch._buffer)
            return read(batch)

    read_msg.reads_any_header_keys = True  # type: ignore[attr-defined]
    DefaultRecordBatch._read_msg = read_msg
