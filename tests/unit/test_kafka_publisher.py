"""The publisher and a broker that says nothing any more: the producer of kafka-python, talking to nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer

from driftline.adapters import kafka as adapter
from driftline.adapters.kafka import KafkaPublisher
from driftline.core.errors import Unavailable
from driftline.core.records import Outgoing
from driftline.core.settings import KafkaSettings


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Producers as the publisher makes them, that wait for no broker at their start and hold their records at once."""
    producers: list[Any] = []

    def patient(**config: Any) -> Any:
        producer = KafkaProducer(**config, api_version=(2, 8), max_block_ms=200)
        producer._wait_on_metadata = lambda *_: {0}
        producer._partition = lambda topic, partition, *_: partition
        producers.append(producer)
        return producer

    monkeypatch.setattr(adapter, "KafkaProducer", patient)
    return producers


@pytest.mark.parametrize("how", ["discarded", "closed"])
def test_a_producer_with_unsent_records_is_ended_and_sends_them_never(silent: int, made: list[Any], how: str) -> None:
    publisher = KafkaPublisher(KafkaSettings(bootstrap_servers=f"127.0.0.1:{silent}"))
    if how == "discarded":
        with pytest.raises(Unavailable):
            publisher.publish([Outgoing("t", b"k", b"v", 0)], timeout_seconds=0.3)
    else:
        publisher._current().send("driftline.t", value=b"v", partition=0)
        publisher.close()
    (producer,) = made
    deadline = time.monotonic() + 5
    while producer._sender.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not producer._sender.is_alive()
    assert not producer._accumulator.has_incomplete


def test_a_broker_that_was_away_is_tried_again_soon_after_it_is_back() -> None:
    """By default a client that failed for nine seconds waits twenty-four more: an outage lasts that much longer."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    publisher = KafkaPublisher(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}"))
    publisher._config["bootstrap_timeout_ms"] = 13_000

    def publish() -> None:
        with pytest.raises(Unavailable):
            publisher.publish([Outgoing("t", b"k", b"v", 0)], 1)

    publishing = threading.Thread(target=publish)
    publishing.start()
    time.sleep(9)
    with socket.create_server(("127.0.0.1", port)) as back:
        back.settimeout(12)
        taken, _ = back.accept()
        taken.close()
    publishing.join()
