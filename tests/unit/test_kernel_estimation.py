from __future__ import annotations

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from skimage import data, transform

from jbid.deconvolution.sparse import deconvolve_gray
from jbid.kernel_estimation.edges import (
    EdgeOptions,
    Schedule,
    estimate_edge_kernels,
    l0_deconvolution,
    ridge_kernel,
)
from jbid.kernel_estimation.gain import Assessment
from jbid.kernel_estimation.refine import refine_kernel
from jbid.kernel_estimation.sampling import CONTINUED_OF_TWO, Plan, draw_kernels, half_scale, search_sizes
from jbid.kernel_estimation.scale_search import Pool
from jbid.kernel_estimation.search import KernelEstimate, _best_search, _warning, round_up_size, search_kernel
from jbid.metrics import kernel_similarity
from jbid.ops.conv import blur
from jbid.ops.kernels import center_kernel, connected_components, disc_kernel, place_kernel, prune_kernel, support
from jbid.ops.motion import gaussian_process_kernel
from jbid.ops.periodic import (
    adjoint_differences,
    enlarge,
    extend_periodically,
    forward_differences,
    resize,
    transfer_function,
)


def scene(size=168, kernel_size=13, key=0, noise=0.0):
    """A gray blurred picture and its kernel."""
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(key), kernel_size))
    side = size + kernel_size - 1
    sharp = transform.resize(data.camera()[:400, 100:500], (side, side), anti_aliasing=True).astype(np.float32)
    y = np.asarray(blur(sharp[..., None], kernel))[..., 0]
    return (y + noise * np.random.default_rng(0).standard_normal(y.shape)).astype(np.float32), kernel


def test_connected_components_match_scipy():
    mask = np.random.default_rng(0).random((31, 31)) < 0.35
    ours = np.asarray(connected_components(jnp.asarray(mask)))
    theirs, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    np.testing.assert_array_equal(connected_components(mask), theirs)
    assert len(np.unique(ours)) == count + 1 and np.array_equal(ours > 0, theirs > 0)
    for i in range(1, count + 1):
        assert len(np.unique(ours[theirs == i])) == 1


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_pruning(array):
    kernel = np.zeros((15, 15), np.float32)
    kernel[5:9, 7] = 1  # the kernel
    kernel[12, 12] = 0.3  # apart and light
    kernel[5, 9] = 0.04  # weak
    kernel[7, 0] = 5  # beyond the support
    kernel[9, 3] = -1
    found = np.asarray(prune_kernel(array(kernel), 13))
    expected = np.zeros((15, 15))
    expected[5:9, 7] = 0.25
    np.testing.assert_allclose(found, expected, atol=1e-6)
    nothing = prune_kernel(array(np.zeros((5, 5), np.float32)), 5)
    assert nothing[2, 2] == 1 and nothing.sum() == 1


def test_centering_moves_the_center_of_mass_to_the_middle():
    kernel = np.zeros((11, 11), np.float32)
    kernel[1:4, 6:9] = np.random.default_rng(0).random((3, 3)) + 1
    moved = np.asarray(center_kernel(jnp.asarray(kernel)))
    np.testing.assert_allclose(scipy.ndimage.center_of_mass(moved), 5, atol=0.5)
    assert moved.sum() == pytest.approx(kernel.sum())


def test_ridge_fit_recovers_the_kernel_of_a_periodic_blur():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.random((64, 60)), jnp.float32)
    kernel = jnp.asarray(rng.random((7, 7)), jnp.float32)
    transfer = transfer_function(kernel, image.shape)
    blurred = jnp.fft.irfft2(transfer * jnp.fft.rfft2(image), image.shape)
    np.testing.assert_allclose(ridge_kernel(image, blurred, 7, jnp.full((1, 1), 1e-3)), kernel, atol=1e-2)
    expected = scipy.ndimage.convolve(np.asarray(image), np.asarray(kernel), mode="wrap")
    np.testing.assert_allclose(blurred, expected, atol=1e-4)


