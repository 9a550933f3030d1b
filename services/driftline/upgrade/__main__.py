"""Run the upgrade service: settings -> adapters -> loop and server -> run."""

from __future__ import annotations

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber
from driftline.adapters.milvus import MilvusStore
from driftline.adapters.tracer import otel_tracer
from driftline.adapters.triton import TritonEmbedder
from driftline.core import service
from driftline.core.control import ControlFollower, ControlView, ControlWriter
from driftline.core.health import Health
from driftline.core.topics import CONTROL
from driftline.core.worker import Worker
from driftline.upgrade.controller import Controller
from driftline.upgrade.demand import most_wanted
from driftline.upgrade.leader import Leader
from driftline.upgrade.monitor import recent_documents
from driftline.upgrade.server import create_app
from driftline.upgrade.settings import UpgradeSettings
from driftline.upgrade.statistics import StatisticsKeeper
from driftline.upgrade.watcher import Watcher
from driftline.web.auth import Keys
from driftline.web.serve import serve, watch


def main() -> int:
    return service.main("upgrade", UpgradeSettings, run, otel_tracer)


def run(settings: UpgradeSettings) -> int:
    keys = Keys(settings.auth)
    health = Health()
    health.not_ready("assignment", "the group has not answered yet")
    view = ControlView()
    follower = ControlFollower(KafkaLogReader(settings.kafka, fetch_wait_ms=500), view)
    publisher = KafkaPublisher(settings.kafka)
    embedder = TritonEmbedder(settings.triton)
    store = MilvusStore(settings.milvus)
    # Every secret has been read by now: from here on servers are contacted.
    service.patiently(follower.start, "kafka")
    subscriber = service.patiently(
        lambda: KafkaSubscriber(settings.kafka, settings.upgrade.group, [CONTROL.name]), "kafka"
    )
    leader = Leader(subscriber, health)
    subscriber.subscribe(leader)
    leader.start()
    searched, written = KafkaLogReader(settings.kafka), KafkaLogReader(settings.kafka)
    watcher = Watcher(view, store, embedder, settings.upgrade, lambda uid: recent_documents(written, uid))
    writer = ControlWriter(publisher, follower)
    controller = Controller(
        view, writer, embedder, store, publisher, settings.milvus.prefix,
        settings.upgrade, leader.leading, watcher, lambda uid: most_wanted(searched, uid),
    )  # fmt: skip
    readiness = watch(health, {"triton": embedder.ping, "milvus": store.ping})
    loop = Worker("upgrades", controller.tick, every_seconds=settings.upgrade.tick_seconds)
    loop.start()
    section = settings.upgrade
    keeper = StatisticsKeeper(
        view, writer, store, leader.leading, section.statistics_documents, section.statistics_every_seconds
    )
    statistics = Worker("statistics", keeper.turn, every_seconds=section.tick_seconds)
    statistics.start()
    serve(create_app(settings, keys, health, controller), settings.http, health)
    readiness.close()
    loop.close()
    statistics.close()
    leader.close()
    publisher.close()
    follower.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
