"""The planted bugs, each one edit of the product's code, and the cheapest tests that must catch it.

Only the tests' own code knows of them: `apply` is called by the runner of this package, by a service started with
`python -m tests.mutants.run`, and by nobody else.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from operator import attrgetter

from tests.mutants.edit import edit

FOLD = "tests/unit/test_fold.py"
PIPELINE = "tests/unit/test_pipeline.py"
RUNNER = "tests/unit/test_runner.py"
OWNERSHIP = "tests/unit/test_ownership.py"
MERGE = "tests/unit/test_merge.py"
LOGS = "tests/unit/test_logs_anew.py"
EMBEDDINGS = "tests/unit/test_embeddings.py"
HYBRID = "tests/unit/test_hybrid.py"
PLANS = "tests/unit/test_plans.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`where` is module:function, `before` what stands there exactly once, `after` the bug."""

    name: str
    part: str
    breaks: str
    where: str
    before: str
    after: str
    caught_by: tuple[str, ...]


MUTANTS = (
    Mutant(
        "late-wins",
        "fold",
        "a late event overwrites a newer one, and brings back what was deleted",
        "driftline.index.fold:fold",
        "known is not None and rank < _rank(known.version, known.deleted)",
        "False",
        (FOLD,),
    ),
    Mutant(
        "last-wins",
        "fold",
        "within a batch the last event wins, whatever its version",
        "driftline.index.fold:fold",
        "best is None or rank >= _rank(",
        "True or rank >= _rank(",
        (FOLD,),
    ),
    Mutant(
        "delete-ties",
        "fold",
        "a delete no longer wins against an upsert of its own version",
        "driftline.index.fold:_rank",
        "return version, deleted",
        "return version, False",
        (FOLD,),
    ),
    Mutant(
        "oldest-generation",
        "fold",
        "of what the generations hold of a document the oldest version decides",
        "driftline.index.fold:_newest",
        "return max(",
        "return min(",
        (FOLD,),
    ),
    Mutant(
        "no-trims",
        "trims",
        "a document that got shorter keeps its last chunks",
        "driftline.index.fold:_Plans.upsert",
        "if old > len(document.chunks)",
        "if False",
        (FOLD,),
    ),
    Mutant(
        "trims-one-short",
        "trims",
        "one chunk too many is left of a document that got shorter",
        "driftline.index.fold:_Plans.upsert",
        "(document.key, len(document.chunks), old)",
        "(document.key, len(document.chunks) + 1, old)",
        (FOLD,),
    ),
    Mutant(
        "no-tombstones",
        "tombstones",
        "a delete takes the rows out and leaves no tombstone",
        "driftline.index.fold:_Plans.delete",
        "self._removals[generation].append(Removal(key, version, self._chunks(generation, key)))",
        "self._trims[generation].append((key, 0, self._chunks(generation, key)))",
        (PIPELINE,),
    ),
    Mutant(
        "early-purge",
        "tombstones",
        "tombstones are purged while the log still holds older events",
        "driftline.index.housekeeping:Housekeeper.purge",
        "self._clock() - self._tombstone_us",
        "self._clock()",
        ("tests/unit/test_housekeeping.py",),
    ),
    Mutant(
        "backfill-resurrects",
        "generations",
        "a backfill brings back what was deleted or changed meanwhile",
        "driftline.index.fold:_backfill",
        "newest is None or newest.deleted or newest.version != record.version",
        "newest is None",
        (FOLD,),
    ),
    Mutant(
        "backfill-outruns",
        "generations",
        "a backfill is written although its batch has a change of the document",
        "driftline.index.fold:_backfill",
        "if key in winners:",
        "if False:",
        (FOLD,),
    ),
    Mutant(
        "newest-first",
        "generations",
        "the new generation is written before the complete one",
        "driftline.index.stage:IndexStage._write",
        "sorted(group.targets.items())",
        "sorted(group.targets.items(), reverse=True)",
        (OWNERSHIP,),
    ),
    Mutant(
        "merge-old-copy",
        "merge",
        "a search finds the older generation's copy of what the newer one holds",
        "driftline.retrieval.engine:_merged",
        "if hit.leg == 0 or known.get(hit.key, 0) < hit.version",
        "if True",
        (MERGE,),
    ),
    Mutant(
        "merge-by-score",
        "merge",
        "of two copies of a document the better score counts, not the newer generation's",
        "driftline.drift.merge:merge",
        "(hit.version, -hit.leg) > (known.version, -known.leg)",
        "hit.score > known.score",
        (MERGE,),
    ),
    Mutant(
        "merge-old-chunk",
        "merge",
        "a chunk of an older version, not yet trimmed, is found",
        "driftline.retrieval.leg_search:group",
        "if hit.version == newest[hit.key]:",
        "if True:",
        (MERGE,),
    ),
    Mutant(
        "commit-first",
        "commit order",
        "offsets are committed before the results are published",
        "driftline.core.runner:Runner._finish",
        "refused = self._publish(",
        "self._subscriber.commit(batch.next_offsets()); refused = self._publish(",
        (RUNNER,),
    ),
    Mutant(
        "commit-too-far",
        "commit order",
        "the offset that is committed skips the next record",
        "driftline.core.runner:_Batch.next_offsets",
        "record.offset + 1",
        "record.offset + 2",
        (f"{RUNNER}::test_stop_drains_what_is_in_flight",),
    ),
    Mutant(
        "receipts-early",
        "commit order",
        "a receipt says searchable before the write is visible",
        "driftline.index.stage:IndexStage._settle",
        "if timestamp > recent.visible:",
        "if False:",
        (OWNERSHIP,),
    ),
    Mutant(
        "no-fence-writing",
        "fencing",
        "a write begins although the lease on the partitions has run out",
        "driftline.index.stage:IndexStage.guard",
        "if remaining <= 0:",
        "if False:",
        (PIPELINE,),
    ),
    Mutant(
        "no-fence-publishing",
        "fencing",
        "results are published although the lease has run out",
        "driftline.core.runner:Runner._publish",
        "if self._subscriber.lease_seconds() <= 0:",
        "if False:",
        (f"{RUNNER}::test_nothing_is_published_without_a_lease",),
    ),
    Mutant(
        "remembers-lost",
        "fencing",
        "versions known from an earlier ownership are still trusted",
        "driftline.index.stage:IndexStage.reset",
        "self._recent.clear()",
        "pass",
        (OWNERSHIP,),
    ),
    Mutant(
        "keeps-no-unsettled",
        "fencing",
        "versions are forgotten before their write can be read back",
        "driftline.index.stage:RecentVersions.mark_visible",
        "if written > self.visible:",
        "if False:",
        (OWNERSHIP,),
    ),
    Mutant(
        "no-reset",
        "fencing",
        "the stage is not told that partitions were assigned anew",
        "driftline.core.runner:Runner.on_assigned",
        "self._stage.reset()",
        "pass",
        (OWNERSHIP,),
    ),
    Mutant(
        "no-rewind",
        "retry",
        "what a dependency's outage put off is not read again",
        "driftline.core.runner:Runner._put_off",
        "self._subscriber.rewind(self._abandon())",
        "self._abandon()",
        (RUNNER,),
    ),
    Mutant(
        "buffer-lost",
        "retry",
        "records that were polled and not yet batched are lost in a rebalance",
        "driftline.core.runner:Runner._abandon",
        "for record in self._buffer:",
        "for record in ():",
        (f"{RUNNER}::test_what_was_only_buffered_is_read_again_when_the_partition_stays",),
    ),
    Mutant(
        "half-an-answer",
        "retry",
        "a batch goes on although the encoder did not answer for all of it",
        "driftline.retrieval.embeddings:CachedEncoder.encode",
        "raise failure",
        "pass",
        (PIPELINE,),
    ),
    Mutant(
        "one-for-all",
        "dedupe",
        "texts that are encoded together get the vector of the first",
        "driftline.retrieval.embeddings:TextEncoder._encode",
        "answers.update(zip(request, answer, strict=True))",
        "answers.update((text, answer[0]) for text in request)",
        (EMBEDDINGS,),
    ),
    Mutant(
        "offsets-as-versions",
        "incarnations",
        "a version is the bare offset: a new life of the log starts below the old",
        "driftline.encode.stage:EncodeStage._identity",
        "event.version or base + change.position.offset",
        "event.version or change.position.offset + 1",
        (PIPELINE,),
    ),
    Mutant(
        "no-outranking",
        "incarnations",
        "a log made anew while a clock is behind does not outrank its former life",
        "driftline.core.provision:register_log",
        "known.base_version + _EVENTS_OF_A_LIFE if known else 0",
        "0",
        (LOGS,),
    ),
    Mutant(
        "put-off-anew",
        "receipts",
        "an event that was put off gets its receipt at its second position, where nobody waits for it",
        "driftline.encode.stage:EncodeStage._identity",
        "event.origin or change.position",
        "change.position",
        (PIPELINE,),
    ),
    Mutant(
        "silent-supersede",
        "receipts",
        "an event that lost against a newer one gets no receipt",
        "driftline.index.stage:IndexStage._settle",
        "not isinstance(verdict, _PutOff)",
        "not getattr(verdict, 'superseded_by', 1)",
        (PIPELINE,),
    ),
    Mutant(
        "reads-own-write-early",
        "receipts",
        "a search that waits for a write answers before it is indexed",
        "driftline.core.receipts:ReceiptTail.wait_indexed",
        "position in self._receipts or",
        "bool(self._receipts) or",
        (LOGS,),
    ),
    Mutant(
        "nothing-stays",
        "several indexes",
        "an index keeps what it had of a document whose new version has nothing for it",
        "driftline.index.fold:_Plans.take_out",
        "known is not None and known.version < version",
        "False",
        (HYBRID,),
    ),
    Mutant(
        "short-records",
        "several indexes",
        "a record that lacks an index, since it was encoded before that was added, is written all the same",
        "driftline.index.stage:IndexStage._sort_in",
        "not {i.complete.number for i in collection.finished} <= held",
        "False",
        (HYBRID,),
    ),
    Mutant(
        "two-versions",
        "several indexes",
        "a document that two indexes have in two versions counts in both",
        "driftline.retrieval.plan.search:SearchStep._fused",
        "hit.version == newest[hit.key]",
        "True",
        (PLANS,),
    ),
    Mutant(
        "half-filled",
        "several indexes",
        "an index that is being filled is searched",
        "driftline.retrieval.index_search:IndexSearcher.search",
        "not index.is_finished",
        "False",
        (PLANS,),
    ),
    Mutant(
        "one-source",
        "several indexes",
        "an index that is added is filled from the first of the others alone",
        "driftline.upgrade.watcher:Watcher.sources",
        "return [collection.target(g, self._view.space(g.space)) for g in complete], new",
        "return [collection.target(g, self._view.space(g.space)) for g in complete[:1]], new",
        ("tests/unit/test_changes.py",),
    ),
)
BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def apply(name: str) -> None:
    """Plant a bug in this process. Raises KeyError, and StaleMutantError when the code has changed under it."""
    mutant = BY_NAME[name]
    module, _, path = mutant.where.partition(":")
    edit(attrgetter(path)(importlib.import_module(module)), mutant.before, mutant.after)
