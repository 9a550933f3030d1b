"""Files, and the texts of documents."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable

import orjson

from driftline.cli.evaluate import read_qrels, read_queries
from driftline.cli.files import FileError
from driftline.cli.files import read as read_file
from driftline.core.errors import ConfigError, InvalidRecord
from driftline.core.indexes import Chunking
from driftline.core.settings import load
from driftline.ingest.settings import IngestSettings
from driftline.ingest.sources import read_sources
from driftline.train.pairs import PairError, read_pairs
from tests.fuzz.documents import chunks, utf8
from tests.fuzz.grammar import Grammar, Make
from tests.fuzz.target import Target
from tests.fuzz.world import world


def make_text(g: Grammar) -> bytes:
    pieces = [g.text() for _ in range(g.rng.randrange(12))]
    return bytes([g.rng.randrange(256), g.rng.randrange(256)]) + utf8(g.rng.choice((". ", " ", "\n\n")).join(pieces))


def _rows(g: Grammar, make: Callable[[Grammar], str]) -> bytes:
    return utf8("\n".join(make(g) for _ in range(g.rng.randrange(5))))


def make_jsonl(g: Grammar) -> bytes:
    members: dict[str, Make] = {"_id": lambda: g.string("a"), "id": g.number, "title": g.string, "fields": g.json}
    return _rows(g, lambda g: g.object(members))


def make_csv(g: Grammar) -> bytes:
    def cell() -> str:
        return g.rng.choice(("a", "", '"x"', '"a""b"', '"a\nb"', "\r", g.text()))

    rows = [",".join(cell() for _ in range(g.rng.choice((2, 3, 3, 4)))) for _ in range(g.rng.randrange(5))]
    return utf8(g.rng.choice(("\n", "\r\n")).join(["id,title,kind" if not g.wild() else cell(), *rows]))


_PARQUETS: list[bytes] = []


def make_parquet(g: Grammar) -> bytes:
    if not _PARQUETS:
        import pyarrow
        from pyarrow.parquet import write_table

        for column in (["a", "b"], [1, None], [b"\xff", b""], [[1], [2]], [1.5, float("nan")], [True, False]):
            file = io.BytesIO()
            write_table(pyarrow.table({"id": column, "title": ["x", "y"]}), file)
            _PARQUETS.append(file.getvalue())
    return g.rng.choice(_PARQUETS)


def make_judged(g: Grammar) -> bytes:
    queries = _rows(g, lambda g: g.object({"_id": lambda: g.string("q"), "text": g.string}))
    rows = ["\t".join(("q", "d", g.text() if g.wild() else "1")) for _ in range(3)]
    return queries + b"\n\n" + utf8("\n".join(["query-id\tcorpus-id\tscore" if not g.wild() else g.text(), *rows]))


def make_pairs(g: Grammar) -> bytes:
    members: dict[str, Make] = {"query": g.string, "document": g.string, "negatives": lambda: g.list(g.string)}
    return _rows(g, lambda g: g.object(members))


def _yaml_value(g: Grammar) -> str:
    return g.rng.choice(
        ("1", "x", "null", "2020-13-45", "0b_", "1:99", "~", "[a, {b: c}]", "*a", "&a b", "!!bool q", g.json(2))
    )


def make_sources_file(g: Grammar) -> bytes:
    members: dict[str, Make] = {
        "topic": lambda: g.string("t"),
        "collection": lambda: g.string("things"),
        "format": lambda: g.string("json", "debezium"),
        "id": lambda: g.string("$key"),
        "fields": lambda: "{}",
    }
    if g.one_in(3):
        return utf8(f"sources:\n- topic: {_yaml_value(g)}\n  collection: {_yaml_value(g)}\n")
    return utf8(f'{{"sources": {g.list(lambda: g.object(members))}}}')


def make_settings_file(g: Grammar) -> bytes:
    lines = ["auth: {mode: 'off'}"]
    for section, name in (("kafka", "partitions"), ("http", "port"), ("milvus", "prefix"), ("ingest", "bulk_lines")):
        if g.one_in(2):
            lines.append(f"{section}:\n  {name}: {_yaml_value(g)}")
    if g.one_in(4):
        lines.append(f"{_yaml_value(g)}: {_yaml_value(g)}")
    return utf8("\n".join(lines))


def run_chunker(content: bytes) -> str:
    size, overlap, *text = content + b"\x00\x00"
    chunking = Chunking(mode="sentences", max_tokens=16 + size, overlap_tokens=min(overlap, (16 + size) // 2))
    chunks(bytes(text).decode("utf-8", "replace"), chunking)
    return "cut"


def run_lines(suffix: str, id_field: str | None) -> Callable[[bytes], str]:
    def run(content: bytes) -> str:
        for line in read_file(str(world().file(f"input{suffix}", content)), id_field):
            orjson.dumps(line.body)
        return "read"

    return run


def run_judged(content: bytes) -> str:
    queries, _, qrels = content.partition(b"\n\n")
    world().file("queries.jsonl", queries)
    world().file("qrels/test.tsv", qrels)
    texts = read_queries(world().folder)
    read_qrels(world().folder, "test")
    return f"read {len(texts)}"


def run_pairs(content: bytes) -> str:
    return f"read {len(read_pairs(world().file('pairs.jsonl', content)))}"


def run_sources_file(content: bytes) -> str:
    try:
        return f"read {len(read_sources(world().file('sources.yaml', content)))}"
    except UnicodeDecodeError:
        return "no text"


def run_settings(content: bytes) -> str:
    os.environ["DRIFTLINE_CONFIG"] = str(world().file("settings.yaml", content))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            load(IngestSettings).model_dump()
    finally:
        del os.environ["DRIFTLINE_CONFIG"]
    return "read"


TARGETS = (
    Target("chunker", 20, make_text, run_chunker, (InvalidRecord,)),
    Target("jsonl", 20, make_jsonl, run_lines(".jsonl", None), (FileError,)),
    Target("csv", 20, make_csv, run_lines(".csv", None), (FileError,)),
    Target("parquet", 3, make_parquet, run_lines(".parquet", None), (FileError,)),
    Target("judged", 15, make_judged, run_judged, (FileError,)),
    Target("pairs", 15, make_pairs, run_pairs, (PairError,)),
    Target("sources-file", 10, make_sources_file, run_sources_file, (ConfigError,)),
    Target("settings", 6, make_settings_file, run_settings, (ConfigError, SystemExit)),
)