def test_l0_deconvolution_without_blur_keeps_edges_and_flattens_the_rest():
    rng = np.random.default_rng(0)
    clean = np.zeros((48, 48), np.float32)
    clean[12:36, 12:36] = 1
    noisy = clean + 0.02 * rng.standard_normal(clean.shape).astype(np.float32)
    x = l0_deconvolution(jnp.asarray(noisy), jnp.ones((48, 25), jnp.complex64), jnp.full((1, 1), 0.01))
    np.testing.assert_allclose(x, clean, atol=0.05)
    assert np.std(np.asarray(x)[16:32, 16:32]) < 0.005 < np.std(noisy[16:32, 16:32])


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_intensity_prior_makes_dark_pixels_equal(array):
    rng = np.random.default_rng(0)
    clean = np.full((48, 48), 0.1, np.float32)
    clean[12:36, 12:36] = 1
    # too uneven for the prior of gradients alone
    ramp = 0.06 * np.linspace(0, 1, 48, dtype=np.float32)
    noisy = clean + ramp + 0.02 * rng.standard_normal(clean.shape).astype(np.float32)
    solve = partial(
        l0_deconvolution, array(noisy), array(np.ones((48, 25), np.complex64)), array(np.full((1, 1), 0.01))
    )
    without, zero, dark = (
        np.asarray(solve(intensity=intensity if intensity is None else array(np.full((1, 1), intensity)), dark=0.1))
        for intensity in (None, 0.0, 1.0)
    )
    np.testing.assert_allclose(without, zero, atol=1e-6)
    outside = clean == clean.min()
    assert np.quantile(np.abs(dark[outside] - 0.1), 0.99) < 1e-3 < np.std(without[outside])
    np.testing.assert_allclose(dark[~outside].mean(), noisy[~outside].mean(), atol=0.02)


def test_surroundings_join_smoothly():
    picture = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    wide = np.asarray(extend_periodically(jnp.asarray(picture), (27, 36)))
    np.testing.assert_array_equal(wide[:20, :30], picture)
    assert np.abs(np.diff(np.concatenate([wide, wide[:1]])[19:], axis=0)).max() < np.abs(np.diff(picture, axis=0)).max()


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_options_side_by_side_equal_single_ones(array):
    picture, _ = scene(96, 9)
    options = EdgeOptions(*(array(v) for v in ([9, 13], [1e-2, 2e-2], [10.0, 20.0], [0.0, 0.25])))
    # few rounds, as each magnifies what rounding differs by
    estimate = partial(estimate_edge_kernels, array(picture), side=13, schedule=Schedule(rounds=2))
    together = estimate(options)
    for i in range(2):
        alone = estimate(EdgeOptions(*(v[i : i + 1] for v in options)))
        chex.assert_trees_all_close(together[i], alone[0], atol=1e-3)


def test_paused_estimate_continued_equals_the_whole_one():
    picture, _ = scene(96, 9)
    options = EdgeOptions(np.array([13]), np.array([1e-2]), np.array([10.0]), np.array([0.25]))
    estimate = partial(estimate_edge_kernels, picture, options, side=13, schedule=Schedule(rounds=2))
    paused = estimate(last=2)
    assert paused.shape == (1, 7, 7)
    np.testing.assert_array_equal(estimate(initial=paused, first=1), estimate())


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_differences_have_their_adjoint(array):
    x, a, d = (array(v) for v in np.random.default_rng(0).standard_normal((3, 12, 9)).astype(np.float32))
    across, down = forward_differences(x)
    np.testing.assert_allclose(across[3, 8], x[3, 0] - x[3, 8], rtol=1e-5)
    np.testing.assert_allclose(down[11, 2], x[0, 2] - x[11, 2], rtol=1e-5)
    expected = (across * a + down * d).sum()
    np.testing.assert_allclose((x * adjoint_differences(a, d)).sum(), expected, rtol=1e-4)


def test_changes_of_scale_match_jax():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((40, 31)).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    expected = jax.image.resize(image, (20, 17), "linear", antialias=True)
    np.testing.assert_allclose(resize(image, (20, 17)), expected, atol=1e-5)
    for side in (9, 13, 19):
        shift = jnp.full(2, side / 2 - 2**0.5 * 4.5)
        expected = jax.image.scale_and_translate(
            kernel, (side, side), (0, 1), jnp.full(2, 2**0.5), shift, "linear", antialias=False
        )
        np.testing.assert_allclose(enlarge(kernel, side, 2**0.5), expected, atol=1e-5)
        np.testing.assert_allclose(enlarge(jnp.asarray(kernel), side, 2**0.5), expected, atol=1e-5)


