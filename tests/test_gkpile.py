"""GKPILE: networks against the authors' numbers, weights, the method, starts."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jbid.nets.dcgan import SIZES, Discriminator, KernelGenerator
from jbid.nets.resnet import KernelEncoder
from tests.torch_names import discriminator_variables, drawn_weights, encoder_variables, generator_variables

PARAMETERS = {31: 1_256_896, 45: 1_592_768, 55: 1_666_496, 65: 2_371_008, 75: 2_207_168}
DISCRIMINATOR_PARAMETERS = {31: 1_028_672, 45: 959_040, 55: 1_032_768, 65: 1_129_024, 75: 965_184}


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("size", SIZES)
def test_generator_and_discriminator_give_the_authors_values(golden, size):
    data = golden(f"gkpile_{size}")
    net, variables = KernelGenerator(size), generator_variables(drawn_weights(str(data["gen_order"]), data["gen_seed"]))
    z = jnp.asarray(data["z"][..., 0, 0])
    assert jax.tree.structure(variables) == jax.tree.structure(dict(net.init(jax.random.key(0), z)))
    assert count(variables["params"]) == PARAMETERS[size]
    w = net.apply(variables, z, method="first")
    np.testing.assert_allclose(w, data["w_eval"].transpose(0, 2, 3, 1), atol=1e-4)
    kernel = net.apply(variables, w, method="rest")
    np.testing.assert_allclose(kernel, data["k_eval"][:, 0], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(kernel.sum((1, 2)), 1, rtol=1e-5)
    trained, _ = net.apply(variables, z, True, mutable=["batch_stats"])
    np.testing.assert_allclose(trained, data["k_train"][:, 0], rtol=1e-3, atol=1e-7)

    judge = Discriminator(size)
    variables = discriminator_variables(drawn_weights(str(data["disc_order"]), data["disc_seed"]))
    assert count(variables["params"]) == DISCRIMINATOR_PARAMETERS[size]
    # theirs ran in this order, so that the second pass has statistics that the first has moved
    logit, moved = judge.apply(variables, data["k_train"][:, 0], True, mutable=["batch_stats"])
    np.testing.assert_allclose(jax.nn.sigmoid(logit), data["d_train"], atol=1e-5)
    logit = judge.apply(variables | moved, data["k_eval"][:, 0])
    np.testing.assert_allclose(jax.nn.sigmoid(logit), data["d_eval"], atol=1e-4)


def test_encoder_gives_the_authors_values(golden):
    data = golden("gkpile_encoder")
    net, variables = KernelEncoder(), encoder_variables(drawn_weights(str(data["order"]), data["seed"]))
    y = jnp.asarray(data["y"][:, 0])
    shapes = jax.eval_shape(net.init, jax.random.key(0), y)
    chex.assert_trees_all_equal_shapes(dict(shapes), variables)
    assert count(variables["params"]) == 11_221_540
    largest = np.abs(data["z_train"]).max()
    trained, _ = jax.jit(lambda v, y: net.apply(v, y, True, mutable=["batch_stats"]))(variables, y)
    np.testing.assert_allclose(trained, data["z_train"], atol=1e-4 * largest)
    np.testing.assert_allclose(net.apply(variables, y), data["z_eval"], atol=1e-4 * np.abs(data["z_eval"]).max())
