"""Run the encode service: settings -> adapters -> stage -> run."""

from __future__ import annotations

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber
from driftline.adapters.redis import RedisCache
from driftline.adapters.tracer import otel_tracer
from driftline.adapters.triton import TritonEmbedder
from driftline.core import service
from driftline.core.control import ControlFollower, ControlView
from driftline.core.health import Health
from driftline.core.records import Priority, now_us
from driftline.core.runner import Runner
from driftline.core.settings import RunnerSettings
from driftline.core.stage import Decode, Stage
from driftline.core.topics import BACKFILL, CHANGES, DEFERRED, Topic
from driftline.core.troubles import Troubles
from driftline.encode.lane import DeferredStage, YieldingStage, decode_deferred
from driftline.encode.pace import Pace
from driftline.encode.settings import EncodeSettings
from driftline.encode.stage import Change, EncodeStage, decode


def main() -> int:
    return service.main("encode", EncodeSettings, run, otel_tracer)


def run(settings: EncodeSettings) -> int:
    health = Health()
    health.not_ready("assignment", "no partitions assigned yet")
    view = ControlView()
    follower = ControlFollower(KafkaLogReader(settings.kafka, fetch_wait_ms=500), view)
    cache = RedisCache(settings.redis)
    publisher = KafkaPublisher(settings.kafka)
    # Every secret has been read by now: from here on servers are contacted.
    service.patiently(follower.start, "kafka")

    def runner_of(
        topic: Topic,
        group: str,
        stage: Stage[Change],
        decode: Decode[Change],
        runner_settings: RunnerSettings,
        health: Health,
    ) -> tuple[Runner[Change], KafkaSubscriber]:
        subscriber = service.patiently(lambda: KafkaSubscriber(settings.kafka, group, [topic.name]), "kafka")
        runner: Runner[Change] = Runner(
            service="encode",
            subscriber=subscriber,
            publisher=publisher,
            stage=stage,
            decode=decode,
            settings=runner_settings,
            health=health,
            process_workers=runner_settings.max_in_flight,
            largest_record_bytes=settings.kafka.max_request_bytes,
        )
        subscriber.subscribe(runner)
        return runner, subscriber

    # What one stage finds out about a collection's encoder is known to all.
    troubles = Troubles(now_us)
    # Each stage has an embedder of its own: the requests that one has in flight take no place of another's.
    fresh = EncodeStage(
        view,
        TritonEmbedder(settings.triton),
        cache,
        settings.encode,
        is_behind=lambda: runner.is_behind,
        troubles=troubles,
    )
    pace = Pace(settings.encode.background_in_flight, lambda: fresh.is_fresh(settings.encode.fresh_seconds))

    def background() -> EncodeStage:
        embedder = TritonEmbedder(settings.triton)
        return EncodeStage(view, embedder, cache, settings.encode, Priority.BACKGROUND, pace=pace, troubles=troubles)

    runner, subscriber = runner_of(CHANGES, settings.encode.group, fresh, decode, settings.runner, health)
    late = background()
    deferred, deferred_subscriber = runner_of(
        DEFERRED,
        settings.encode.deferred_group,
        DeferredStage(late, lambda: fresh.is_embedding, settings.encode.deferred_patience_seconds),
        decode_deferred,
        settings.deferred,
        Health(scope="deferred:"),
    )
    backfill, backfill_subscriber = runner_of(
        BACKFILL,
        settings.encode.backfill_group,
        YieldingStage(
            background(),
            lambda: fresh.is_embedding or late.is_embedding,
            settings.encode.backfill_patience_seconds,
        ),
        decode,
        settings.backfill,
        health,
    )
    stop_deferred = service.run_beside("deferred", deferred, settings.deferred.drain_seconds)
    stop_backfill = service.run_beside("backfill", backfill, settings.backfill.drain_seconds)
    code = service.run_stage("encode", settings.telemetry.metrics_host, settings.telemetry.metrics_port, health, runner)
    for stop, member in ((stop_backfill, backfill_subscriber), (stop_deferred, deferred_subscriber)):
        if stop():
            member.close()
    subscriber.close()
    publisher.close()
    follower.close()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