@pytest.mark.parametrize("intensity", [0.0, 0.25])
def test_host_and_compiled_estimates_agree(intensity):
    picture, kernel = scene(96, 9, noise=0.002)
    # few rounds, as each magnifies what rounding differs by
    estimate = partial(estimate_edge_kernels, side=13, schedule=Schedule(rounds=2))
    options = EdgeOptions(np.array([13]), np.array([1e-2]), np.array([10.0]), np.array([intensity]))
    on_host = estimate(picture, options)
    assert isinstance(on_host, np.ndarray) and on_host.dtype == np.float32
    compiled = jax.jit(estimate)(jnp.asarray(picture), jax.tree.map(jnp.asarray, options))
    np.testing.assert_allclose(on_host, compiled, atol=1e-3)
    near = place_kernel(scipy.ndimage.gaussian_filter(kernel, 0.7), 13)
    latent = deconvolve_gray(picture, near)
    assert isinstance(latent, np.ndarray) and latent.dtype == np.float32
    np.testing.assert_allclose(latent, jax.jit(deconvolve_gray)(picture, near), atol=2e-3)
    refined, expected = refine_kernel(picture, near, 13), jax.jit(refine_kernel)(picture, near, 13)
    for ours, theirs in zip(refined, expected):
        assert isinstance(ours, np.ndarray) and ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_supports_to_search():
    assert search_sizes((400, 500)) == [13, 19, 31, 45, 61, 79, 121]
    assert search_sizes((100, 500)) == [13, 19]
    assert search_sizes((20, 20)) == [7]
    assert search_sizes((400, 500), 21) == [29] and search_sizes((400, 500), 65) == [13, 19, 31, 73]


def test_large_supports_are_estimated_at_a_reduced_scale():
    picture, kernel = scene(300, 55, key=4)
    samples = draw_kernels(picture, half_scale(picture), [51, 79], Plan())
    for sample in samples:
        assert sample.kernel.sum() == pytest.approx(1, abs=1e-5) and max(sample.kernel.shape) >= sample.size
    assert max(kernel_similarity(sample.kernel, kernel) for sample in samples) > 0.75


def test_second_prior_adds_estimates_and_changes_none():
    picture, kernel = scene(200, 13, noise=0.003)
    draw = partial(draw_kernels, picture, half_scale(picture), [13, 45])
    alone, both = draw(Plan()), draw(Plan(two_priors=True))
    for sample, same in zip(alone[:CONTINUED_OF_TWO], both):
        assert sample.name == same.name
        np.testing.assert_array_equal(sample.kernel, same.kernel)
    more = both[CONTINUED_OF_TWO:]
    assert any("prior" in sample.name or "again" in sample.name for sample in more)
    # a small kernel found with a large support is tried with a small one as well
    narrowed = [sample for sample in more if "continued with size" in sample.name]
    assert narrowed and all(max(sample.kernel.shape) < 45 for sample in narrowed)
    assert max(kernel_similarity(sample.kernel, kernel) for sample in both) > 0.75


@pytest.mark.parametrize("side, key", [(15, 0), (45, 4)])
def test_kernels_are_found_in_a_reduced_image_first(monkeypatch, side, key):
    monkeypatch.setattr("jbid.kernel_estimation.search.PIXELS", 20_000)
    picture, kernel = scene(300, side, key=key)
    found = search_kernel(picture)
    # the small one is searched again in a patch, the large one is enlarged and refined
    assert any("refined 3" in candidate.name for candidate in found.candidates) == (side > 40)
    assert kernel_similarity(found.kernel, kernel) > 0.7


@pytest.mark.parametrize("key", [0, 1])
def test_kernel_and_size_are_estimated(key):
    picture, kernel = scene(key=key)
    found = search_kernel(picture)
    assert kernel_similarity(found.kernel, kernel) > 0.75
    rows, columns = support(kernel > 0.05 * kernel.max())
    true = (rows.stop - rows.start, columns.stop - columns.start)
    assert np.abs(np.subtract(found.support, true)).max() <= 3 and found.warning is None
    assert found.kernel.sum() == pytest.approx(1) and found.kernel.min() >= 0
    # brightness and contrast must not matter
    darker = search_kernel(0.3 * picture + 0.1)
    assert kernel_similarity(darker.kernel, kernel) > 0.75


def test_given_size_is_kept():
    picture, kernel = scene(96, 9)
    found = search_kernel(picture, 9)
    assert found.kernel.shape == (9, 9) and kernel_similarity(found.kernel, kernel) > 0.7


