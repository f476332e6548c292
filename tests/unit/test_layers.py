from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jbid.nets import layers
from jbid.nets.skip import NonLocal, Skip


def random(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("padding, mode", [("reflect", "mirror"), ("zero", "constant")])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(12, 14), (13, 11)])
def test_convolution_matches_scipys_correlation(padding, mode, stride, shape):
    x = random(0, (*shape, 3))
    conv = layers.Conv(4, 3, stride, padding)
    params = jax.jit(conv.init)(jax.random.key(1), x)
    w, b = params["params"]["weight"], params["params"]["bias"]
    expected = np.stack(
        [
            sum(scipy.ndimage.correlate(x[..., i], w[:, :, i, o], mode=mode) for i in range(3))[::stride, ::stride]
            + b[o]
            for o in range(4)
        ],
        -1,
    )
    np.testing.assert_allclose(conv.apply(params, x), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_gradients_match_xla_single_and_batched(stride):
    xs, ws = random(0, (2, 3, 13, 12, 4)), random(1, (2, 3, 3, 3, 4, 5))
    layout = ("NHWC", "HWIO", "NHWC")

    def plain(x, w):
        return jax.lax.conv_general_dilated(x[None], w, (stride, stride), "VALID", dimension_numbers=layout)[0]

    def ours(x, w):
        return layers._correlate_stride2(x, w) if stride == 2 else layers._correlation(1, 0)(x, w)

    def gradients(f):
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w))), (0, 1))

    chex.assert_trees_all_close(
        gradients(ours)(xs[0, 0], ws[0, 0]), gradients(plain)(xs[0, 0], ws[0, 0]), rtol=1e-4, atol=1e-4
    )
    # images over seeds, each with its own weights; one set of weights for all images; one image for all seeds
    for axes, args in (
        (((0, 0), (0, 0)), (xs, ws)),
        (((0, None), (0, 0)), (xs, ws[0])),
        (((None, 0), (0, 0)), (xs[0], ws)),
    ):
        outer, inner = axes
        twice = [jax.jit(jax.vmap(jax.vmap(gradients(f), inner), outer))(*args) for f in (ours, plain)]
        chex.assert_trees_all_close(*twice, rtol=1e-4, atol=1e-4)


def test_norm_has_the_gradient_of_its_formula():
    x = random(0, (9, 7, 3)) * jnp.array([1.0, 10.0, 0.1]) + 2

    def plain(x, eps):
        return (x - x.mean((0, 1))) / jnp.sqrt(x.var((0, 1)) + eps)

    def gradient(f):
        return jax.grad(lambda x: jnp.sum(f(x, 1e-5) ** 3))(x)

    np.testing.assert_allclose(layers.standardize(x, 1e-5), plain(x, 1e-5), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradient(layers.standardize), gradient(plain), rtol=1e-3, atol=1e-4)


def test_upsampling_matches_values_by_hand():
    x = jnp.array([0.0, 4.0, 8.0])[:, None, None]
    np.testing.assert_allclose(layers.upsample2(x)[:, 0, 0], [0, 1, 3, 5, 7, 8])
    np.testing.assert_allclose(layers.upsample2(x, "nearest")[:, 0, 0], [0, 0, 4, 4, 8, 8])
    plane = random(0, (4, 5, 2))
    # separable: rows and columns may be swapped
    a = layers.upsample2(plane)
    np.testing.assert_allclose(a, layers.upsample2(plane.transpose(1, 0, 2)).transpose(1, 0, 2), atol=1e-6)


def test_non_local_block_equals_the_attention_map():
    x = random(0, (7, 6, 8))
    block = NonLocal()
    params = jax.jit(block.init)(jax.random.key(1), x)
    np.testing.assert_array_equal(block.apply(params, x), x)
    params["params"]["norm"]["scale"] = jnp.ones(8)
    p = params["params"]

    def linear(name, v):
        return v @ p[name]["weight"][0, 0] + p[name]["bias"]

    theta = linear("theta", x).reshape(-1, 4)
    phi, g = (layers.max_pool2(linear(name, x)).reshape(-1, 4) for name in ("phi", "g"))
    y = (theta @ phi.T / len(phi)) @ g
    expected = x + layers.standardize(linear("out", y.reshape(7, 6, 4)), 1e-5)
    np.testing.assert_allclose(block.apply(params, x), expected, atol=1e-5)


def test_bfloat16_norm_sums_in_float32():
    """Mean and deviation over 40,000 pixels, which sums of eight bits do not have."""
    x = (3 + random(0, (200, 200, 2))).astype(jnp.bfloat16)
    g = random(1, x.shape)
    y, back = jax.vjp(lambda x: layers.standardize(x, 1e-5), x)
    expected, expected_back = jax.vjp(lambda x: layers.standardize(x, 1e-5), x.astype(jnp.float32))
    np.testing.assert_array_equal(y, expected)
    (found,), (wanted,) = back(g), expected_back(g)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.02)


@pytest.mark.parametrize("size", [1, 3])
def test_bfloat16_bias_has_an_exact_gradient(size):
    """It is a sum over all pixels, whose rounding errors would make the bias drift."""
    x = random(0, (96, 96, 4))
    conv = layers.Conv(3, size, dtype=jnp.bfloat16)
    params = jax.jit(conv.init)(jax.random.key(1), x)
    weights = jnp.array([1.0, 0.01, -3.0])
    bias = jax.grad(lambda p: (conv.apply(p, x).astype(jnp.float32) * weights).sum())(params)["params"]["bias"]
    np.testing.assert_allclose(bias, 96**2 * weights.astype(jnp.bfloat16).astype(jnp.float32), rtol=1e-5)


def test_bfloat16_applies_between_parameters_and_image():
    z = 0.1 * random(0, (64, 56, 8))
    # with more scales the last has norms over a few pixels, whose gradient nothing but float32 comes near to
    exact, half = (Skip(channels=16, skip_channels=4, scales=2, dtype=dtype) for dtype in (None, jnp.bfloat16))
    params, same = (jax.jit(net.init)(jax.random.key(1), z) for net in (half, exact))
    chex.assert_trees_all_equal(params, same)

    def loss(params, net):
        return jnp.square(net.apply(params, z) - random(2, (64, 56, 1))).mean()

    x, wanted = jax.jit(half.apply)(params, z), jax.jit(exact.apply)(params, z)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, wanted, atol=0.1)
    assert not np.allclose(x, wanted, atol=1e-4)
    # more levels than eight bits have
    assert len(np.unique(x)) > 1000
    grads = [jax.jit(jax.grad(loss), static_argnums=1)(params, net) for net in (half, exact)]
    found, true = (jnp.concatenate([g.ravel() for g in jax.tree.leaves(grad)]) for grad in grads)
    assert found.dtype == jnp.float32
    assert found @ true > 0.99 * jnp.linalg.norm(found) * jnp.linalg.norm(true)


@pytest.mark.parametrize("shape", [(45, 38), (32, 33), (21, 64)])
def test_skip_network_keeps_any_size_and_range(shape):
    net = Skip(channels=8, skip_channels=4)
    z = random(0, (*shape, 8))
    x, _ = jax.jit(net.init_with_output)(jax.random.key(1), z)
    assert x.shape == (*shape, 1) and (x > 0).all() and (x < 1).all()
