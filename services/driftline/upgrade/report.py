"""The page about an upgrade: plain HTML with the curve as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from driftline.upgrade.state import Estimate
from driftline.upgrade.view import UpgradeView

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 760, 320, 52, 30, 40, 16
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 800px; margin: 40px auto; padding: 0 16px; }
h1 { font-size: 24px; margin-bottom: 4px; } h2 { font-size: 17px; margin-top: 32px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: 3px 18px 3px 0; vertical-align: top; }
th { font-weight: 600; color: #5a6675; } .note { color: #5a6675; } code { font-size: 13px; }
"""


def page(upgrade: UpgradeView) -> str:
    title = f"{upgrade.collection}: {upgrade.aim}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='note'>upgrade {escape(str(upgrade.id))}, {_word(upgrade.phase)}"
        f"{', paused' if upgrade.paused else ''}; {_percent(upgrade.fraction)} re-embedded</p>",
        _facts(upgrade),
        "<h2>Quality while it was re-embedded</h2>",
        _plot(upgrade.curve),
        "<p class='note'>nDCG@10 of the shadow queries, each made from a document that no map was fitted on. The band "
        "is the 95&nbsp;% interval of the difference to the status quo, put on top of it.</p>",
        "<h2>The ways of searching the older generation</h2>",
        _candidates(upgrade.fit),
        "<h2>When</h2>",
        _table([(_word(phase), _time(at)) for phase, at in upgrade.entered_us.items()]),
    ]
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _facts(upgrade: UpgradeView) -> str:
    progress = upgrade.progress
    route = ", ".join(f"generation {leg.generation} ({leg.carry})" for leg in upgrade.route) or "one generation"
    rows = [("served", route)]
    if upgrade.fallback:
        rows.append(("fallen back", upgrade.fallback))
    if upgrade.reason:
        rows.append(("because", upgrade.reason))
    if upgrade.last is not None:
        mean, low, high = upgrade.last.difference
        rows.append(
            ("against doing nothing", f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] nDCG@10, {upgrade.last.queries} queries")
        )
    rows.append(("documents", f"{progress.done} of {progress.total}, {progress.per_second:g} per second"))
    if progress.refused:
        rows.append(("refused by the new encoder", f"{progress.refused}: see the dead letters"))
    rows.append(("cost beside the backfill", f"{upgrade.encoded} texts encoded for the sample"))
    return _table(rows)


def _plot(curve: Sequence[Estimate]) -> str:
    if len(curve) < 2:
        return "<p class='note'>Two estimates make a curve; there are not that many yet.</p>"
    values = [value for c in curve for value in (c.served, c.status_quo)]
    low, high = max(0.0, min(values) - 0.03), min(1.0, max(values) + 0.05)
    step = next((s for s in _STEPS if (high - low) / s <= 5), _STEPS[-1])
    low, high = step * math.floor(low / step), step * math.ceil(high / step)

    def x(fraction: float) -> float:
        return _LEFT + fraction * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share: float = (high - value) / max(high - low, 1e-9)
        return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    def line(values: Iterable[float]) -> str:
        return " ".join(f"{x(c.fraction):.1f},{y(value):.1f}" for c, value in zip(curve, values, strict=True))

    upper = [(x(c.fraction), y(min(high, c.status_quo + c.difference[2]))) for c in curve]
    lower = [(x(c.fraction), y(max(low, c.status_quo + c.difference[1]))) for c in curve]
    band = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
    ticks = [low + step * i for i in range(round((high - low) / step) + 1)]
    grid = "".join(
        f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y(t):.1f}' y2='{y(t):.1f}' stroke='#e3e7ec'/>"
        f"<text x='{_LEFT - 8}' y='{y(t) + 4:.1f}' text-anchor='end'>{t:.2f}</text>"
        for t in ticks
    )
    below = "".join(
        f"<text x='{x(f):.1f}' y='{_HEIGHT - 18}' text-anchor='middle'>{f:.0%}</text>" for f in (0, 0.25, 0.5, 0.75, 1)
    )
    points = "".join(f"<circle cx='{x(c.fraction):.1f}' cy='{y(c.served):.1f}' r='3.5' fill='#2f6fdf'/>" for c in curve)
    return (
        "<svg xmlns='http://www.w3.org/2000/svg' font-family='system-ui, sans-serif' "
        f"viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%' font-size='12' fill='#5a6675' role='img' "
        f"aria-label='nDCG@10 over the re-embedded share'>{grid}{below}"
        f"<polygon points='{band}' fill='#2f6fdf' fill-opacity='0.13'/>"
        f"<polyline points='{line(c.status_quo for c in curve)}' fill='none' stroke='#8a94a1' stroke-width='2' "
        "stroke-dasharray='6 4'/>"
        f"<polyline points='{line(c.served for c in curve)}' fill='none' stroke='#2f6fdf' stroke-width='2.5'/>{points}"
        f"<text x='{_LEFT + 12}' y='{_TOP + 12}' fill='#2f6fdf'>served</text>"
        f"<text x='{_LEFT + 72}' y='{_TOP + 12}'>status quo (dashed)</text>"
        f"<text x='{(_LEFT + _WIDTH) / 2:.0f}' y='{_HEIGHT - 2}' text-anchor='middle'>re-embedded</text></svg>"
    )


def _candidates(fit: Mapping[str, Any]) -> str:
    if not fit:
        return "<p class='note'>Nothing was fitted.</p>"
    rows = [("re-indexed, on the sample", fit["reindexed"]), ("status quo, on the sample", fit["status_quo"])]
    rows += sorted(fit["candidates"].items(), key=lambda item: -item[1])[:12]
    rows += [("naive", fit["naive"])]
    named = [(f"{name} (chosen)" if name == fit["chosen"] else name, f"{value:.4f}") for name, value in rows]
    captured = "n/a: the upgrade is not real on this sample" if fit["captured"] is None else f"{fit['captured']:.2f}"
    return _table([*named, ("share of the upgrade captured (U)", captured)])


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    body = "".join(f"<tr><th>{escape(str(a))}</th><td>{escape(str(b))}</td></tr>" for a, b in rows)
    return f"<table>{body}</table>"


def _word(phase: str) -> str:
    return phase.replace("_", " ")


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
