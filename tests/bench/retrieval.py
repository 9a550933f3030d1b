"""`make bench-retrieval`: every way of finding over judged collections; writes docs/benchmarks-retrieval.md.

A whole system holds each collection in a dense, a lexical and a learned sparse index. Every way is asked all judged
queries through the query service; nothing is tuned on them. DRIFTLINE_DATASETS is the folder of the collections; names
are arguments.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from driftline.cli.client import Api
from driftline.cli.evaluate import calibration, read_qrels, read_queries
from driftline.drift.quality import paired
from driftline.local.stack import Stack
from driftline.retrieval.evaluation import Qrels, per_query
from tests.bench.encoders import prepare
from tests.bench.judged import DATASETS
from tests.bench.system import KAFKA, ROOT, commit, machine, say, system
from tests.client import User, until

PAGE = ROOT / "docs/benchmarks-retrieval.md"
ENCODER, SPARSE = "minilm-l6-int8", "splade-tiny"
DEPTH = 100
EVERY = "dense+words+splade: rrf"
INDEXES = {
    "dense": {"encoder": ENCODER, "fields": ["title", "text"]},
    "words": {"analyzer": {"language": "english"}, "fields": ["title", "text"]},
    "splade": {"encoder": SPARSE, "fields": ["title", "text"]},
}
LEGS = tuple(INDEXES)
TWO = ("dense", "words")
FUSIONS = ("rrf", "minmax", "dbsf")
# Of Thakur et al. (BEIR, 2021), table 2: BM25 with Anserini's default parameters.
LITERATURE = {"scifact": {"words": 0.665}}


def ways() -> dict[str, dict[str, Any]]:
    """What a search asks for beside its text, by the name of the way."""
    found: dict[str, dict[str, Any]] = {name: {"index": name} for name in LEGS}
    for names in (TWO, LEGS):
        of = [{"index": name} for name in names]
        found |= {f"{'+'.join(names)}: {f}": {"plan": [{"search": {"of": of, "fuse": f}}]} for f in FUSIONS}
    return found


@dataclass(frozen=True)
class Ran:
    """Ids of each query, best first; milliseconds of whole searches, and of the parts of the search of each index."""

    found: dict[str, list[str]]
    milliseconds: list[float]
    parts: dict[str, list[float]]


def run(api: Api, collection: str, queries: Mapping[str, str], way: Mapping[str, Any]) -> Ran:
    """Two at a time: as many as the machine has cores."""

    def one(text: str) -> dict[str, Any]:
        body = {"text": text, "limit": DEPTH, "output_fields": [], "explain": True, **way}
        return dict(api.call("POST", f"/v1/collections/{collection}/search", json=body))

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(one, queries.values()))
    parts: dict[str, list[float]] = {}
    for answer in answers:
        (step,) = answer["explain"]["steps"]
        for of in step["of"]:
            for name, took in of["milliseconds"].items():
                parts.setdefault(f"{of['index']}: {name}", []).append(took)
    found = {query: [hit["id"] for hit in answer["hits"]] for query, answer in zip(queries, answers, strict=True)}
    return Ran(found, [answer["took_ms"] for answer in answers], parts)


def cross_fitted(api: Api, collection: str, queries: Mapping[str, str], qrels: Qrels) -> Ran:
    """Calibrated fusion: each half of the queries by curves that were fitted to the other half."""
    names = list(queries)
    halves = [{q: queries[q] for q in names[i::2]} for i in (0, 1)]
    ran = []
    for fitted, asked in (halves, halves[::-1]):
        curves = {name: calibration(api, collection, name, fitted, qrels) for name in TWO}
        of = [{"index": name} for name in TWO]
        fuse = {"kind": "calibrated", "of": curves}
        ran.append(run(api, collection, asked, {"plan": [{"search": {"of": of, "fuse": fuse}}]}))
    return Ran(
        {query: {**ran[0].found, **ran[1].found}[query] for query in names},
        ran[0].milliseconds + ran[1].milliseconds,
        {part: ran[0].parts[part] + ran[1].parts[part] for part in ran[0].parts},
    )


def load(user: User, folder: Path) -> tuple[str, int]:
    """A collection with the folder's corpus, and how many documents it has."""
    fields = {"title": {"type": "text"}, "text": {"type": "text"}}
    collection = user.create(fields=fields, embedding=None, indexes=INDEXES)
    corpus = [orjson.loads(line) for line in (folder / "corpus.jsonl").read_bytes().splitlines()]
    lines = [{"id": d["_id"], "fields": {"title": d.get("title", ""), "text": d["text"]}} for d in corpus]
    accepted = sum(
        answer.get("state") == "accepted"
        for start in range(0, len(lines), 500)
        for answer in user.bulk(collection, lines[start : start + 500])
    )
    until(lambda: user.count(collection) == accepted, 1_800, every=0.5)
    return collection, accepted


def judged(folder: Path) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    qrels = {q: grades for q, grades in read_qrels(folder, "test").items() if any(g > 0 for g in grades.values())}
    texts = read_queries(folder)
    queries = {q: texts[q] for q in sorted(qrels) if q in texts}
    return queries, {q: qrels[q] for q in queries}


