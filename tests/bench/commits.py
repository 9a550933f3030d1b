"""`make bench-commits COMMITS="6cb7f45 HEAD"`: what changed between commits, as users of one dense index feel it.

Every commit is checked out with an environment of its own. In each round, each commit's local system is started,
measured and stopped in turn, so that what the machine does to one it does to all; ratios are within rounds. Writes
docs/benchmarks-commits.md.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("DRIFTLINE_BENCH_ROUNDS", "5"))
FREE, REAL = "hashing-64", "minilm-l6-int8"
FREE_DOCUMENTS, REAL_DOCUMENTS, SEARCHES = 30_000, 1_500, 400


def measure() -> dict[str, float]:
    """Of the checkout that this runs in. Uses only what commits have in common since 6cb7f45."""
    from driftline.cli.demo import documents
    from driftline.local.stack import Options, Stack
    from tests.client import User, until

    words = [f"{d['fields']['name']} {d['fields']['doc']}" for d in documents()]
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="driftline-commits-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder))
        stack.up(Options(models=(FREE, REAL)), lambda _: None)
        try:
            user = User(stack)

            def fill(encoder: str, texts: Sequence[str]) -> tuple[str, float]:
                """A collection of these, and how many a second were found from the first request on."""
                collection = user.create(encoder)
                lines = [{"id": f"d{i}", "fields": {"title": text}} for i, text in enumerate(texts)]
                begun = time.perf_counter()
                for start in range(0, len(lines), 1_000):
                    user.bulk(collection, lines[start : start + 1_000])
                until(lambda: user.count(collection) == len(lines), 600, every=0.1)
                return collection, len(lines) / (time.perf_counter() - begun)

            # The first minute of a fresh Kafka and Milvus is slower.
            fill(FREE, [f"warm {i}" for i in range(5_000)])
            fill(REAL, [f"{text} warm" for text in words[:200]])
            for encoder, texts in (
                (FREE, [f"short text number {i}" for i in range(FREE_DOCUMENTS)]),
                (REAL, words[:REAL_DOCUMENTS]),
            ):
                collection, found[f"documents/s, {encoder}"] = fill(encoder, texts)
                found[f"search p50 in ms, {encoder}"] = searches(stack.query_url, collection, words)
        finally:
            stack.down()
    return found


def searches(url: str, collection: str, words: Sequence[str]) -> float:
    """The median of searches that no cache answers, one after the other over one connection."""
    connection = http.client.HTTPConnection(url.partition("//")[2], timeout=30)
    taken: list[float] = []
    for i in range(SEARCHES):
        body = json.dumps({"text": f"{' '.join(words[i].split()[1:9])} {i}"})
        begun = time.perf_counter()
        connection.request("POST", f"/v1/collections/{collection}/search", body)
        assert len(json.loads(connection.getresponse().read())["hits"]) == 10
        taken.append(1_000 * (time.perf_counter() - begun))
    connection.close()
    return statistics.median(taken[SEARCHES // 8 :])


def run_in(folder: Path) -> dict[str, float]:
    python = folder / ".venv/bin/python"
    env = os.environ | {
        "PYTHONPATH": str(folder),
        "DRIFTLINE_CACHE": str(folder / ".venv/share/driftline"),
        # Triton is the same for all, and takes a minute to install.
        "DRIFTLINE_TRITON_ENV": str(ROOT / ".venv/triton-env"),
    }
    command = [str(python), str(Path(__file__).resolve()), "--measure"]
    done = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True, timeout=900)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(commits: Sequence[str], rounds: Sequence[Mapping[str, Mapping[str, float]]], where: str) -> str:
    """Medians, and of the last commit over each other one the ratio of each round: median, least and most."""
    last = commits[-1]
    lines = [
        f"`make bench-commits` on {where}, {time.strftime('%Y-%m-%d')}: one dense index, {len(rounds)} rounds in turn; "
        f"medians, and {last} over each commit as median (least to most) of the rounds.",
        "",
        "| what | " + " | ".join(commits) + " | " + " | ".join(f"over {c}" for c in commits[:-1]) + " |",
        "| --- |" + " ---: |" * (2 * len(commits) - 1),
    ]
    for figure in rounds[0][last]:
        medians = [f"{statistics.median(r[c][figure] for r in rounds):.1f}" for c in commits]
        ratios = [[r[last][figure] / r[c][figure] for r in rounds] for c in commits[:-1]]
        shown = [f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in ratios]
        lines.append(f"| {figure} | " + " | ".join([*medians, *shown]) + " |")
    return "\n".join(lines) + "\n"


def main(commits: Sequence[str]) -> int:
    from tests.bench.system import machine, say

    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="driftline-commits-", ignore_cleanup_errors=True) as folder:
        checkouts: dict[str, Path] = {}
        try:
            for name in commits:
                parsed = subprocess.run(
                    ["git", "rev-parse", "--short", name], cwd=ROOT, check=True, capture_output=True, text=True
                )
                commit = parsed.stdout.strip()
                checkouts[commit] = Path(folder) / commit
                subprocess.run(["git", "worktree", "add", "--detach", checkouts[commit], commit], cwd=ROOT, check=True)
                subprocess.run(["make", "setup"], cwd=checkouts[commit], check=True, stdout=subprocess.DEVNULL)
                say(f"{commit} is set up")
            names = list(checkouts)
            for number in range(ROUNDS):
                rounds.append({})
                # Another one is first in each round.
                for commit in [*names[number % len(names) :], *names[: number % len(names)]]:
                    rounds[-1][commit] = run_in(checkouts[commit])
                    say(f"round {number + 1}, {commit}: {rounds[-1][commit]}")
        finally:
            for checkout in checkouts.values():
                subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=False)
    written = table(names, rounds, machine())
    page = f"# Commits side by side\n\n<!-- Written by `make bench-commits`. -->\n\n{written}"
    (ROOT / "docs/benchmarks-commits.md").write_text(page, encoding="utf-8")
    say(written)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
