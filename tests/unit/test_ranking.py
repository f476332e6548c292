from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from skimage import data, transform

from jbid.kernel_estimation.ranking import ScoreTerms, add_disagreement, find_failure, score_terms
from jbid.metrics import pairwise_similarity
from jbid.ops.kernels import average_kernels


def scene():
    rng = np.random.default_rng(0)
    sharp = transform.resize(data.camera(), (134, 134), anti_aliasing=True)
    kernel = np.zeros((7, 7))
    kernel[3, 1:6] = 0.2
    blurred = scipy.signal.convolve(sharp, kernel, "valid") + 0.005 * rng.standard_normal((128, 128))
    return sharp, kernel, blurred


def test_true_kernel_scores_better_than_delta_and_wrong_kernel():
    sharp, kernel, blurred = scene()
    true = score_terms(blurred, sharp, kernel)
    delta = np.zeros((7, 7))
    delta[3, 3] = 1
    unsharp = score_terms(blurred, np.pad(scipy.ndimage.gaussian_filter(blurred, 1), 3, mode="edge"), delta)
    turned = score_terms(blurred, sharp, kernel.T)
    assert true.whiteness < unsharp.whiteness and true.whiteness < turned.whiteness
    assert true.score < turned.score and true.residual < turned.residual
    # the true kernel leaves white noise
    assert true.whiteness < -1


def test_ringing_worsens_the_score():
    sharp, kernel, blurred = scene()
    waves = sharp + 0.05 * np.sin(np.arange(134) * 1.3)
    clean, ringing = (score_terms(blurred, x, kernel) for x in (sharp, waves))
    assert clean.flatness < ringing.flatness and clean.sparsity < ringing.sparsity


def test_similarity_ignores_shifts():
    rng = np.random.default_rng(0)
    kernel = np.zeros((15, 15))
    kernel[4:9, 4:9] = rng.random((5, 5))
    other = rng.random((15, 15))
    found = pairwise_similarity([kernel, np.roll(kernel, (2, -3), (0, 1)), other])
    assert found[0, 1] == pytest.approx(1) and found[0, 2] < 0.8
    np.testing.assert_allclose(found, found.T, atol=1e-9)


def test_outlier_disagrees_most():
    rng = np.random.default_rng(0)
    kernel = np.zeros((9, 9))
    kernel[2:7, 4] = 1
    kernels = [kernel, kernel + 0.01 * rng.random((9, 9)), kernel.T]
    each = [ScoreTerms(0, 0, 0, 0)] * 3
    values = [t.disagreement for t in add_disagreement(each, kernels)]
    assert np.argmax(values) == 2


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda x, k: (x, k), None),
        (lambda x, k: (np.full_like(x, np.nan), k), "not a number"),
        (lambda x, k: (x, k * np.inf), "not a number"),
        (lambda x, k: (0 * x, k), "flat image"),
        (lambda x, k: (x, np.eye(49)[24].reshape(7, 7)), "delta kernel"),
    ],
)
def test_failures_are_detected(spoil, reason):
    sharp, kernel, blurred = scene()
    with np.errstate(invalid="ignore"):
        spoilt = spoil(sharp, kernel)
    assert find_failure(blurred, *spoilt) == reason


def test_average_of_shifted_kernels_is_the_kernel():
    rng = np.random.default_rng(0)
    kernel = np.zeros((15, 15))
    kernel[5:10, 6:9] = rng.random((5, 3))
    kernel /= kernel.sum()
    moved = [np.roll(kernel, shift, (0, 1)) for shift in ((0, 0), (3, -2), (-4, 1))]
    np.testing.assert_allclose(average_kernels(moved, kernel), kernel, atol=1e-6)
