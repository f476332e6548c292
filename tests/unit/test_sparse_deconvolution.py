from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data, restoration, transform

from jbid.deconvolution.derivatives import Derivatives
from jbid.deconvolution.sparse import deconvolve_sparse, sparse_deconvolution
from jbid.metrics import psnr
from jbid.ops.color import luma, rgb_to_ycbcr
from jbid.ops.conv import blur, crop_center, pad_edge
from jbid.ops.motion import gaussian_process_kernel
from jbid.ops.namespace import namespace


@pytest.fixture(scope="module")
def scene():
    """Sharp and blurred color photo and the kernel, slight noise."""
    photo = transform.resize(data.astronaut(), (96, 104), anti_aliasing=True).astype(np.float32)
    kernel = gaussian_process_kernel(jax.random.key(3), 17)
    blurred = blur(photo, kernel)
    blurred = blurred + 0.002 * jax.random.normal(jax.random.key(0), blurred.shape)
    return crop_center(photo, kernel.shape), blurred, kernel


def test_restores_with_the_true_kernel_up_to_the_border(scene):
    sharp, blurred, kernel = scene
    restored = jax.jit(deconvolve_sparse)(blurred, kernel)
    assert restored.shape == blurred.shape
    assert psnr(restored, sharp) > psnr(blurred, sharp) + 8
    # no ringing from the border: its strip gains as well
    strip = np.ones(sharp.shape[:2], bool)
    strip[8:-8, 8:-8] = False
    assert psnr(restored[strip], sharp[strip]) > psnr(blurred[strip], sharp[strip]) + 3


def test_beats_scikit_images_richardson_lucy(scene):
    sharp, blurred, kernel = scene
    ours = np.asarray(jax.jit(deconvolve_sparse)(blurred[..., :1], kernel))[..., 0]
    theirs = restoration.richardson_lucy(np.asarray(blurred[..., 0]), np.asarray(kernel), num_iter=30)
    inner = np.s_[20:-20, 20:-20]
    assert psnr(ours[inner], sharp[inner][..., 0]) > psnr(np.clip(theirs, 0, 1)[inner], sharp[inner][..., 0]) + 1


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_luma_is_restored_as_a_gray_image(scene, array):
    _, *inputs = scene
    # without extremes, which would be cut off, or taken for clipped
    blurred, kernel = 0.3 + 0.4 * array(np.asarray(inputs[0])), array(np.asarray(inputs[1]))
    color, gray = deconvolve_sparse(blurred, kernel), deconvolve_sparse(luma(blurred), kernel)
    # sums in another order
    np.testing.assert_allclose(luma(color), gray, atol=2e-3)
    repeated = deconvolve_sparse(namespace(blurred).repeat(luma(blurred), 3, -1), kernel)
    np.testing.assert_allclose(repeated, np.repeat(gray, 3, -1), atol=2e-3)


def test_colors_gain(scene):
    sharp, blurred, kernel = scene
    restored = np.asarray(jax.jit(deconvolve_sparse)(blurred, kernel))
    true, before, after = (rgb_to_ycbcr(np.asarray(x))[..., 1:] for x in (sharp, blurred, restored))
    assert np.square(after - true).mean() < np.square(before - true).mean() / 2


def test_kernel_noise_is_removed(scene):
    _, blurred, kernel = scene
    noisy = kernel + 1e-4 * kernel.max() * jax.random.uniform(jax.random.key(1), kernel.shape)
    f = jax.jit(deconvolve_sparse)
    np.testing.assert_allclose(f(blurred, noisy), f(blurred, kernel), atol=0.02)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_clipped_lights_do_not_ring(array):
    photo = transform.resize(data.astronaut(), (96, 104), anti_aliasing=True).astype(np.float32)[..., :1]
    photo[30:34, 40:44] = photo[60:63, 70:73] = 8  # lamps
    kernel = np.asarray(gaussian_process_kernel(jax.random.key(3), 17))
    blurred = np.minimum(np.asarray(blur(photo, kernel)), 1)
    sharp = np.minimum(crop_center(photo, kernel.shape), 1)
    restored = deconvolve_sparse(array(blurred), array(kernel))
    init = pad_edge(blurred, kernel.shape)
    naive = np.clip(crop_center(sparse_deconvolution(blurred, kernel, init), kernel.shape), 0, 1)
    assert psnr(restored, sharp) > psnr(naive, sharp) + 2 and psnr(restored, sharp) > psnr(blurred, sharp) + 2


def test_delta_kernel_changes_little():
    x = jnp.asarray(transform.resize(data.camera(), (64, 64), anti_aliasing=True), jnp.float32)[..., None]
    assert psnr(jax.jit(deconvolve_sparse)(x, jnp.ones((1, 1))), x) > 45


@pytest.mark.parametrize("array", (np.asarray, jnp.asarray))
def test_penalty_gradient_is_that_of_the_weighted_derivatives(array):
    rng = np.random.default_rng(0)
    x = rng.random((7, 9, 3)).astype(np.float32)
    shapes = (6, 9), (7, 8), (5, 9), (7, 7), (6, 8)
    weights = [rng.random((*shape, 3)).astype(np.float32) for shape in shapes]

    def penalty(x):
        down, across = jnp.diff(x, axis=0), jnp.diff(x, axis=1)
        ds = down, across, jnp.diff(down, axis=0), jnp.diff(across, axis=1), jnp.diff(down, axis=1)
        return sum((w * d**2).sum() for w, d in zip(weights, ds)) / 2

    derivatives = Derivatives(array(x))
    # the same weights in rows as wide as those of the image
    wide = [np.pad(w, [(0, 0), (0, 9 - w.shape[1]), (0, 0)]).ravel() for w in weights]
    rows = [array(w[: inside.size] * inside) for w, inside in zip(wide, derivatives.inside)]
    found = derivatives.penalty_gradient(array(x), rows)
    np.testing.assert_allclose(found, jax.grad(penalty)(x), rtol=1e-4, atol=1e-5)


def test_host_leaves_its_arguments_as_they_are(scene):
    _, *inputs = scene
    blurred, kernel = (np.array(a) for a in inputs)
    start = np.array(pad_edge(blurred, kernel.shape))
    before = blurred.copy(), kernel.copy(), start.copy()
    sparse_deconvolution(blurred, kernel, start, rounds=2, iterations=3)
    for a, b in zip(before, (blurred, kernel, start)):
        np.testing.assert_array_equal(a, b)
