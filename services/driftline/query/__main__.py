"""Run the query service: settings -> adapters -> servers -> run."""

from __future__ import annotations

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher
from driftline.adapters.milvus import MilvusStore
from driftline.adapters.redis import RedisCache
from driftline.adapters.tracer import otel_tracer
from driftline.adapters.triton import TritonEmbedder
from driftline.core import service
from driftline.core.control import ControlFollower, ControlView
from driftline.core.health import Health
from driftline.core.receipts import ReceiptTail
from driftline.core.topics import CHANGES
from driftline.query.log import QueryLog
from driftline.query.rpc import SERVICE, SearchRpc, register
from driftline.query.search import Searcher
from driftline.query.server import create_app
from driftline.query.settings import QuerySettings
from driftline.query.write_through import WriteThrough
from driftline.web.auth import Keys
from driftline.web.serve import serve, start_grpc, watch


def main() -> int:
    return service.main("query", QuerySettings, run, otel_tracer)


def run(settings: QuerySettings) -> int:
    keys = Keys(settings.auth)
    health = Health()
    view = ControlView()
    follower = ControlFollower(KafkaLogReader(settings.kafka, fetch_wait_ms=500), view)
    tail = ReceiptTail(KafkaLogReader(settings.kafka))
    view.on_log_made_anew(CHANGES.name, tail.forget)
    embedder = TritonEmbedder(settings.triton)
    store = MilvusStore(settings.milvus)
    cache = RedisCache(settings.redis)
    publisher = KafkaPublisher(settings.kafka)
    # Every secret has been read by now: from here on servers are contacted.
    service.patiently(follower.start, "kafka")
    service.patiently(tail.start, "kafka")
    query_log = QueryLog(publisher, settings.query.log_per_second) if settings.query.log_per_second else None
    through = WriteThrough(store, publisher, view.space)
    searcher = Searcher(view, embedder, store, cache, tail, settings.query, query_log, through)
    readiness = watch(health, {"triton": embedder.ping, "milvus": store.ping})
    rpc = SearchRpc(keys, searcher, settings.query.max_batch)
    stop_grpc = start_grpc(settings.http, [(SERVICE, lambda server: register(rpc, server))], health)
    serve(create_app(settings, keys, health, searcher), settings.http, health, stop_grpc)
    readiness.close()
    searcher.close()
    through.close()
    if query_log is not None:
        query_log.close()
    publisher.close()
    tail.close()
    follower.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
