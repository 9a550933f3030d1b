"""Fitting probabilities of relevance to judged scores."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.core.errors import InvalidRequest
from driftline.retrieval.calibrate import fit_logistic


def test_the_curve_that_made_the_judgements_is_found() -> None:
    rng = np.random.default_rng(3)
    scores = rng.uniform(0, 20, 20_000)
    relevant = rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * scores - 9)))
    slope, intercept = fit_logistic(scores.tolist(), relevant.tolist())
    assert (slope, intercept) == (pytest.approx(0.7, rel=0.05), pytest.approx(-9, rel=0.05))


@pytest.mark.parametrize("seed", range(20))
def test_a_few_relevant_hits_among_thousands_have_a_sane_curve(seed: int) -> None:
    """As of a ranking of 100 with one good document: a whole Newton step led nowhere there."""
    rng = np.random.default_rng(seed)
    scores = rng.exponential(3, 15_000)
    relevant = rng.random(15_000) < 1 / (1 + np.exp(-(0.9 * scores - 12)))
    relevant[int(scores.argmax())] = True
    slope, intercept = fit_logistic(scores.tolist(), relevant.tolist())
    assert 0.5 < slope < 1.5
    assert -20 < intercept < -7


def test_scores_that_separate_perfectly_have_a_finite_curve() -> None:
    slope, intercept = fit_logistic([1.0, 2.0, 3.0, 4.0], [False, False, True, True])
    assert np.isfinite([slope, intercept]).all()
    assert slope > 0
    assert -intercept / slope == pytest.approx(2.5, abs=0.1)


def test_scores_that_tell_nothing_get_the_share_of_relevant_hits() -> None:
    assert fit_logistic([1.0, 2.0, 3.0, 4.0], [True, True, False, False]) == (0.0, 0.0)
    assert fit_logistic([5.0] * 4, [True, False, False, False])[0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("relevant", [[], [True], [False, False]])
def test_hits_of_one_kind_tell_nothing(relevant: list[bool]) -> None:
    with pytest.raises(InvalidRequest, match="of both kinds"):
        fit_logistic([1.0] * len(relevant), relevant)
