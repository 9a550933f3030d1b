"""Random histories through the real service, against the oracle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from driftline.local.stack import Stack
from tests.client import User
from tests.oracle import VERSIONED, Oracle, check, text_of

Change = tuple[str, int, int]
changes = st.lists(
    st.tuples(st.sampled_from([f"d{i}" for i in range(6)]), st.integers(1, 60), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


def send(user: User, collection: str, oracle: Oracle, history: list[Change], producer: int) -> None:
    """Versions made unique per producer; 0 sentences is a delete; every event is sent, some twice."""
    lines = []
    for document_id, version, sentences in history:
        unique = version * 10 + producer
        if sentences:
            body = text_of(document_id, unique, sentences)
            lines.append({"id": document_id, "version": unique, "fields": {"body": body}})
        else:
            lines.append({"id": document_id, "version": unique, "operation": "delete"})
    for part in (lines, lines[::3]):
        if not part:
            continue
        for line, answer in zip(part, user.bulk(collection, part), strict=True):
            assert answer["state"] == "accepted", answer
            sentences = line["fields"]["body"].count(" says ") if "fields" in line else 0  # type: ignore[index]
            oracle.accepted(answer["id"], answer["version"], sentences, answer["token"])


def unique_versions(histories: list[list[Change]]) -> list[list[Change]]:
    """Of several events with one version of a document (in one producer) only the first: the contract of versions."""
    result = []
    for history in histories:
        seen: set[tuple[str, int]] = set()
        result.append([c for c in history if not ((c[0], c[1]) in seen or seen.add((c[0], c[1])))])  # type: ignore[func-returns-value]
    return result


@pytest.mark.brokers
def test_any_history_of_several_producers_ends_as_the_oracle(stack: Stack) -> None:
    user = User(stack)

    @given(st.lists(changes, min_size=2, max_size=3))
    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def run(histories: list[list[Change]]) -> None:
        collection = user.create(**VERSIONED)
        oracle = Oracle()
        with ThreadPoolExecutor(3) as pool:
            jobs = [
                pool.submit(send, User(stack), collection, oracle, history, producer)
                for producer, history in enumerate(unique_versions(histories))
            ]
            for job in jobs:
                job.result()
        check(stack, user, collection, oracle)
        user.ingest.delete(f"/v1/collections/{collection}")

    run()
