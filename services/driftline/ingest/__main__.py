"""Run the ingest service: settings -> adapters -> servers -> run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber, KafkaTopicAdmin
from driftline.adapters.milvus import MilvusStore
from driftline.adapters.tracer import otel_tracer
from driftline.adapters.triton import TritonEmbedder
from driftline.core import service
from driftline.core.breaker import Breaker
from driftline.core.control import ControlFollower, ControlView, ControlWriter
from driftline.core.errors import ConfigError, Unavailable
from driftline.core.health import Health
from driftline.core.provision import ensure_topics, register_changes, register_log
from driftline.core.receipts import ReceiptTail
from driftline.core.runner import Runner
from driftline.core.topics import CHANGES, CONTROL
from driftline.ingest.accept import Acceptor
from driftline.ingest.collections import Collections
from driftline.ingest.loops import SourceLoop
from driftline.ingest.quota import Quotas
from driftline.ingest.rpc import SERVICE, IngestRpc, register
from driftline.ingest.server import create_app
from driftline.ingest.settings import IngestSettings
from driftline.ingest.sources import Source, SourceStage, read_sources, source_log
from driftline.web.auth import Keys
from driftline.web.serve import serve, start_grpc, watch

log = logging.getLogger(__name__)


def main() -> int:
    return service.main("ingest", IngestSettings, run, otel_tracer)


def run(settings: IngestSettings) -> int:
    keys = Keys(settings.auth)
    sources = _sources(settings)
    health = Health()
    publisher = KafkaPublisher(settings.kafka)
    view = ControlView()
    follower = ControlFollower(KafkaLogReader(settings.kafka, fetch_wait_ms=500), view)
    tail = ReceiptTail(KafkaLogReader(settings.kafka))
    view.on_log_made_anew(CHANGES.name, tail.forget)
    store = MilvusStore(settings.milvus)
    # Every secret has been read by now: from here on servers are contacted.
    service.patiently(lambda: _provision(settings, publisher), "kafka")
    service.patiently(follower.start, "kafka")
    service.patiently(tail.start, "kafka")
    quotas = Quotas(settings.ingest.tenant_documents_per_second)
    acceptor = Acceptor(view, publisher, tail, settings.ingest.max_pending, quotas)
    collections = Collections(
        view,
        ControlWriter(publisher, follower),
        TritonEmbedder(settings.triton),
        store,
        settings.milvus.prefix,
        settings.ingest.create_wait_seconds,
    )
    readiness = watch(health, {"kafka": _kafka_check(settings)})
    rpc = IngestRpc(keys, view, acceptor, settings.ingest.max_wait_seconds)
    stop_grpc = start_grpc(settings.http, [(SERVICE, lambda server: register(rpc, server))], health)
    stop_sources = [_start_source(settings, source, view, publisher) for source in sources]
    app = create_app(settings, keys, health, view, acceptor, collections, store)
    serve(app, settings.http, health, stop_grpc)
    for stop in stop_sources:
        stop()
    readiness.close()
    tail.close()
    follower.close()
    publisher.close()
    return 0


def _sources(settings: IngestSettings) -> list[Source]:
    """Raises ConfigError."""
    file = settings.ingest.sources_file
    if file is None:
        return []
    try:
        return read_sources(file)
    except OSError as error:
        raise ConfigError(f"ingest.sources_file {file}: {error.strerror}") from error
    except (ValueError, ConfigError) as error:
        raise ConfigError(" ".join(f"ingest.sources_file: {error}".split())) from error


def _provision(settings: IngestSettings, publisher: KafkaPublisher) -> None:
    """Make the topics that are missing: an ingest that starts first must not wait for a person."""
    admin = KafkaTopicAdmin(settings.kafka)
    reader = KafkaLogReader(settings.kafka)
    try:
        for report in ensure_topics(admin, settings.kafka):
            for problem in report.problems:
                log.error("topic differs", extra={"topic": report.topic, "problem": problem})
        register_changes(admin, reader, publisher)
    finally:
        reader.close()
        admin.close()


def _kafka_check(settings: IngestSettings) -> Callable[[], None]:
    reader = KafkaLogReader(settings.kafka)
    return lambda: _read_ends(reader)


def _read_ends(reader: KafkaLogReader) -> None:
    if not reader.ends(CONTROL.name):
        raise Unavailable("kafka", "the control topic has no partitions")


def _start_source(
    settings: IngestSettings, source: Source, view: ControlView, publisher: KafkaPublisher
) -> Callable[[], bool]:
    """Read a source in the background. Returns what stops it.

    A source has a group and a health of its own: its rebalances and its troubles are no other source's, and ingest is
    ready to take writes whatever becomes of them.
    """
    health = Health(scope=f"source:{source.topic}:")

    def open_() -> tuple[Runner[Any], Callable[[], None]]:
        group = f"{settings.ingest.sources_group}.{source.topic}"
        subscriber = KafkaSubscriber(settings.kafka, group, [source.topic], prefix="")
        stage = SourceStage(source, view)
        window = settings.runner.dead_letter_window
        runner: Runner[Any] = Runner(
            service="ingest",
            subscriber=subscriber,
            publisher=publisher,
            stage=stage,
            decode=stage.decode,
            settings=settings.runner,
            health=health,
            breaker=Breaker(settings.runner.dead_letter_limit, window, any_reason=True, origins=1),
            largest_record_bytes=settings.kafka.max_request_bytes,
        )
        subscriber.subscribe(runner)
        return runner, subscriber.close

    loop = SourceLoop(
        source.topic, lambda: _register_source(settings, source, publisher), open_, settings.ingest.source_pause_seconds
    )
    return service.run_beside(f"source-{source.topic}", loop, settings.runner.drain_seconds)


def _register_source(settings: IngestSettings, source: Source, publisher: KafkaPublisher) -> None:
    admin = KafkaTopicAdmin(settings.kafka.model_copy(update={"topic_prefix": ""}))
    reader = KafkaLogReader(settings.kafka)
    try:
        found = admin.describe(source.topic)
        if found is None:
            raise Unavailable("kafka", f"source topic {source.topic!r} does not exist")
        register_log(source_log(source.topic), found[0], reader, publisher)
    finally:
        reader.close()
        admin.close()


if __name__ == "__main__":
    raise SystemExit(main())