def test_kernel_that_fills_the_search_gives_a_warning():
    picture, _ = scene(96, 9)
    found = search_kernel(picture)
    assert found.warning is None
    assert "may exceed 19 pixels" in (_warning(found._replace(support=(5, 19)), None, 19) or "")
    assert _warning(found._replace(support=(5, 19)), 19, 19) is None


def test_kernels_are_placed_in_squares():
    kernel = np.zeros((9, 9), np.float32)
    kernel[0:3, 4:9] = 0.2
    inside = place_kernel(kernel, 7)
    assert inside.shape == (7, 7) and inside.sum() == pytest.approx(1)
    assert [s.start for s in support(inside)] == [2, 1]
    assert place_kernel(kernel, 3).shape == (3, 3)
    assert [round_up_size(n) for n in (3, 9, 10, 100)] == [9, 13, 17, 105]


def test_second_search_includes_the_first_estimate():
    picture, _ = scene(96, 9)
    first = search_kernel(picture, 9)
    # settings that see no edges at all
    second = search_kernel(picture, 9, settings=((5.0, 1e4),), before=first)
    assert second.candidates[0].name.startswith(f"first search: {first.candidates[0].name}")
    assert kernel_similarity(second.kernel, first.kernel) > 0.9


def estimate_of(image, kernel, confidence=0.9):
    """An estimate that says nothing but its kernel and confidence."""
    return KernelEstimate(kernel, kernel.shape, [], [], [], [], image, 1.0, confidence, None)


@pytest.mark.parametrize(
    "side, confidence, columns, searches",
    [
        (520, 0.9, (0, 8, 8), 3),  # the last two agree
        (520, 0.9, (0, 0, 8), 2),
        (520, 0.9, (0, 4, 8), 3),  # none agree
        (520, 0.99, (0, 8, 8), 1),  # surely right
        (520, 0.3, (0, 8, 8), 1),  # no gain is expected
        (300, 0.9, (0, 8, 8), 1),  # not reduced
    ],
)
def test_reduced_images_are_searched_until_two_searches_agree(monkeypatch, side, confidence, columns, searches):
    seen = []

    def search(image, *_):
        kernel = np.zeros((9, 9), np.float32)
        kernel[2:7, columns[len(seen)]] = kernel[columns[len(seen)], :] = 1 / 13
        seen.append(image)
        return estimate_of(image, kernel, confidence)

    monkeypatch.setattr("jbid.kernel_estimation.search._search", search)
    image = np.random.default_rng(0).uniform(size=(side, side)).astype(np.float32)
    assert search_kernel(image).searches == len(seen) == searches
    for one, other in itertools.combinations(seen, 2):
        assert 0 < np.abs(one - other).max() < 2e-3


def test_the_best_of_several_searches_is_the_true_kernel():
    image, true_kernel = scene(192, 13)
    kernels = [disc_kernel(3.0), true_kernel, gaussian_process_kernel(jax.random.key(9), 13)]
    assert _best_search(image, [estimate_of(image, np.asarray(kernel)) for kernel in kernels]) == 1


def test_sharp_image_has_no_blur():
    sharp = transform.resize(data.camera()[:400, 100:500], (168, 168), anti_aliasing=True).astype(np.float32)
    found = search_kernel(sharp)
    assert found.confidence < 0.5 and found.is_doubtful


def test_a_disc_that_the_first_kernel_resembles_comes_before_it():
    kernel = disc_kernel(3.5)
    sharp = data.page()[:, :200].astype(np.float32)[..., None] / 255
    image = np.asarray(blur(sharp, kernel))[..., 0]

    def first_of(estimate, radius):
        kernels = [estimate, disc_kernel(radius)]
        found = [Assessment(5.0, 0.0, 0.5), Assessment(0.0, 0.0, 0.5)]  # by rank alone the estimate is ahead
        latents = [deconvolve_gray(image, k) for k in kernels]
        pool = Pool(["estimate", "disc"], kernels, [9, 9], latents, found, [True] * 2, [], [False, True])
        return pool.choose(image)[0][0]

    near = (kernel * np.random.default_rng(0).uniform(0.3, 1.7, kernel.shape)).astype(np.float32)
    near /= near.sum()
    assert kernel_similarity(near, kernel) > 0.9
    assert first_of(near, 3.5) == 1
    assert first_of(kernel, 3.0) == 0  # similar, but with a worse score
    assert first_of(np.pad(disc_kernel(1.5), 2), 3.5) == 0  # better, but not similar
