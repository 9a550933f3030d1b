"""The step that searches: one index or several side by side, and one ranking of what they found."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from driftline.core.collections import CollectionDefinition, named
from driftline.core.errors import InvalidRequest, Unavailable
from driftline.core.limits import MAX_DEPTH, MAX_INDEXES, MAX_QUERY_CHARACTERS
from driftline.core.schema import DefinitionPart
from driftline.core.store import Hit
from driftline.core.values import shown
from driftline.retrieval import filters
from driftline.retrieval.fusion import FusionSpec, Ranked, Ranking, Rrf
from driftline.retrieval.inputs import Part, Text
from driftline.retrieval.plan.run import Answer, Passage, Place, PlanHit, Run, Step

if TYPE_CHECKING:
    from driftline.retrieval.index_search import IndexFound


class IndexSearch(DefinitionPart):
    """A search of one index, as a part of a search step."""

    index: str
    weight: float = Field(1.0, gt=0, le=1_000, description="of its ranking, where several are fused")
    depth: int | None = Field(
        None, ge=1, le=MAX_DEPTH, description="documents that it ranks; left out: as many as the answer may need"
    )
    filter: dict[str, Any] | None = Field(None, description="beside the filter of the search itself")
    text: str | None = Field(
        None, min_length=1, max_length=MAX_QUERY_CHARACTERS, description="in place of the search's"
    )


class SearchStep(Step):
    """Searches each of `of`; the rankings of several become one by `fuse`."""

    of: tuple[IndexSearch, ...] = Field(min_length=1, max_length=MAX_INDEXES)
    fuse: FusionSpec = Rrf()

    @model_validator(mode="after")
    def _each_once(self) -> SearchStep:
        names = [part.index for part in self.of]
        if len(set(names)) < len(names):
            raise ValueError("of: expected each index at most once")
        return self

    def check(self, definition: CollectionDefinition, where: str) -> None:
        for i, part in enumerate(self.of):
            if part.index not in definition.named_indexes:
                detail = f"no index {shown(part.index)}; there are {named(definition.named_indexes)}"
                raise InvalidRequest("unknown_index", detail, f"{where}.of[{i}].index")
            try:
                filters.parse(definition, part.filter)
            except InvalidRequest as error:
                raise InvalidRequest(error.code, error.detail, f"{where}.of[{i}].{error.field}") from error

    def run(self, run: Run, answer: Answer) -> Answer:
        begun = time.perf_counter()
        found, left_out = self._found(run)
        hits, kind = self._alone(run, found) if len(self.of) == 1 else self._fused(run, found)
        steps = answer.steps
        if run.ask.explain:
            steps = (*steps, self._report(found, left_out, time.perf_counter() - begun))
        return Answer(hits, kind, found, left_out, steps)

    # Searching

    def _found(self, run: Run) -> tuple[dict[str, IndexFound], dict[str, str]]:
        if len(self.of) == 1:
            return {self.of[0].index: self._search(run, self.of[0])}, {}
        running = {run.pool.submit(self._search, run, part): part.index for part in self.of}
        found, left_out = self._taken(run, running)
        order = [part.index for part in self.of]
        return {name: found[name] for name in order if name in found}, left_out

    def _search(self, run: Run, part: IndexSearch) -> IndexFound:
        ask = run.ask
        definition = ask.collection.definition
        own = filters.parse(definition, part.filter)
        # Of several the window and no more: a page further on is of the same rankings, and so of the same fusion.
        depth = ask.needed if len(self.of) == 1 else ask.window
        return run.indexes.search(
            ask.collection.index(part.index),
            ask.input if part.text is None else Text(part.text),
            Part(
                needed=part.depth or depth,
                tenant=ask.tenant,
                filter=filters.both(ask.filter, own),
                with_fields=ask.with_fields,
                rerank=ask.rerank,
                passages=ask.passages,
            ),
        )

    @staticmethod
    def _taken(run: Run, running: Mapping[Future[IndexFound], str]) -> tuple[dict[str, IndexFound], dict[str, str]]:
        """What came in time, and why the rest is left out. Raises what kept all of them from an answer.

        A budget never leaves nothing: the first answer is waited for. Without one, an index that cannot be searched
        fails the search.
        """
        budget = run.ask.seconds_left()
        found: dict[str, IndexFound] = {}
        failed: dict[str, Exception] = {}

        def take(done: Iterable[Future[IndexFound]]) -> None:
            for future in done:
                try:
                    found[running[future]] = future.result()
                except (InvalidRequest, Unavailable) as error:
                    if isinstance(error, Unavailable) and budget is None:
                        raise
                    failed[running[future]] = error

        done, late = wait(running, budget)
        take(done)
        while late and not found:
            done, late = wait(late, return_when=FIRST_COMPLETED)
            take(done)
        if not found:
            raise next(iter(failed.values()))
        left_out = {name: str(error) for name, error in failed.items()}
        return found, left_out | {running[future]: "not within the budget" for future in late}

    # One ranking

    def _alone(self, run: Run, found: Mapping[str, IndexFound]) -> tuple[list[PlanHit], str]:
        ((name, part),) = found.items()
        return [
            PlanHit(hit, hit.score, {name: Place(hit.score, rank)}, self._passages(run, found, hit))
            for rank, hit in enumerate(part.hits, 1)
        ], part.score_kind

    def _fused(self, run: Run, found: Mapping[str, IndexFound]) -> tuple[list[PlanHit], str]:
        newest: dict[str, int] = {}
        for part in found.values():
            for hit in part.hits:
                newest[hit.key] = max(newest.get(hit.key, 0), hit.version)
        # An update reaches the stores of the indexes one after the other: only its newest version counts.
        rankings = {name: [hit for hit in part.hits if hit.version == newest[hit.key]] for name, part in found.items()}
        places = {
            name: {hit.key: Place(hit.score, rank) for rank, hit in enumerate(hits, 1)}
            for name, hits in rankings.items()
        }
        best = {hit.key: hit for hits in reversed(rankings.values()) for hit in hits}
        weights = {part.index: part.weight for part in self.of}
        fused = self.fuse.fuse(
            [
                Ranking(name, weights[name], [Ranked(key, place.score, place.rank) for key, place in ranking.items()])
                for name, ranking in places.items()
            ]
        )
        return [
            PlanHit(
                best[one.key],
                one.score,
                {name: ranking[one.key] for name, ranking in places.items() if one.key in ranking},
                self._passages(run, found, best[one.key]),
            )
            for one in fused
        ], self.fuse.kind

    @staticmethod
    def _passages(run: Run, found: Mapping[str, IndexFound], hit: Hit) -> tuple[Passage, ...]:
        """The chunks that were found of a document, those of the first index first; each text once."""
        if run.ask.passages <= 1:
            return ()
        passages: dict[str, Passage] = {}
        for name, part in found.items():
            for chunk in part.passages.get(hit.key, ()):
                if chunk.version == hit.version:
                    passages.setdefault(chunk.text, Passage(name, chunk))
        return tuple(passages.values())[: run.ask.passages]

    def _report(self, found: Mapping[str, IndexFound], left_out: Mapping[str, str], seconds: float) -> dict[str, Any]:
        """For `explain`."""
        parts = [
            {"index": part.index, "weight": part.weight}
            | ({"left_out": left_out[part.index]} if part.index in left_out else found[part.index].report())
            for part in self.of
        ]
        told: dict[str, Any] = {"step": "search", "milliseconds": round(seconds * 1000, 3), "of": parts}
        return told if len(self.of) == 1 else told | {"fuse": self.fuse.model_dump(mode="json")}
