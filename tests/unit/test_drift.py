"""Query drift compensation on spaces whose relation is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.drift import stored
from driftline.drift.affine import LowRank, Procrustes, Ridge, ScaledProcrustes
from driftline.drift.base import Compensator, Matrix, Pairs, unit
from driftline.drift.calibration import IDENTITY, METHODS, Calibration, ScoredPairs, fit, scored_pairs
from driftline.drift.local import LocalResidual
from driftline.drift.mlp import ResidualMlp
from driftline.drift.monitor import baseline, overlap, residual, shift
from driftline.drift.quality import captured, paired, recovered
from driftline.drift.selection import HeldOut, choose, covered, mixed, ndcg_rows
from driftline.drift.translation import Identity, MeanDrift

CLOSED_FORM: list[type[Compensator]] = [
    Identity, MeanDrift, Procrustes, ScaledProcrustes, Ridge, LowRank, LocalResidual,
]  # fmt: skip


def cloud(count: int, dimension: int, seed: int = 0) -> Matrix:
    """Unit vectors around a few topics: structured, as texts are, and with a common mean."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(12, dimension)) + 0.5
    return unit(topics[rng.integers(0, 12, count)] + 0.7 * rng.normal(size=(count, dimension)))


def turned(rows: Matrix, dimension: int, seed: int = 1) -> Matrix:
    """The same points in another space: a rotation into `dimension` dimensions, some noise."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(max(dimension, rows.shape[1]),) * 2))[0]
    return unit(rows @ basis[: rows.shape[1], :dimension] + 0.01 * rng.normal(size=(len(rows), dimension)))


def cosine(a: Matrix, b: Matrix) -> float:
    return float((a * b).sum(axis=1).mean())


@pytest.mark.parametrize("kind", CLOSED_FORM)
def test_answers_are_unit_vectors_of_the_old_space_and_repeatable(kind: type[Compensator]) -> None:
    old = cloud(300, 24)
    pairs = Pairs(turned(old, 24), old)
    mapped = kind.fit(pairs).apply(pairs.new[:7])
    assert mapped.shape == (7, 24)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(mapped, kind.fit(pairs).apply(pairs.new[:7]))


@pytest.mark.parametrize("kind", [Procrustes, ScaledProcrustes, Ridge, LowRank, LocalResidual])
@pytest.mark.parametrize("dimension", [16, 24, 40])
def test_a_rotation_is_undone_whatever_the_dimensions(kind: type[Compensator], dimension: int) -> None:
    old = cloud(1_200, 24)
    new = turned(old, dimension)
    fitted = kind.fit(Pairs(new[:1_000], old[:1_000]))
    # In 16 dimensions a third of the old space's information is gone for good.
    assert cosine(fitted.apply(new[1_000:]), old[1_000:]) > (0.85 if dimension == 16 else 0.98)


def test_mean_drift_undoes_a_translation_and_adds_up_over_steps() -> None:
    """Over several updates it is the sum of the drifts of each (equation 5 of the paper)."""
    first = cloud(400, 16)
    shift = np.full(16, 0.05, dtype=np.float32)
    second, third = unit(first + shift), unit(first + 2 * shift)
    steps = [MeanDrift.fit(Pairs(second, first)), MeanDrift.fit(Pairs(third, second))]
    direct = MeanDrift.fit(Pairs(third, first))
    np.testing.assert_allclose(sum(step.drift for step in steps), direct.drift, atol=1e-6)
    assert cosine(direct.apply(third), first) > cosine(third, first)


def test_mean_drift_refuses_spaces_of_two_dimensions() -> None:
    with pytest.raises(ValueError, match="same dimension"):
        MeanDrift.fit(Pairs(cloud(10, 8), cloud(10, 9)))


def test_a_map_refuses_vectors_of_another_dimension() -> None:
    fitted = Ridge.fit(Pairs(cloud(50, 8), cloud(50, 9)))
    with pytest.raises(ValueError, match="dimension 8"):
        fitted.apply(cloud(1, 9))


@pytest.mark.parametrize(
    "new, old", [((3, 4), (4, 4)), ((1, 4), (1, 4)), ((4,), (4, 1))], ids=["unpaired", "one", "flat"]
)
def test_pairs_that_are_none_are_refused(new: tuple[int, ...], old: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        Pairs(np.ones(new, np.float32), np.ones(old, np.float32))


def test_pairs_with_nan_are_refused() -> None:
    bad = cloud(4, 4)
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        Pairs(bad, cloud(4, 4))


def test_fewer_pairs_than_dimensions_still_give_a_map() -> None:
    old = cloud(10, 64)
    for kind in CLOSED_FORM:
        assert np.isfinite(kind.fit(Pairs(turned(old, 64), old)).apply(old[:2])).all()


# Calibration


def scores(seed: int = 0) -> ScoredPairs:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 1, 2_000)
    return ScoredPairs(0.2 + 0.3 * true**2, 0.5 + 0.4 * true)


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_never_reverses_an_order(method: str) -> None:
    calibration = fit(scores(), method)  # type: ignore[arg-type]
    values = np.linspace(-2, 2, 400)
    assert (np.diff(calibration.apply(values)) >= 0).all()


@pytest.mark.parametrize("method, error", [("quantile", 0.005), ("isotonic", 0.01), ("moment", 0.04)])
def test_a_calibration_carries_scores_to_the_other_scale(method: str, error: float) -> None:
    pairs = scores()
    assert np.abs(fit(pairs, method).apply(pairs.old) - pairs.new).mean() < error  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.lists(st.floats(0, 1), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_scores_give_a_growing_calibration_or_a_clear_error(old: list[float], new: list[float]) -> None:
    count = min(len(old), len(new))
    pairs = ScoredPairs(np.array(old[:count]), np.array(new[:count]))
    for method in METHODS:
        flat = np.ptp(pairs.old) < 1e-9 or np.ptp(pairs.new) < 1e-9
        if flat and method != "none":
            with pytest.raises(ValueError, match="calibration"):
                fit(pairs, method)
            continue
        try:
            mapped = fit(pairs, method).apply(np.linspace(-1, 2, 50))
        except ValueError:
            # Two scores that only differ by rounding may still fall into one knot.
            assert np.ptp(pairs.old) < 1e-6
            continue
        assert (np.diff(mapped) >= -1e-12).all()


def test_scored_pairs_compare_ranks_of_the_same_query() -> None:
    old = cloud(200, 16)
    new = turned(old, 16)
    found = scored_pairs(old[:5], new[:5], old, new, depth=10)
    assert found.old.shape == found.new.shape == (50,)
    np.testing.assert_allclose(found.old[::10], 1, atol=1e-5)


def test_a_calibration_is_checked() -> None:
    assert IDENTITY.apply([0.25, 3.0]).tolist() == [0.25, 3.0]
    for source, target in (((0.0,), (0.0,)), ((0.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (1.0, 0.0))):
        with pytest.raises(ValueError, match="calibration"):
            Calibration(source, target)


# Quality


def test_a_paired_interval_covers_the_difference() -> None:
    rng = np.random.default_rng(3)
    base = rng.uniform(0, 1, 400)
    interval = paired((base + 0.05).tolist(), base.tolist())
    assert interval.mean == pytest.approx(0.05)
    assert interval.low == pytest.approx(0.05) and interval.high == pytest.approx(0.05)
    noisy = paired((base + rng.normal(0, 0.2, 400)).tolist(), base.tolist())
    assert noisy.low < 0 < noisy.high
    with pytest.raises(ValueError, match="same queries"):
        paired([1.0], [])


def test_the_ratios_are_defined_only_where_they_mean_something() -> None:
    gap = paired([0.6] * 50, [0.5] * 50)
    assert captured(0.55, 0.5, 0.6, gap) == pytest.approx(0.5)
    assert captured(0.45, 0.5, 0.6, gap) == pytest.approx(-0.5)
    assert captured(0.55, 0.5, 0.5, paired([0.5] * 50, [0.5] * 50)) is None
    assert recovered(0.4, 0.2, 0.6) == pytest.approx(0.5)
    assert recovered(0.4, 0.6, 0.6) is None


def test_ndcg_of_rows_is_that_of_the_evaluation_module() -> None:
    from driftline.retrieval.evaluation import ndcg

    rng = np.random.default_rng(5)
    scores = rng.normal(size=(20, 60)).astype(np.float32)
    relevant = [{int(d): float(g) for d, g in zip(rng.integers(0, 60, 5), range(1, 6), strict=True)} for _ in range(20)]
    for i, value in enumerate(ndcg_rows(scores, relevant)):
        ranked = [str(d) for d in np.argsort(-scores[i], kind="stable")]
        assert value == pytest.approx(ndcg(ranked, {str(d): int(g) for d, g in relevant[i].items()}, 10))


# Choosing


def held_out(noise: float, old_noise: float = 0.5) -> tuple[Pairs, HeldOut]:
    """Known-item queries; the new space sees them through `noise`, the old one through `old_noise`."""
    rng = np.random.default_rng(7)
    truth = cloud(900, 32)

    def seen(rows: Matrix, amount: float) -> Matrix:
        return unit(rows + amount * rng.normal(size=rows.shape) / np.sqrt(32))

    basis = np.linalg.qr(rng.normal(size=(32, 32)))[0].astype(np.float32)
    old, new = seen(truth, 0.1), seen(truth, 0.1) @ basis
    asked = np.arange(600, 800)
    held = HeldOut(
        seen(truth[asked], noise) @ basis, seen(truth[asked], old_noise), new, old, [{int(i): 1.0} for i in asked]
    )
    return Pairs(unit(new[:600]), old[:600]), held


def test_a_better_model_is_served_through_a_map() -> None:
    pairs, held = held_out(noise=0.2, old_noise=1.2)
    chosen = choose(pairs, held)
    assert chosen.decision in ("map", "ensemble")
    assert chosen.against_status_quo.low > 0
    assert chosen.naive.mean() < 0.1
    summary = chosen.summary()
    assert summary["captured"] is not None


def test_a_worse_model_keeps_the_old_encoder_and_says_why() -> None:
    pairs, held = held_out(noise=4.0, old_noise=0.2)
    chosen = choose(pairs, held, kinds=("mean_drift",))
    assert chosen.decision == "status_quo"
    assert "the old encoder keeps answering" in chosen.reason
    with pytest.raises(ValueError, match="no map is good enough"):
        choose(pairs, held, kinds=("mean_drift",), old_encoder=False)


def test_what_is_re_ranked_is_found_by_the_way_that_covers_the_new_models_best() -> None:
    rng = np.random.default_rng(4)
    best = rng.normal(size=(20, 400)).astype(np.float32)
    assert covered(best, best) == 1.0
    assert covered(-best, best) == 0.0
    assert covered(rng.normal(size=best.shape).astype(np.float32), best) == pytest.approx(50 / 400, abs=0.06)
    pairs, held = held_out(noise=0.2)
    chosen = choose(pairs, held)
    allowed = [
        c for c in chosen.candidates if chosen.decision == "status_quo" or c.compensator is chosen.chosen.compensator
    ]
    assert chosen.finder.covered == max(c.covered for c in allowed)
    assert chosen.finder in allowed


def test_no_kind_that_fits_is_an_error() -> None:
    pairs, held = held_out(noise=0.2)
    with pytest.raises(ValueError, match="no compensator"):
        choose(Pairs(pairs.new[:, :16], pairs.old), held, kinds=("mean_drift",))


def test_mixing_is_bounded_by_its_ends() -> None:
    a, b = cloud(3, 8, 1), cloud(3, 8, 2)
    assert mixed(a, b, 0) is b
    assert mixed(a, b, 1) is a
    np.testing.assert_allclose(np.linalg.norm(mixed(a, b, 0.3), axis=1), 1, atol=1e-6)


# Storing


def test_the_network_begins_as_the_ridge_map_and_is_applied_without_torch() -> None:
    old = cloud(300, 12)
    pairs = Pairs(turned(old, 16), old)
    ridge = Ridge.fit(pairs)
    rng = np.random.default_rng(0)
    layers = {
        "w1": rng.normal(size=(256, 16)), "b1": rng.normal(size=256), "w2": np.zeros((12, 256)), "b2": np.zeros(12)
    }  # fmt: skip
    network = ResidualMlp(ridge, {name: array.astype(np.float32) for name, array in layers.items()})
    np.testing.assert_allclose(network.apply(pairs.new), ridge.apply(pairs.new), atol=1e-6)
    kept = stored.Compensation(network, "n", "o", IDENTITY).to_bytes()
    np.testing.assert_allclose(stored.read(kept).compensator.apply(pairs.new), network.apply(pairs.new), atol=1e-5)


@pytest.mark.parametrize("kind", CLOSED_FORM)
def test_a_stored_compensation_maps_as_before(kind: type[Compensator]) -> None:
    old = cloud(200, 12)
    fitted = kind.fit(Pairs(turned(old, 12), old))
    kept = stored.Compensation(fitted, "n", "o", fit(scores()), 0.3, 0.5, {"pairs": 200}, {"served": 0.5})
    content = kept.to_bytes()
    back = stored.read(content, "n", "o")
    np.testing.assert_allclose(back.compensator.apply(old), fitted.apply(old), atol=1e-5)
    assert (back.calibration, back.sample) == (kept.calibration, {"pairs": 200})
    assert (back.old_weight, back.finder_weight) == (0.3, 0.5)
    assert stored.identity_of(content) == stored.identity_of(kept.to_bytes())


def test_a_compensation_of_other_spaces_or_damaged_is_refused() -> None:
    old = cloud(50, 6)
    content = stored.Compensation(Identity.fit(Pairs(old, old)), "n", "o", IDENTITY).to_bytes()
    for args, message in ((("x", "o"), "from space n, not x"), (("n", "x"), "to space o, not x")):
        with pytest.raises(stored.CompensationError, match=message):
            stored.read(content, *args)
    for broken in (b"", content[:20], b"\xff" * 40, content[:-1] if len(content) % 2 else b"{}"):
        with pytest.raises(stored.CompensationError):
            stored.read(broken)


def test_the_monitor_is_quiet_on_the_fit_samples_kind_and_tells_another_kind() -> None:
    old = cloud(900, 24)
    new = turned(old, 24)
    compensator = ScaledProcrustes.fit(Pairs(new[:400], old[:400]))
    known = baseline(compensator, new[400:600], old[400:600])
    assert known.residual < 0.01
    assert residual(compensator, new[600:], old[600:]) == pytest.approx(known.residual, abs=0.005)
    assert shift(known, new[600:]) < 3 / np.sqrt(300) + 3 / np.sqrt(200)
    other = cloud(300, 24, seed=9)
    strange = turned(other, 24, seed=10)
    assert residual(compensator, strange, other) > 0.3
    assert shift(known, unit(strange + 2.0)) > 0.5


def test_overlap_counts_what_is_found_again() -> None:
    assert overlap([["a", "b"], ["c"]], [["b", "a"], ["d"]]) == 0.5
    assert overlap([["x"] * 3, []], [["a", "x"], []]) == 0.5
    assert overlap([], []) == 0.0
    assert overlap([["a", "b", "c"]], [["c", "b", "a"]], k=1) == 0.0
