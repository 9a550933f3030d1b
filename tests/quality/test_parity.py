"""Search quality through the whole service equals the encoder's own: nothing is lost on the way.

The reference encodes in this process, with ONNX Runtime and an exact search, and shares no code with the service.
DRIFTLINE_PARITY_DOCUMENTS keeps that many documents (all by default): the judged ones, and others at random.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import pytest
from tokenizers import Tokenizer

from driftline.cli.client import Api
from driftline.cli.evaluate import read_qrels, read_queries, run_queries
from driftline.local.stack import Stack
from driftline.retrieval.evaluation import evaluate
from tests.client import User, until
from tests.e2e.test_service import run_cli

ENCODER = "minilm-l6-int8"
DOCUMENTS = int(os.environ.get("DRIFTLINE_PARITY_DOCUMENTS", "0"))


def some_of(corpus: list[dict[str, str]], judged: set[str]) -> list[dict[str, str]]:
    """The judged documents and as many others as there is room for, in the corpus' order."""
    others = [d["_id"] for d in corpus if d["_id"] not in judged]
    kept = judged | set(random.Random(7).sample(others, min(len(others), max(0, DOCUMENTS - len(judged)))))
    return [d for d in corpus if d["_id"] in kept]


def reference_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean-pooled, normalised vectors, one text at a time padded to nothing: float32 (texts, 384)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def one(text: str) -> np.ndarray:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = session.run(["last_hidden_state"], feed)
        mean = hidden[0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(one, texts)))


@pytest.mark.timeout(1_500)
def test_scifact_through_the_service_is_as_good_as_the_encoder(stack: Stack, datasets: Path) -> None:
    folder = datasets / "scifact"
    corpus = [orjson.loads(line) for line in (folder / "corpus.jsonl").read_bytes().splitlines()]
    qrels = read_qrels(folder, "test")
    queries = {q: text for q, text in read_queries(folder).items() if q in qrels}
    if DOCUMENTS:
        corpus = some_of(corpus, {document for judged in qrels.values() for document in judged})

    user = User(stack)
    fields = {"title": {"type": "text"}, "text": {"type": "text"}}
    collection = user.create(ENCODER, fields=fields, embedding={"encoder": ENCODER, "fields": ["title", "text"]})
    for start in range(0, len(corpus), 500):
        part = corpus[start : start + 500]
        lines = [{"id": d["_id"], "fields": {"title": d["title"], "text": d["text"]}} for d in part]
        assert all(answer["state"] == "accepted" for answer in user.bulk(collection, lines))
    until(lambda: user.count(collection) == len(corpus), 900, every=2)
    service = evaluate(run_queries(Api("query", stack.query_url), collection, queries, 100).found, qrels)

    model = stack.repository / ENCODER / "1"
    vectors = reference_vectors(model, [f"{d['title']} {d['text']}" for d in corpus])
    ids = [d["_id"] for d in corpus]
    exact = {}
    for (query, _), vector in zip(queries.items(), reference_vectors(model, list(queries.values())), strict=True):
        exact[query] = [ids[i] for i in np.argsort(-(vectors @ vector), kind="stable")[:100]]
    reference = evaluate(exact, qrels)

    print(f"\n{'':14}{'service':>10}{'in-process':>12}")
    for name in service:
        print(f"{name:14}{service[name]:10.4f}{reference[name]:12.4f}")
    assert user.count(collection) == len(corpus)
    assert service["ndcg@10"] == pytest.approx(reference["ndcg@10"], abs=0.005)

    ways = ("--way", "all={}", "--way", 'sure={"min_score": 0.5}')
    print(run_cli(stack, "eval", collection, str(folder), *ways))
    every, sure = orjson.loads(run_cli(stack, "eval", collection, str(folder), *ways, "--json"))
    assert every["ndcg@10"] == pytest.approx(service["ndcg@10"], abs=0.002)
    assert sure["ndcg@10"] < every["ndcg@10"]
    assert sure["difference interval"][1] < 0
