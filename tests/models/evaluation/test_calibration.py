"""Tests of choosing beta and temperature."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import tiers
from models.evaluation import calibration
from models.evaluation.calibration import CalibrationError
from models.evaluation.evaluate import sweep
from models.evaluation.pairs import Sample
from models.evaluation.reports import SweepPoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.evaluation.scoring import Judge
    from models.manifest import Manifest


def drawn(n: int, *, sharpness: float = 1.0, seed: int = 0) -> tuple[Sample, NDArray[np.float32]]:
    """A sample whose labels are drawn from known probabilities, and logits `sharpness` times too confident."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, size=(n, 4)).astype(np.float32)
    p = tiers.softmax(logits)
    truth = np.array([generator.choice(4, p=row / row.sum()) for row in p.astype(np.float64)])
    return Sample(np.arange(n) // 4, np.arange(n) // 8, truth, 4), logits * np.float32(sharpness)


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_temperature_undoes_overconfidence(sharpness: float) -> None:
    """Logits that are too sharp or too flat by a factor get that factor as their temperature."""
    sample, logits = drawn(4000, sharpness=sharpness)
    assert calibration.fit_temperature(logits, sample.truth) == pytest.approx(sharpness, rel=0.1)


def test_temperature_stays_at_one_unless_it_helps() -> None:
    """A model that is calibrated already is left alone."""
    sample, logits = drawn(4000)
    assert calibration.fit_temperature(logits, sample.truth) == 1.0


def test_a_better_probability_does_not_buy_worse_tiers() -> None:
    """A temperature whose best tiers are worse than those without it is left out."""
    sample, logits = drawn(2000, sharpness=3.0)
    beta, temperature = calibration.choose(sample, logits)
    assert temperature == pytest.approx(3.0, rel=0.1)
    truth = sample.truth
    confident = np.full((2000, 4), -12.0, dtype=np.float32)
    confident[np.arange(2000), truth] = 0.0
    flat = np.where(np.arange(2000)[:, None] % 3 == 0, confident[:, ::-1], confident)  # a third is badly wrong
    beta, temperature = calibration.choose(sample, flat)
    p = tiers.softmax(flat)
    assert calibration.macro_f1_at(sample, tiers.softmax(flat, temperature), beta) >= (
        calibration.macro_f1_at(sample, p, 0.5) - calibration.WORTH
    )


def points(*f1: float) -> list[SweepPoint]:
    """A sweep over the grid, the given values around one half."""
    betas = [0.5 + 0.01 * (n - len(f1) // 2) for n in range(len(f1))]
    return [SweepPoint(beta=b, macro_f1=v, accuracy=0) for b, v in zip(betas, f1, strict=True)]


def test_beta_is_the_middle_of_a_plateau_not_a_spike() -> None:
    """One lucky grid point does not outweigh its neighbourhood."""
    assert calibration.choose_beta(points(0.9, 0.1, 0.1, 0.1, 0.6, 0.6, 0.6, 0.6, 0.6)) == pytest.approx(0.52)


def test_of_equal_betas_the_nearest_to_one_half() -> None:
    """Where the figure does not care, the median label decides."""
    assert calibration.choose_beta(points(*[0.5] * 21)) == pytest.approx(0.5)


def test_the_chosen_beta_is_the_best_of_a_plain_search() -> None:
    """A biased model is corrected: beta beats one half on the pairs it was chosen on."""
    sample, logits = drawn(3000)
    biased = logits + np.array([1.5, 0, 0, 0], dtype=np.float32)
    p = tiers.softmax(biased)
    beta = calibration.choose_beta(sweep(sample, p))
    assert beta > 0.5
    assert calibration.macro_f1_at(sample, p, beta) > calibration.macro_f1_at(sample, p, 0.5)


def scores_of(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """What items are ranked by."""
    return tiers.expected_score(tiers.softmax(logits)).astype(np.float64)


def test_tiers_that_separate_pass(manifest: Manifest) -> None:
    """A score that follows the truth lets calibration go on."""
    sample, logits = drawn(2000)
    logits = logits - 3 * np.abs(np.arange(4) - sample.truth[:, None]).astype(np.float32)
    found = calibration.separation(sample, scores_of(logits), manifest)
    assert [s.better for s in found] == ["4-Excellent", "3-Related", "2-Mismatch"]
    assert all(s.auc.low is not None and s.auc.low > 0.5 for s in found)
    calibration.check_separation(found)


def test_tiers_that_do_not_separate_are_refused_by_name(manifest: Manifest) -> None:
    """Noise has no threshold: the message names the neighbours and their AUC."""
    sample, _ = drawn(2000)
    noise = np.random.default_rng(5).random(2000)
    with pytest.raises(CalibrationError, match=r"4-Excellent over 3-Related: AUC 0\.\d+"):
        calibration.check_separation(calibration.separation(sample, noise, manifest))


def test_too_few_pairs_of_a_tier_are_refused(manifest: Manifest) -> None:
    """The message counts them."""
    sample = replace(drawn(200)[0], truth=np.array([0] * 90 + [1] * 90 + [2] * 19 + [3]))
    with pytest.raises(CalibrationError, match="2-Mismatch has 19, 1-Irrelevant has 1"):
        calibration.separation(sample, np.zeros(200), manifest)


def test_cross_fitting_never_judges_a_cluster_with_its_own_beta(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold's beta is chosen without any pair of the fold's clusters."""
    sample, logits = drawn(400)
    p = tiers.softmax(logits)
    seen: list[NDArray[np.int64]] = []

    def spy(rest: Sample, probabilities: NDArray[np.float32]) -> tuple[SweepPoint, ...]:
        seen.append(np.unique(rest.clusters))
        return sweep(rest, probabilities)

    monkeypatch.setattr(calibration, "sweep_betas", spy)
    betas, macro_f1 = calibration.cross_fitted(sample, p)
    assert len(betas) == len(seen) == calibration.FOLDS
    left_out = [set(sample.clusters.tolist()) - set(own.tolist()) for own in seen]
    assert set.union(*left_out) == set(sample.clusters.tolist())
    assert sum(map(len, left_out)) == len(set(sample.clusters.tolist()))
    assert 0 < macro_f1 < 1


def test_cross_fitting_needs_clusters() -> None:
    """Four clusters cannot make five folds."""
    sample, logits = drawn(32)
    with pytest.raises(CalibrationError, match="4 clusters"):
        calibration.cross_fitted(sample, tiers.softmax(logits))


async def test_a_setting_that_moves_a_canary_is_refused(judge: Judge) -> None:
    """A service whose canary misses its tier is never ready, so such a beta is not written."""
    await calibration.check_canaries(judge)
    strict = judge.manifest.model_copy(update={"beta": 0.999999})
    with pytest.raises(CalibrationError, match="'phone' x 'phone': expected 4-Excellent, scored 1-Irrelevant"):
        await calibration.check_canaries(replace(judge, manifest=strict))
    without = judge.manifest.model_copy(update={"canaries": (), "beta": 0.999999})
    await calibration.check_canaries(replace(judge, manifest=without))
