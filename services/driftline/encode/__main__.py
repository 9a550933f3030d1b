"""Run the encode service: settings -> adapters -> stage -> run."""

from __future__ import annotations

import threading

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber
from driftline.adapters.redis import RedisCache
from driftline.adapters.tracer import otel_tracer
from driftline.adapters.triton import TritonEmbedder
from driftline.core import service
from driftline.core.control import ControlFollower, ControlView
from driftline.core.health import Health
from driftline.core.records import Priority
from driftline.core.runner import Runner
from driftline.core.settings import load
from driftline.core.topics import BACKFILL, CHANGES
from driftline.encode.lane import YieldingStage
from driftline.encode.settings import EncodeSettings
from driftline.encode.stage import Change, EncodeStage, decode


def main() -> int:
    settings = load(EncodeSettings)
    service.begin("encode", settings, otel_tracer)
    health = Health()
    health.not_ready("assignment", "no partitions assigned yet")
    view = ControlView()
    follower = ControlFollower(KafkaLogReader(settings.kafka, fetch_wait_ms=500), view)
    service.patiently(follower.start, "kafka", threading.Event())
    cache = RedisCache(settings.redis)
    stage = EncodeStage(view, TritonEmbedder(settings.triton), cache, settings.encode)
    publisher = KafkaPublisher(settings.kafka)
    subscriber = KafkaSubscriber(settings.kafka, settings.encode.group, [CHANGES.name])
    runner: Runner[Change] = Runner(
        service="encode", subscriber=subscriber, publisher=publisher, stage=stage, decode=decode,
        settings=settings.runner, health=health, process_workers=settings.runner.max_in_flight,
    )  # fmt: skip
    subscriber.subscribe(runner)
    lane_subscriber = KafkaSubscriber(settings.kafka, settings.encode.backfill_group, [BACKFILL.name])
    # An embedder of its own: the other one's requests in flight are for changes.
    background = EncodeStage(view, TritonEmbedder(settings.triton), cache, settings.encode, Priority.BACKGROUND)
    lane: Runner[Change] = Runner(
        service="encode", subscriber=lane_subscriber, publisher=publisher,
        stage=YieldingStage(background, runner.busy, settings.encode.backfill_patience_seconds), decode=decode,
        settings=settings.backfill, health=health, process_workers=settings.backfill.max_in_flight,
    )  # fmt: skip
    lane_subscriber.subscribe(lane)
    stop_lane = service.run_beside("backfill", lane, lane_subscriber.close)
    code = service.run_stage("encode", settings.telemetry.metrics_host, settings.telemetry.metrics_port, health, runner)
    stop_lane()
    subscriber.close()
    publisher.close()
    follower.close()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
