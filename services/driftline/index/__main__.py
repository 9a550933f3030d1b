"""Run the index service: settings -> adapters -> stage -> run."""

from __future__ import annotations

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber
from driftline.adapters.milvus import MilvusStore
from driftline.adapters.redis import RedisCache
from driftline.adapters.tracer import otel_tracer
from driftline.core import service
from driftline.core.control import ControlFollower, ControlView
from driftline.core.health import Health
from driftline.core.records import VectorRecord
from driftline.core.runner import Runner
from driftline.core.topics import VECTORS
from driftline.index.housekeeping import Housekeeper
from driftline.index.settings import IndexSettings
from driftline.index.stage import IndexStage, decode


def main() -> int:
    return service.main("index", IndexSettings, run, otel_tracer)


def run(settings: IndexSettings) -> int:
    health = Health()
    health.not_ready("assignment", "no partitions assigned yet")
    view = ControlView()
    store = MilvusStore(settings.milvus)
    housekeeper = Housekeeper(view, store, settings.index.tombstone_days)
    view.on_collection(housekeeper.notice)
    follower = ControlFollower(KafkaLogReader(settings.kafka, fetch_wait_ms=500), view)
    cache = RedisCache(settings.redis)
    publisher = KafkaPublisher(settings.kafka)
    # Every secret has been read by now: from here on servers are contacted.
    service.patiently(follower.start, "kafka")
    housekeeper.start()
    subscriber = service.patiently(
        lambda: KafkaSubscriber(settings.kafka, settings.index.group, [VECTORS.name]), "kafka"
    )
    stage = IndexStage(view, store, cache, subscriber.lease_seconds, settings.index)
    runner: Runner[VectorRecord] = Runner(
        service="index", subscriber=subscriber, publisher=publisher, stage=stage, decode=decode,
        settings=settings.runner, health=health, largest_record_bytes=settings.kafka.max_request_bytes,
    )  # fmt: skip
    subscriber.subscribe(runner)
    code = service.run_stage("index", settings.telemetry.metrics_host, settings.telemetry.metrics_port, health, runner)
    subscriber.close()
    publisher.close()
    housekeeper.close()
    follower.close()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
