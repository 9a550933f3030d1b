"""What fuzzing found, and that it would find again: `make fuzz` prints its findings as lines for `CASES`."""

from __future__ import annotations

import random

import pytest

from driftline.core import jsons
from driftline.retrieval import chunking, filters
from tests.fuzz.attempts import attempt
from tests.fuzz.targets import BY_NAME, check

CASES: tuple[tuple[str, bytes], ...] = (
    # Before the depth of JSON was bounded: RecursionError in repr, in pydantic and in orjson.dumps.
    ("put", b'{"fields":{"title":' + b"[" * 1_000 + b"]" * 1_000 + b"}}"),
    ("bulk", b'{"id":"a","fields":{"kind":' + b'{"a":' * 1_000 + b"1" + b"}" * 1_000 + b"}}"),
    ("filter", b'{"field":"kind","eq":' + b"[" * 1_000 + b"]" * 1_000 + b"}"),
    ("search", b'{"text":"a","cursor":"YQ","filter":{"a":' + b"[" * 400 + b"]" * 400 + b"}}"),
    ("source", b"\nk1\n" + b'{"title":' + b"[" * 1_000 + b"]" * 1_000 + b"}"),
    ("source", b"###\n{}\n" + b'{"op":' + b"[" * 1_000 + b"]" * 1_000 + b"}"),
    # Names and places of any length came back in the answer, once for each line of a bulk request.
    ("ingest-rpc", b"\n\xf0\x2e" + b". " * 3_000),
    ("put", b'{"fields":{"' + b"x" * 5_000 + b'":1}}'),
    ("definition", b'{"' + b"x" * 5_000 + b'":1}'),
    # Not exceptions of the parser, and not caught.
    ("judged", b"[1]\n\nquery-id\tcorpus-id\tscore\nq\td\t1"),
    ("judged", b'{"_id":"q","text":"a"}\n\nquery-id\tcorpus-id\tscore\nq\td'),
    ("settings", b"kafka: !!bool q"),
    ("sources-file", b"[" * 1_000),
    ("sources-file", b"sources: 2020-13-45"),
    ("compensation", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"),
    ("parquet", b"PAR1"),
)


@pytest.mark.parametrize("target, content", CASES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(CASES)])
def test_what_was_found_once_ends_as_documented(target: str, content: bytes) -> None:
    check(target, content)


@pytest.mark.parametrize("name", BY_NAME)
def test_some_inputs_of_every_target_end_as_documented_and_some_are_taken(name: str) -> None:
    tried = attempt(BY_NAME[name], random.Random(f"unit/{name}"), 120)
    assert [finding.told() for finding in tried.findings.values()] == []
    assert tried.taken


PLANTED = {
    "json": (jsons, "check_depth", lambda content, where: None),
    "filter": (filters, "check_value", lambda kind, value, *where: value),
    "chunker": (chunking, "MAX_CHUNK_BYTES", 66_000),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_and_reduced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLANTED[name])
    tried = attempt(BY_NAME[name], random.Random(f"planted/{name}"), 3_000)
    assert tried.findings
    finding = next(iter(tried.findings.values()))
    with pytest.raises(type(finding.error)):
        check(finding.target, finding.content)
    assert f'("{name}", b' in finding.told()


def test_the_same_seed_tries_the_same_inputs() -> None:
    first, second = (attempt(BY_NAME["search"], random.Random("same"), 300) for _ in range(2))
    assert (first.ends, first.taken) == (second.ends, second.taken)
