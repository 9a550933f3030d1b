from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from driftline.adapters.memory import MemoryCache, MemoryEmbedder
from driftline.adapters.redis import RedisCache
from driftline.adapters.triton import TritonEmbedder
from driftline.core.errors import InvalidRecord, NotLoaded, PartlyUnavailable, SpaceMismatch, Unavailable
from driftline.core.ports import Cache, Embedder
from driftline.core.records import Priority
from driftline.core.settings import RedisSettings, TritonSettings
from driftline.core.vectors import Sparse
from driftline.local.stack import Stack
from driftline.retrieval.embeddings import describe, plan_requests


@pytest.fixture(params=["memory", "triton"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    if request.param == "memory":
        return MemoryEmbedder()
    return TritonEmbedder(request.getfixturevalue("triton_settings"))


def test_equal_texts_have_equal_unit_vectors_wherever_they_are(embedder: Embedder) -> None:
    space = embedder.describe("hashing")
    texts = [f"text number {i} of some words" for i in range(40)]
    whole = embedder.embed("hashing", space.fingerprint, [texts[:16], texts[16:32], texts[32:]])
    alone = embedder.embed("hashing", space.fingerprint, [[texts[37]]])
    together = np.concatenate([np.asarray(part) for part in whole])
    assert together.shape == (40, space.dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[37], np.asarray(alone[0])[0], atol=1e-6)


def test_any_priority_is_answered_alike(embedder: Embedder) -> None:
    space = embedder.describe("hashing")
    answers = [np.asarray(embedder.embed("hashing", space.fingerprint, [["a text"]], p)[0]) for p in Priority]
    assert answers[0].shape == (1, space.dimension)
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_search_overtakes_the_texts_of_a_backfill(triton_settings: TritonSettings) -> None:
    background, searching = TritonEmbedder(triton_settings), TritonEmbedder(triton_settings)
    space = background.describe("minilm-l6-int8")
    done: list[int] = []

    def backfill(number: int) -> None:
        texts = [f"{number} {i} " + "some words of a long text " * 40 for i in range(space.max_batch)]
        background.embed("minilm-l6-int8", space.fingerprint, [texts], Priority.BACKGROUND)
        done.append(number)

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(backfill, number) for number in range(20)]
        while not done:
            time.sleep(0.01)
        waiting = len(asked) - len(done)
        (answer,) = searching.embed("minilm-l6-int8", space.fingerprint, [["a search"]], Priority.SEARCH)
        overtaken = len(asked) - len(done)
        for future in asked:
            future.result()
    assert np.asarray(answer).shape == (1, space.dimension)
    # Without priorities it comes last. Two instances are at work, and each ends one or two more meanwhile.
    assert overtaken >= waiting / 2 > 2


def test_another_space_and_an_unknown_encoder_are_refused(embedder: Embedder) -> None:
    with pytest.raises(SpaceMismatch):
        embedder.embed("hashing", "0" * 32, [["x"]])
    with pytest.raises(NotLoaded):
        embedder.describe("nope")
    with pytest.raises(NotLoaded, match="nope"):
        embedder.load("nope")


def test_a_request_that_the_encoder_refuses_is_that_records_fault(embedder: Embedder) -> None:
    space = embedder.describe("hashing")
    too_many = ["a text"] * (space.max_batch + 1)
    refused, answered = embedder.embed("hashing", space.fingerprint, [too_many, ["a text"]])
    assert isinstance(refused, InvalidRecord)
    assert (refused.reason, refused.suspect) == ("encode_failed", True)
    assert np.asarray(answered).shape == (1, space.dimension)


@pytest.fixture(params=["memory", "triton"])
def raising(request: pytest.FixtureRequest) -> tuple[Embedder, str]:
    """An embedder, and an encoder of it that raises at the text "poison"."""
    if request.param == "memory":
        twin = MemoryEmbedder(encoder="raising")
        twin.refused_texts.add("poison")
        return twin, "raising"
    repository = request.getfixturevalue("stack").repository
    model = repository / "raising/1/model.py"
    if not model.exists():
        model.parent.mkdir(parents=True)
        config = (repository / "hashing-64/config.pbtxt").read_text()
        (repository / "raising/config.pbtxt").write_text(config.replace("hashing-64", "raising"))
        model.write_text(
            "class TritonPythonModel:\n    def execute(self, requests):\n        raise ValueError('it is poison')\n"
        )
    return TritonEmbedder(request.getfixturevalue("triton_settings")), "raising"


def test_an_error_that_the_model_raises_is_that_records_fault(raising: tuple[Embedder, str]) -> None:
    embedder, name = raising
    embedder.load(name)
    (answer,) = embedder.embed(name, embedder.describe(name).fingerprint, [["poison"]])
    assert isinstance(answer, InvalidRecord)
    assert (answer.reason, answer.suspect) == ("encode_failed", True)
    embedder.unload(name)


@pytest.fixture(params=["memory", "triton"])
def spare(request: pytest.FixtureRequest) -> tuple[Embedder, str]:
    """An embedder, and an encoder of it that nobody else uses."""
    if request.param == "memory":
        return MemoryEmbedder(), "hashing"
    repository = request.getfixturevalue("stack").repository
    if not (repository / "spare").exists():
        shutil.copytree(repository / "hashing-64", repository / "spare")
        config = repository / "spare/config.pbtxt"
        config.write_text(config.read_text().replace("hashing-64", "spare"))
    return TritonEmbedder(request.getfixturevalue("triton_settings")), "spare"


def test_an_unloaded_encoder_is_not_there_until_it_is_loaded_again(spare: tuple[Embedder, str]) -> None:
    embedder, name = spare
    embedder.load(name)
    assert embedder.loaded_everywhere(name)
    space = embedder.describe(name)
    assert np.asarray(embedder.embed(name, space.fingerprint, [["a text"]])[0]).shape == (1, space.dimension)
    embedder.unload(name)
    with pytest.raises(NotLoaded):
        describe_when_unloaded(embedder, name)
    assert not embedder.loaded_everywhere(name)
    assert describe(embedder, name) == space
    embedder.load(name)
    assert np.asarray(embedder.embed(name, space.fingerprint, [["a text"]])[0]).shape == (1, space.dimension)


def describe_when_unloaded(embedder: Embedder, name: str) -> None:
    """Triton unloads in the background, once no request is in flight."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        embedder.unload(name)  # forgets the description, too
        embedder.describe(name)
        time.sleep(0.1)


def test_the_real_encoder_knows_what_is_alike(triton_settings: TritonSettings) -> None:
    embedder = TritonEmbedder(triton_settings)
    space = embedder.describe("minilm-l6-int8")
    assert (space.dimension, space.max_tokens, space.pooling) == (384, 256, "mean")
    (vectors,) = embedder.embed(
        "minilm-l6-int8", space.fingerprint, [["A man plays a guitar", "A musical instrument", "The stock market"]]
    )
    similar = np.asarray(vectors) @ np.asarray(vectors).T
    assert similar[0, 1] > similar[0, 2] + 0.2


def test_a_text_has_one_vector_whatever_its_neighbours(triton_settings: TritonSettings) -> None:
    embedder = TritonEmbedder(triton_settings)
    space = embedder.describe("minilm-l6-int8")
    texts = ["short", "a text of some more words than the others have", "long " * 200]
    (together,) = embedder.embed("minilm-l6-int8", space.fingerprint, [texts])
    alone = embedder.embed("minilm-l6-int8", space.fingerprint, [[t] for t in texts])
    np.testing.assert_allclose(np.asarray(together), np.concatenate([np.asarray(a) for a in alone]), atol=1e-6)


def test_triton_takes_any_text(triton_settings: TritonSettings) -> None:
    embedder = TritonEmbedder(triton_settings)
    space = embedder.describe("minilm-l6-int8")
    texts = ["", " ", "\x00", "日本語 🎸", "a" * 100_000, "\u202e"]
    requests = [[texts[i] for i in request] for request in plan_requests(texts, space.max_batch)]
    for vectors in embedder.embed("minilm-l6-int8", space.fingerprint, requests):
        assert np.isfinite(np.asarray(vectors)).all()


def test_the_tokenizer_comes_from_the_model(triton_settings: TritonSettings) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(TritonEmbedder(triton_settings).tokenizer_json("minilm-l6-int8"))
    assert tokenizer.encode("unaffable", add_special_tokens=False).tokens[0].startswith("una")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{probe.getsockname()[1]}"
    embedder = TritonEmbedder(TritonSettings(url=url))
    calls: list[Callable[[], object]] = [
        lambda: embedder.describe("hashing"),
        lambda: embedder.load("hashing"),
        lambda: embedder.unload("hashing"),
        lambda: embedder.tokenizer_json("hashing"),
        lambda: embedder.embed("hashing", "0" * 32, [["x"]]),
        embedder.ping,
    ]
    for call in calls:
        with pytest.raises(Unavailable) as caught:
            call()
        assert not isinstance(caught.value, PartlyUnavailable)


def test_a_frozen_server_is_unavailable_and_no_records_fault(stack: Stack, triton_settings: TritonSettings) -> None:
    embedder = TritonEmbedder(triton_settings.model_copy(update={"timeout_seconds": 4.0}))
    space = embedder.describe("hashing")
    server = psutil.Process(next(p.pid for p in stack.processes if p.name == "triton"))
    server.send_signal(signal.SIGSTOP)
    try:
        (answer,) = embedder.embed("hashing", space.fingerprint, [["a text"]])
    finally:
        server.send_signal(signal.SIGCONT)
    assert type(answer) is Unavailable


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Cache:
    return MemoryCache() if request.param == "memory" else RedisCache(request.getfixturevalue("redis_settings"))


@pytest.mark.brokers
def test_a_cache_returns_what_was_set_in_order(cache: Cache) -> None:
    cache.set_many({"ca": b"1", "cb": b"\x00\xff"}, 60)
    assert cache.get_many(["cb", "missing", "ca"]) == [b"\x00\xff", None, b"1"]
    assert cache.get_many([]) == []
    assert cache.healthy()


@pytest.mark.brokers
def test_increment_counts(cache: Cache) -> None:
    cache.increment("count-me")
    cache.increment("count-me")
    assert cache.get_many(["count-me"]) == [b"2"]


@pytest.mark.brokers
def test_a_redis_that_is_not_there_is_an_empty_cache() -> None:
    cache = RedisCache(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.05))
    cache.set_many({"a": b"1"}, 60)
    cache.increment("a")
    assert cache.get_many(["a", "b"]) == [None, None]
    assert not cache.healthy()


def test_no_redis_at_all_is_fine() -> None:
    cache = RedisCache(RedisSettings())
    assert cache.get_many(["a"]) == [None]
    assert cache.healthy()


@pytest.fixture(params=["memory", "triton"])
def sparse_embedder(request: pytest.FixtureRequest) -> Embedder:
    if request.param == "memory":
        return MemoryEmbedder(4_096, "hashing-sparse", kind="sparse")
    return TritonEmbedder(request.getfixturevalue("triton_settings"))


def test_a_sparse_encoder_weighs_terms_and_none_of_them_for_no_words(sparse_embedder: Embedder) -> None:
    space = describe(sparse_embedder, "hashing-sparse")
    assert (space.kind, space.dimension, space.normalized) == ("sparse", 1, False)
    asked = [["red shoes red", "shoes"], [""]]
    both, blank = sparse_embedder.embed("hashing-sparse", space.fingerprint, asked)
    assert isinstance(both, Sparse)
    assert isinstance(blank, Sparse)
    assert [len(row.terms) for row in both] == [2, 1]
    assert len(blank.terms) == 0
    first, second = both
    assert first.dot(second).tolist() == [1.0], "the word in common, once in each"
    assert sorted(first.weights.tolist()) == [1.0, 2.0]
