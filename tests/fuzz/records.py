"""Records: of users' topics and of the pipeline's own."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np

from driftline.adapters.memory import MemoryEmbedder
from driftline.core import codec, control_codec
from driftline.core.control import ControlView, collection_record
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.logs import TRACE_HEADER, traceparent_of
from driftline.core.records import Incoming, UpgradeRecord
from driftline.core.stage import Refused
from driftline.core.tracing import span
from driftline.drift import stored
from driftline.drift.calibration import Calibration
from driftline.encode.stage import decode as decode_change
from driftline.ingest.accept import outgoing
from driftline.upgrade.state import read_state
from driftline.wire.v1 import control_pb2, records_pb2
from tests.build import a_change, a_vector_record
from tests.fuzz.api import a_definition
from tests.fuzz.documents import fields, follow, message_of, utf8, values
from tests.fuzz.grammar import Grammar, Make
from tests.fuzz.target import Target, check_told
from tests.fuzz.world import SOURCES, world


def make_source(g: Grammar) -> bytes:
    """A line whose length picks the source, a line with the key, and the value."""
    row: dict[str, Make] = {
        **values(g),
        "pk": lambda: g.string("7") if g.one_in(2) else g.number(),
        "rev": g.number,
        "name": g.string,
        "who": lambda: g.object({"name": lambda: g.string("t")}),
        "t": lambda: g.object({"u": g.string}),
        "y": g.number,
        "e": g.json,
    }
    which = g.rng.randrange(4)
    if which == 0:
        value = g.object(values(g))
    elif which < 3:
        value = g.object(row)
    else:
        envelope: dict[str, Make] = {
            "op": lambda: g.string("c", "u", "r", "d"),
            "before": lambda: g.object(row),
            "after": lambda: g.object(row),
        }
        value = g.object(envelope)
        value = value if g.one_in(2) else f'{{"schema":{g.json()},"payload":{value}}}'
    key = "k1" if which == 0 and g.one_in(2) else g.object({"pk": lambda: g.string("7")})
    return b"#" * which + b"\n" + utf8(key).replace(b"\n", b" ") + b"\n" + (b"" if g.one_in(12) else utf8(value))


def make_change(g: Grammar) -> bytes:
    event = replace(a_change("a"), fields_json=utf8(g.json() if g.one_in(5) else fields(g)))
    if g.one_in(2):
        event = replace(event, id=_valid(g), tenant=_valid(g), version=abs(g.rng.choice((0, 1, 2**50, 2**63 - 1))))
    return codec.encode_change(event)


def make_vector(g: Grammar) -> bytes:
    record = a_vector_record("a", chunks=g.rng.choice((1, 1, 2, 5)), version=g.rng.choice((1, 2, 2**50, 2**63 - 1)))
    if g.one_in(3):
        record = replace(record, fields_json=utf8(fields(g)), id=_valid(g) or "a", chunks=(_valid(g),))
    if g.one_in(3):
        named = record.vectors[0]
        values = (named.values * np.float32(g.rng.choice((1, 0, 1e30, float("inf"))))).astype(np.float32)
        record = replace(record, vectors=(replace(named, values=values, generation=g.rng.choice((1, 1, 2, 99))),))
    return codec.encode_vector(record)


def _valid(g: Grammar) -> str:
    return g.text().encode("utf-8", "replace").decode()


def make_control(g: Grammar) -> bytes:
    """Any control record, or one of a collection that is right but for its definition."""
    if g.one_in(2):
        return message_of(control_pb2.ControlRecord)(g)
    message = control_pb2.ControlRecord.FromString(collection_record(world().things).value or b"")
    if g.one_in(2):
        message.collection.definition_json = a_definition(g).encode("utf-8", "replace").decode()
    return message.SerializeToString()


def make_state(g: Grammar) -> bytes:
    names = ("id", "collection", "collection_uid", "encoder", "new_space", "store", "reason", "compensation")
    members: dict[str, Make] = {
        **dict.fromkeys(names, g.string),
        "phase": lambda: g.string("serving", "finished"),
        "old": g.number,
        "new": g.number,
        "margin": g.number,
        "pairs": g.number,
        "fit": lambda: g.object({}, g.json),
        "curve": lambda: g.list(g.json),
        "progress": lambda: g.object({"total": g.number}),
    }
    return utf8(g.object(members))


_COMPENSATIONS: list[bytes] = []


def make_compensation(g: Grammar) -> bytes:
    if not _COMPENSATIONS:
        rng = np.random.default_rng(0)
        arrays = {
            "centre": rng.normal(size=4),
            "matrix": rng.normal(size=(4, 3)),
            "offset": rng.normal(size=3),
            "drift": rng.normal(size=4),
        }
        for kind, (new, old) in {
            "identity": (4, 4),
            "mean_drift": (4, 4),
            "procrustes": (4, 3),
            "ridge": (4, 3),
        }.items():
            built = stored.KINDS[kind].build({n: a.astype(np.float32) for n, a in arrays.items()}, new, old)
            calibration = Calibration((0.0, 0.5), (0.1, 0.9))
            _COMPENSATIONS.append(stored.Compensation(built, "new", "old", calibration, 0.5).to_bytes())
    content = g.rng.choice(_COMPENSATIONS)
    if g.one_in(2):
        size = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["driftline"])
        about[g.rng.choice(tuple(about))] = "@"
        text = json.dumps({"__metadata__": {"driftline": json.dumps(about).replace('"@"', g.json())}})
        header = utf8(text)
        content = len(header).to_bytes(8, "little") + header + content[8 + size :]
    return content


def run_source(content: bytes) -> str:
    number, _, rest = content.partition(b"\n")
    key, _, value = rest.partition(b"\n")
    source = SOURCES[len(number) % len(SOURCES)]
    record = Incoming(source.topic, 0, 5, key, value or None)
    stage = world().sources[len(number) % len(SOURCES)]
    (result,) = stage.process([stage.decode(record)]).results
    if isinstance(result, Refused):
        raise result.error
    follow(result[0].value or b"")
    return f"accepted {source.topic}"


def run_change(content: bytes) -> str:
    event = codec.decode_change(content)
    assert codec.decode_change(codec.encode_change(event)) == event
    outgoing(event)
    change = decode_change(Incoming("changes", 0, 7, b"", content))
    (result,) = world().encode.process([change]).results
    instead = result.instead if isinstance(result, Refused) else result
    for record in instead:
        codec.decode_vector(record.value)
    if isinstance(result, Refused):
        check_told(result.error)
        return result.error.reason
    return "embedded"


def run_vector(content: bytes) -> str:
    record = codec.decode_vector(content)
    codec.decode_vector(codec.encode_vector(record))
    processed = world().index.process([record])
    for outgoing_ in processed.settle() if processed.settle else ():
        codec.decode_receipts(outgoing_.value)
    (result,) = processed.results
    if isinstance(result, Refused):
        check_told(result.error)
        return result.error.reason
    return f"taken {len(result)}"


def run_receipts(content: bytes) -> str:
    receipts = codec.decode_receipts(content)
    assert codec.decode_receipts(codec.encode_receipts(receipts)) == receipts
    return "decoded"


def run_dead_letter(content: bytes) -> str:
    letter = codec.decode_dead_letter(content)
    assert codec.decode_dead_letter(codec.encode_dead_letter(letter)) == letter
    return "decoded"


def run_query(content: bytes) -> str:
    query = codec.decode_query(content)
    assert codec.decode_query(codec.encode_query(query)) == query
    return "decoded"


def run_control(content: bytes) -> str:
    """A control record never raises, and what it leaves in the view can be used."""
    view = ControlView()
    view.apply(content)
    view.forget(content)
    for collection in view.collections():
        for index in collection.indexes:
            for leg in index.routes:
                index.generation(leg.generation)
            collection.target(index.newest, MemoryEmbedder(8).space), index.complete
        assert collection.unused_number
        again = ControlView()
        again.apply(collection_record(collection).value)
        assert again.collections() == [collection]
    for upgrade in view.upgrades():
        run_state(upgrade.state_json.encode())
    with contextlib.suppress(InvalidRecord):
        return type(control_codec.decode_control(content)).__name__
    return "left out"


def run_state(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "no text"
    try:
        read_state(UpgradeRecord("things", "u1", text)).record()
    except ValueError:
        return "refused"
    return "accepted"


def run_compensation(content: bytes) -> str:
    found = stored.read(content)
    mapped = found.compensator.apply(np.ones((2, found.compensator.new_dimension), dtype=np.float32))
    assert mapped.shape == (2, found.compensator.old_dimension)
    found.calibration.apply([0.0, 0.5])
    return found.compensator.kind


def make_trace(g: Grammar) -> bytes:
    parts = (f"{g.rng.randrange(16**n):0{n}x}" if not g.wild() else g.text() for n in (2, 32, 16, 2))
    return utf8("-".join(parts))


def run_trace(content: bytes) -> str:
    trace = traceparent_of(((TRACE_HEADER, content),))
    with span("fuzz", trace):
        outgoing(a_change())
    return "followed"


_RECORD = (InvalidRecord,)
TARGETS = (
    Target("source", 80, make_source, run_source, _RECORD),
    Target("change", 50, make_change, run_change, _RECORD),
    # Unavailable: vectors of a generation that the view has not heard of yet.
    Target("vector", 50, make_vector, run_vector, (*_RECORD, Unavailable)),
    Target("receipts", 30, message_of(records_pb2.ReceiptBatch), run_receipts, _RECORD),
    Target("dead-letter", 20, message_of(records_pb2.DeadLetter), run_dead_letter, _RECORD),
    Target("query", 20, message_of(records_pb2.SearchedQuery), run_query, _RECORD),
    Target("control", 60, make_control, run_control, ()),
    Target("state", 20, make_state, run_state, ()),
    Target("compensation", 20, make_compensation, run_compensation, (stored.CompensationError,)),
    Target("trace", 10, make_trace, run_trace, ()),
)
