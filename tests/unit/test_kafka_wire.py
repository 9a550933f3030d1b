"""Batches as any producer may write them, read by kafka-python as the adapter extends it. No broker is needed."""

from __future__ import annotations

from typing import Any

import pytest
import zstandard
from kafka import codec
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from driftline.adapters.kafka_wire import read_any_header_keys

COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class RawKey(str):
    """A header key that is sent as Latin-1, which kafka-python's own producer would not do."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode("latin-1")


def a_batch(compression: int, *records: tuple[bytes, list[tuple[str, bytes]]]) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=compression, is_transactional=False, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=10_000_000,
    )  # fmt: skip
    for offset, (value, headers) in enumerate(records):
        assert builder.append(offset, 0, b"key", value, headers) is not None
    return bytes(builder.build())


@pytest.mark.parametrize("compression", list(COMPRESSIONS.values()), ids=list(COMPRESSIONS))
def test_every_compression_and_any_header_key_is_read(compression: int) -> None:
    read_any_header_keys()
    batch = a_batch(
        compression,
        (b"1", [("plain", b"a")]),
        (b"2", [(RawKey("caf\xe9"), b"b"), ("naïve", b"c")]),
        (b"3" * 1_000, [(RawKey("\xff\xfe"), b"")]),
        (b"4", [("last", b"d")]),
    )
    read: list[Any] = list(DefaultRecordBatch(batch))
    assert [record.value for record in read] == [b"1", b"2", b"3" * 1_000, b"4"]
    assert [record.headers for record in read] == [
        [("plain", b"a")],
        [("caf\\xe9", b"b"), ("naïve", b"c")],
        [("\\xff\\xfe", b"")],
        [("last", b"d")],
    ]


def test_zstd_frames_that_do_not_tell_their_size_are_read_whole() -> None:
    """Java's producer streams: its frames tell no size, and a batch may grow far beyond 1 MiB."""
    plain = b"the same words " * 200_000
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    assert codec.zstd_decode(compressor.compress(plain) + compressor.flush()) == plain
