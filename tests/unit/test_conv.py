from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jbid.ops.conv import blur, blur_adjoint, blur_operators, crop_center, fit_operators, pad_edge
from jbid.ops.kernels import delta_kernel, disc_kernel, gaussian_kernel, normalize_kernel
from jbid.ops.motion import gaussian_process_kernel
from jbid.ops.namespace import conjugate_gradients


def random(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("image, kernel", [((31, 40, 1), (5, 5)), ((30, 29, 3), (7, 4)), ((12, 13, 1), (12, 13))])
def test_blur_matches_scipys_valid_convolution(image, kernel, method):
    x, k = random(0, image), random(1, kernel)
    expected = np.stack([scipy.signal.convolve(x[..., c], k, "valid") for c in range(image[2])], -1)
    np.testing.assert_allclose(blur(x, k, method=method), expected, atol=2e-4)


@pytest.mark.parametrize("kernel", [(5, 5), (6, 9), (21, 21)])
def test_adjoint(kernel):
    x, k = random(0, (41, 37, 3)), random(1, kernel)
    y = random(2, blur(x, k).shape)
    np.testing.assert_allclose(jnp.vdot(blur(x, k), y), jnp.vdot(x, blur_adjoint(y, k)), rtol=1e-4)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_operators_of_one_kernel_and_of_one_image(array):
    x, k = array(random(0, (41, 37, 2))), array(random(1, (7, 5)))
    expected = np.asarray(blur(jnp.asarray(x), jnp.asarray(k), method="direct"))
    y = array(random(2, expected.shape))
    for operators, value in ((blur_operators(k, x.shape), x), (fit_operators(x, k.shape), k)):
        forward, adjoint = operators
        assert isinstance(forward(value), type(x))
        np.testing.assert_allclose(forward(value), expected, atol=2e-4)
        assert adjoint(y).shape == value.shape
        np.testing.assert_allclose((forward(value) * y).sum(), (value * adjoint(y)).sum(), rtol=1e-3)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_conjugate_gradients_solve_a_linear_system(array):
    root = np.random.default_rng(0).standard_normal((12, 12)).astype(np.float32)
    matrix = root @ root.T + 3 * np.eye(12, dtype=np.float32)
    target = np.ones(12, np.float32)
    a = array(matrix)
    x = conjugate_gradients(lambda v: a @ v, array(target), array(np.zeros(12, np.float32)), 30)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, target), rtol=1e-3, atol=1e-4)
    # at the solution it stays
    np.testing.assert_array_equal(conjugate_gradients(lambda v: v, array(target), array(target), 3), target)


def test_gradients_do_not_depend_on_the_method():
    x, k = random(0, (30, 31, 3)), random(1, (6, 5))
    weights = random(2, blur(x, k).shape)
    grads = [
        jax.grad(lambda x, k, m=m: jnp.vdot(blur(x, k, method=m), weights), (0, 1))(x, k) for m in ("direct", "fft")
    ]
    for a, b in zip(*grads):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_delta_keeps_the_center():
    x = random(0, (20, 24, 3))
    for shape in ((5, 5), (4, 7)):
        # the center under a true convolution lies mirrored to the kernel's for even sizes
        k = delta_kernel(shape)[::-1, ::-1]
        np.testing.assert_allclose(blur(x, k), crop_center(x, shape), atol=1e-5)


def test_crop_undoes_pad():
    x = random(0, (9, 8, 1))
    for shape in ((5, 5), (4, 7), (1, 1)):
        np.testing.assert_array_equal(crop_center(pad_edge(x, shape), shape), x)


def test_bad_arguments_are_refused(unchecked):
    with pytest.raises(ValueError, match="must not exceed the image"):
        blur(jnp.zeros((8, 8, 1)), jnp.zeros((9, 3)))
    with pytest.raises(ValueError, match="must be"):
        blur(jnp.zeros((8, 8)), jnp.zeros((3, 3)))


def test_normalized_kernel_is_nonnegative_with_sum_one():
    k = normalize_kernel(jnp.array([[-1.0, 0.1], [4.0, 1.0]]), 0.1)
    np.testing.assert_allclose(k, np.array([[0, 0], [0.8, 0.2]]), atol=1e-6)


def test_simple_kernels():
    for kernel in (gaussian_kernel(0.4), gaussian_kernel(1.3), disc_kernel(1.5), disc_kernel(4.0)):
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.shape[0] % 2 == 1
        np.testing.assert_allclose(kernel, kernel.T)
        np.testing.assert_allclose(kernel, kernel[::-1])
    rows = np.arange(-4, 5)
    # second moments: sigma^2, and a quarter of the squared radius
    assert (gaussian_kernel(1.3).sum(0) * rows**2).sum() == pytest.approx(1.69, rel=0.01)
    assert (disc_kernel(4.0).sum(0) * rows**2).sum() == pytest.approx(4, rel=0.05)


def test_simulated_kernels():
    kernels = jax.vmap(lambda key: gaussian_process_kernel(key, 21, extent=0.8))(
        jax.random.split(jax.random.key(0), 50)
    )
    assert (kernels >= 0).all()
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-5)
    rows, columns = kernels.sum(2) > 0, kernels.sum(1) > 0
    # the longer side spans 0.8 * 20 pixels and both are centered: nothing falls off the edge
    assert not rows[:, [0, 20]].any() and not columns[:, [0, 20]].any()
    spans = [max(np.ptp(np.flatnonzero(v)) for v in pair) for pair in zip(rows, columns)]
    assert set(spans) <= {16, 17}
    assert len({k.tobytes() for k in np.asarray(kernels)}) == 50
