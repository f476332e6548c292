"""Simulated kernels: properties of every model, and differences between models."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jbid.ops import motion
from jbid.ops.kernels import support


@pytest.mark.parametrize("model", motion.KERNEL_MODELS)
@pytest.mark.parametrize("size", [9, 31])
def test_kernels_are_centered_with_sum_one(model, size):
    kernels = np.asarray(motion.motion_kernels(jax.random.key(0), size, 12, model))
    assert kernels.shape == (12, size, size)
    assert (kernels >= 0).all() and np.isfinite(kernels).all()
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-5)
    for kernel in kernels:
        for side in support(np.where(kernel > 0.02 * kernel.max(), kernel, 0)):
            middle = (side.start + side.stop - 1) / 2
            # faint ends may be cut off by the threshold
            assert abs(middle - (size - 1) / 2) <= max(1.5, 0.12 * size)


@pytest.mark.parametrize("model", motion.KERNEL_MODELS)
def test_same_key_same_bits_and_kernels_differ(model):
    one, again = (np.asarray(motion.motion_kernels(jax.random.key(1), 21, 4, model)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(one.reshape(4, -1), axis=0)) == 4
    # alone as among others, up to rounding
    key = jax.random.split(jax.random.key(1), 4)[2]
    alone = jax.jit(motion.KERNEL_MODELS[model], static_argnums=1)(key, 21)
    np.testing.assert_allclose(alone, one[2], atol=1e-4 if model == "trajectory" else 1e-6)


def test_kernel_is_bright_where_the_camera_rests():
    path = jnp.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 2.0]])
    kernel = motion._draw(path, jnp.ones(4), 7)
    np.testing.assert_allclose(kernel[3, 3:6], [0.25, 0.25, 0.5])
    assert kernel.sum() == 1
    # half way between two pixels it is shared
    np.testing.assert_allclose(motion._draw(jnp.array([[0.5, 0.0]]), jnp.ones(1), 5)[2:4, 2], [0.5, 0.5])


def test_trajectories_have_a_fixed_length_and_exposure_cuts_them():
    key = jax.random.key(4)
    whole = motion.trajectory_kernel(key, 65, exposure=1.0)
    part = motion.trajectory_kernel(key, 65, exposure=0.1)
    # a tenth of a path of 60 pixels
    extent = [max(s.stop - s.start for s in support(np.asarray(k))) for k in (whole, part)]
    assert extent[1] <= 8 < extent[0] <= 62


def test_mixture_has_its_shares():
    shares = {"camera": 3, "gaussian_process": 1}
    mixed = np.asarray(motion.mixed_kernels(jax.random.key(2), 15, 16, shares))
    assert mixed.shape == (16, 15, 15)
    # Gaussian-process paths are thin lines, whose pixels the camera's lens would have spread
    _, *keys = jax.random.split(jax.random.key(2), 3)
    lines = np.asarray(motion.motion_kernels(keys[1], 15, 4, "gaussian_process"))
    among = [min(np.abs(line - k).max() for k in mixed) for line in lines]
    assert max(among) == 0


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda key: motion.motion_kernels(key, 30, 1), "odd number"),
        (lambda key: motion.motion_kernels(key, 3, 1), "at least 5"),
        (lambda key: motion.motion_kernels(key, 31, 1, "gyro"), "camera"),
        (lambda key: motion.mixed_kernels(key, 31, 4, {"camera": 0.0}), "shares"),
        (lambda key: motion.mixed_kernels(key, 31, 4, {"camera": 2.0, "trajectory": -1.0}), "shares"),
    ],
)
def test_bad_models_and_sizes_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(jax.random.key(0))
