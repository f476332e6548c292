from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data
from skimage.restoration import estimate_sigma

from jbid import losses
from jbid.ops import ssim
from jbid.ops.noise import estimate_noise
from jbid.types import Estimate


def evaluated(loss, x, y, t=0):
    return float(loss(Estimate(x, None), x, y, jnp.asarray(t)))


def test_total_variation():
    x = jnp.asarray([[0.0, 1.0], [0.5, 0.5]])[..., None]
    assert losses.total_variation(x) == pytest.approx(0.5 + 0.5)
    # the authors' code: 2 (mean dh^2 + mean dw^2)
    assert losses.total_variation(x, squared=True) == pytest.approx(2 * (0.25 + 0.5))


def test_switch_changes_the_loss_at_the_boundary():
    x, y = jax.random.uniform(jax.random.key(0), (2, 16, 16, 1))
    loss = losses.switch_at(3, losses.mse(), losses.one_minus_ssim())
    assert evaluated(loss, x, y, 2) == pytest.approx(float(jnp.mean((x - y) ** 2)))
    assert evaluated(loss, x, y, 3) == pytest.approx(1 - float(ssim.ssim(x, y)))


def test_tv_weight_depends_on_the_noise():
    key = jax.random.key(0)
    x = jax.random.uniform(key, (64, 64, 1))
    weights = []
    for sigma in (0.02, 0.08):
        y = 0.5 + sigma * jax.random.normal(key, (64, 64, 1))
        weights.append(evaluated(losses.tv(), x, y) / float(losses.total_variation(x)))
    np.testing.assert_allclose(weights, [0.002, 0.008], rtol=0.1)
    combined = losses.add(losses.mse(), losses.tv(2.0))
    assert evaluated(combined, x, y) == pytest.approx(evaluated(losses.mse(), x, y) + 2 * losses.total_variation(x))


@pytest.mark.parametrize("sigma", [0.003, 0.02, 0.1])
def test_noise_level_agrees_with_scikit_image(sigma):
    sharp = data.camera() / 255.0
    noisy = sharp + sigma * np.random.default_rng(0).standard_normal(sharp.shape)
    ours = float(estimate_noise(jnp.asarray(noisy, jnp.float32)[..., None]))
    assert ours == pytest.approx(estimate_sigma(noisy), rel=0.05)


def test_noise_level_of_flat_and_tiny_images_is_zero():
    assert estimate_noise(jnp.ones((32, 32, 3))) < 1e-9
    assert estimate_noise(jnp.ones((4, 4, 1))) == 0