def measured(stack: Stack, folder: Path) -> list[str]:
    """The section of one collection."""
    user, api = User(stack), Api("query", stack.query_url)
    collection, documents = load(user, folder)
    queries, qrels = judged(folder)
    settle(user, collection, documents)
    for name in LEGS:
        run(api, collection, queries, {"index": name})  # embeddings of the queries are cached from here on
    ran = {name: run(api, collection, queries, way) for name, way in ways().items()}
    ran[f"{'+'.join(TWO)}: calibrated"] = cross_fitted(api, collection, queries, qrels)
    user.ingest.delete(f"/v1/collections/{collection}")
    values = {name: per_query(way.found, qrels) for name, way in ran.items()}
    best = max(LEGS, key=lambda name: float(np.mean(values[name]["ndcg@10"])))
    lines = [
        f"## {folder.name}", "",
        f"{documents} documents, {len(queries)} judged queries. Differences of nDCG@10 are to the best single index, "
        f"`{best}`, with a 95 % interval (paired bootstrap over queries).", "",
        "| way | nDCG@10 | 95 % | to the best index | recall@100 | MRR | p50 ms | p95 ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(name, ran[name], values[name], values[best], name == best) for name in ran), "",
        "| part of a search | p50 ms | p95 ms |", "| --- | --- | --- |",
        *(f"| {name} | {quantile(ms, 0.5)} | {quantile(ms, 0.95)} |" for name, ms in ran[EVERY].parts.items()), "",
    ]  # fmt: skip
    for name, value in LITERATURE.get(folder.name, {}).items():
        lines += [f"BM25 of BEIR (Thakur et al. 2021, table 2, Anserini): {value:.3f}; `{name}` here is above.", ""]
    for line in lines:
        say(line)
    return lines


def settle(user: User, collection: str, documents: int) -> None:
    """Return when the statistics of the lexical index are of all documents, give or take a tenth."""

    def known() -> bool:
        told = user.query.post(
            f"/v1/collections/{collection}/search", json={"text": "x", "index": "words", "explain": True}
        )
        return bool(told.json()["explain"]["steps"][0]["of"][0]["statistics"] >= 0.9 * documents)

    until(known, 120, every=1)


def row(
    name: str, ran: Ran, values: Mapping[str, Sequence[float]], best: Mapping[str, Sequence[float]], is_best: bool
) -> str:
    ndcg = values["ndcg@10"]
    alone, against = paired(ndcg, [0.0] * len(ndcg)), paired(ndcg, best["ndcg@10"])
    told = "" if is_best else f"{against.mean:+.4f} [{against.low:+.4f}, {against.high:+.4f}]"
    recall, mrr = (float(np.mean(values[measure])) for measure in ("recall@100", "mrr"))
    return (
        f"| {name} | {alone.mean:.4f} | [{alone.low:.4f}, {alone.high:.4f}] | {told} | {recall:.4f} | {mrr:.4f} | "
        f"{quantile(ran.milliseconds, 0.5)} | {quantile(ran.milliseconds, 0.95)} |"
    )


def quantile(values: Sequence[float], q: float) -> str:
    return f"{float(np.quantile(values, q)):.1f}"


def written(stack: Stack) -> list[str]:
    """Documents/s through the whole pipeline into 1, 2 and 4 indexes, in turns."""
    user = User(stack)
    corpus = [orjson.loads(line) for line in (DATASETS / "scifact/corpus.jsonl").read_bytes().splitlines()][:3_000]
    lines = [{"id": d["_id"], "fields": {"title": d["title"], "text": d["text"]}} for d in corpus]
    fields = {"title": {"type": "text"}, "text": {"type": "text"}}
    every: dict[str, Any] = {
        "dense": {"encoder": "hashing", "fields": ["title", "text"]},
        "words": INDEXES["words"],
        "titles": {"analyzer": "english", "fields": ["title"]},
        "sparse": {"encoder": "hashing-sparse", "fields": ["title", "text"]},
    }
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for _ in range(2):
        for count, found in rates.items():
            indexes = dict(list(every.items())[:count])
            collection = user.create(fields=fields, embedding=None, indexes=indexes)
            begun = time.perf_counter()
            for start in range(0, len(lines), 500):
                user.bulk(collection, lines[start : start + 500])
            until(lambda name=collection: user.count(name) == len(lines), 600, every=0.1)  # type: ignore[misc]
            found.append(len(lines) / (time.perf_counter() - begun))
            user.ingest.delete(f"/v1/collections/{collection}")
    names = {1: "dense", 2: "dense, lexical", 4: "dense, two lexical, sparse"}
    return [
        "## Writing into several indexes", "",
        f"{len(lines)} SciFact abstracts through the whole pipeline, with encoders that have no weights (`hashing`, "
        "`hashing-sparse`): what indexes cost beside their models. Two rounds, in turns.", "",
        "| indexes | | documents/s | over one index |", "| --- | --- | --- | --- |",
        *(f"| {count} | {names[count]} | {', '.join(f'{rate:.0f}' for rate in found)} | "
          f"{float(np.mean(found)) / float(np.mean(rates[1])):.2f} |" for count, found in rates.items()), "",
    ]  # fmt: skip


def main(names: Sequence[str]) -> None:
    folders = [DATASETS / name for name in names or ("scifact", "cranfield", "med")]
    sections: list[str] = []
    prepare([ENCODER, SPARSE], say)
    with system(
        ["hashing", "hashing-sparse", ENCODER, SPARSE], KAFKA, env={"DRIFTLINE_QUERY__ADHOC_PLANS": "true"}
    ) as stack:
        for folder in folders:
            say(f"{folder.name} ...")
            sections += measured(stack, folder)
        if not names:
            sections += written(stack)
    heading = [
        "# Retrieval", "", "<!-- Written by `make bench-retrieval`. -->", "",
        f"{machine()}; commit {commit()}. Encoders {ENCODER} (dense) and {SPARSE} (sparse), analyzer `english`, all "
        "with default settings. Every query is a search through the query service over HTTP, two at a time; embeddings "
        f"of queries are cached, answers are not. Each index ranks {DEPTH} documents or more. Nothing was tuned on "
        "these queries; `calibrated` is fitted to the other half of them.", "",
    ]  # fmt: skip
    if not names:
        PAGE.write_text("\n".join(heading + sections).rstrip() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
