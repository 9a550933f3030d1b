"""`make bench-upgrade`: what every way of carrying queries into an old index is worth, on judged collections.

Encoders run on Triton (vectors are cached by content in DRIFTLINE_BENCH_CACHE). The tables are made with exact search,
so that their figures are those of the maps alone; `tests.bench.served` adds what the running service serves. Two sets
of pairs: leak-safe ones, that no judged query asks for, and as many at random.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from driftline.drift.quality import Interval, paired
from tests.bench.arms import COLLECTIONS, MODELS, Arm, arms
from tests.bench.curves import FRACTIONS, MERGES, curves, draw
from tests.bench.encoders import Encoders, prepare
from tests.bench.system import ROOT, commit, machine, say, system
from tests.bench.ways import BUDGET, Figures, pairs_needed, rows_of, table

MARGIN = 0.01
CASCADE = "served cascade"


@dataclass(frozen=True)
class Section:
    """What the page tells of one arm, and what its summary needs."""

    arm: Arm
    figures: Figures
    decision: str
    text: str
    falls: dict[str, int]

    def against(self, name: str) -> Interval:
        return paired(self.figures.of(name).ndcg.tolist(), self.figures.of("status quo").ndcg.tolist())


def section(arm: Arm) -> Section:
    safe = arm.judged.unjudged()
    decided, asked = arm.choice()
    figures = Figures(rows_of(arm, decided))
    lines, drawn, fallen = curves(arm, decided, asked)
    picture = f"{arm.judged.name}-{arm.old}-{arm.new}.png"
    draw(arm, drawn, float(figures.of("status quo").ndcg.mean()), ROOT / "docs/pictures/upgrade" / picture)
    text = "\n\n".join(
        [
            f"## {arm.name} ({arm.regime})",
            f"{len(arm.judged.queries)} judged queries, {len(arm.old_documents)} documents, {len(safe)} leak-safe.",
            table(figures),
            f"Choice: {decided.reason}.",
            f"Pairs needed (scaled_procrustes / ridge): {pairs_needed(arm, safe)}.",
            f"### Backfill\n\n{lines}\n\n![backfill curve](pictures/upgrade/{picture})",
        ]
    )
    return Section(arm, figures, decided.decision, text, fallen)


def summary(sections: Sequence[Section]) -> str:
    lines = [
        "| collection | change | status quo | re-index gains | served, nothing re-embedded | against the status quo "
        f"| U | cascade of {BUDGET:.0%} a query | against the status quo | U of one round by the old encoder | U |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for s in sections:
        chosen, one, two = (s.figures.of(n) for n in ("chosen", "status quo, cascade", CASCADE))
        us = ["n/a" if u is None else f"{u:.2f}" for u in (s.figures.captured(r) for r in (chosen, one, two))]
        cells = [s.arm.judged.name, f"{s.arm.old} to {s.arm.new}", f"{s.figures.of('status quo').ndcg.mean():.4f}"]
        cells += [str(s.against("re-index")), f"{chosen.ndcg.mean():.4f} ({s.decision})", str(s.against("chosen"))]
        cells += [us[0], f"{two.ndcg.mean():.4f}", str(s.against(CASCADE)), us[1], us[2]]
        lines.append("| " + " | ".join(cells) + " |")
    real = [s for s in sections if s.figures.real]
    floor = [s for s in sections if s.against("chosen").mean < -MARGIN * s.figures.of("status quo").ndcg.mean()]
    short = [s for s in real if (s.figures.captured(s.figures.of(CASCADE)) or 0) < 0.9]
    above = [s for s in real if s.against(CASCADE).low > 0]
    fallen = ", ".join(f"{merge} {sum(s.falls[merge] for s in real)}" for merge, _ in MERGES)
    steps = 2 * len(real) * (len(FRACTIONS) - 1)
    lines += [
        "",
        f"- Served with nothing re-embedded under the status quo - 1 %: {len(floor)} of {len(sections)} changes"
        f"{_named(floor)}.",
        f"- {len(real)} changes are real upgrades (the re-index is better than the status quo beyond noise). With a "
        f"cascade of {BUDGET:.0%} of the corpus a query, search is better than the status quo, beyond noise, in "
        f"{len(above)} of them; U >= 0.9 in {len(real) - len(short)}, less in {len(short)}{_named(short)}.",
        f"- Falls of the {2 * len(real)} backfill curves of real upgrades beyond the 95 % interval, in {steps} steps, "
        f"of which chance alone would take {steps / 40:.0f} if the curves were flat, by merge: {fallen}.",
    ]
    return "\n".join(lines)


def _named(sections: Sequence[Section]) -> str:
    return " (" + "; ".join(s.arm.name for s in sections) + ")" if sections else ""


def head() -> str:
    return (
        "# The upgrade, measured\n\n<!-- Written by `make bench-upgrade`. -->\n\n"
        f"{machine()}; commit {commit()}, {time.strftime('%Y-%m-%d')}. Vectors by Triton, exact search, nDCG@10 with\n"
        "linear gain; intervals are 95 %, paired bootstrap over queries. U is the share of the upgrade's gain that is\n"
        "served (n/a when the upgrade itself is no real gain), R the share of the way from naive to re-index.\n"
        "`x+old*0.5` mixes the old encoder's query in. Fitted on leak-safe pairs; `random pairs` is the nDCG@10 with\n"
        "as many at random, which may be what the judged queries ask for. A cascade embeds some of the old index's\n"
        "hits by the new model while it answers; what it embedded stays, so the share of the corpus that all judged\n"
        "queries together had re-embedded is beside the share of one query.\n"
        f"Collections of this run: {', '.join(COLLECTIONS)}."
    )


def main() -> int:
    prepare(MODELS, say)
    with system(MODELS) as stack:
        sections = []
        for arm in arms(Encoders(stack.addresses["triton"]), say):
            sections.append(section(arm))
            say(sections[-1].text[:300])
    parts = [head(), "## In one table", summary(sections), "## Through the service", *[s.text for s in sections]]
    (ROOT / "docs/benchmarks-upgrade.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
