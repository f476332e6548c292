from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jbid import methods
from jbid.engine.checkpoint import Checkpoint
from jbid.engine.deep_prior import deep_prior
from jbid.engine.driver import RunContext, run
from jbid.engine.generators import free_kernel
from jbid.engine.updates import alternate, joint, turns, warm_up
from jbid.engine.wrappers import over_images, over_seeds
from jbid.losses import mse
from jbid.methods.selfdeblur import selfdeblur
from jbid.ops.conv import blur
from jbid.ops.motion import gaussian_process_kernel
from jbid.types import Estimate, Generator
from tests.helpers import TINY_NETWORK, stoppable, third_loss

TINY = TINY_NETWORK | {"ssim_from": 4}


@pytest.fixture(scope="module")
def blurred():
    x = jax.image.resize(jax.random.uniform(jax.random.key(7), (7, 7, 1)), (48, 48, 1), "nearest")
    return blur(x, gaussian_process_kernel(jax.random.key(8), 9))


def keys(*seeds):
    return jax.vmap(jax.random.key)(jnp.array(seeds))


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(alternating=True),
        dict(kernel_net="linear"),
        dict(kernel_net="deep_mlp"),
        dict(kernel_net="skip"),
        dict(loss="mse_tv"),
        dict(loss="mse_tv", squared_tv=True, tv_weight=1e-3),
        dict(loss="ssim", schedule="cosine", steps=12),
    ],
)
def test_every_variant_lowers_its_loss_and_returns_a_kernel(blurred, options):
    method = selfdeblur(9, **{**TINY, "ssim_from": 100, **options})
    result = run(method, jax.random.key(0), blurred, 12)
    assert result.losses[-1] < 0.8 * result.losses[0]
    assert result.output.image.shape == blurred.shape and result.output.kernel.shape == (9, 9)
    np.testing.assert_allclose(result.output.kernel.sum(), 1, atol=1e-5)
    assert (result.output.kernel >= 0).all()


def test_variants_differ(blurred):
    # an option that is not passed on would go unnoticed above
    alike, others = (
        [dict(), dict(input_noise=0.0), dict(image_lr=1e-3)],
        [dict(alternating=True), dict(kernel_net="skip")],
    )
    init = jax.jit(selfdeblur(9, **TINY).init)
    told = [third_loss(selfdeblur(9, **TINY, **o), blurred, init) for o in alike]
    told += [third_loss(selfdeblur(9, **TINY, **o), blurred) for o in others]
    assert len({float(v) for v in told}) == len(alike + others)


def test_same_key_same_bits_other_key_other_bits(blurred):
    method = selfdeblur(9, **TINY)
    a, b, c = (run(method, jax.random.key(seed), blurred, 6).output for seed in (0, 0, 1))
    chex.assert_trees_all_equal(a, b)
    assert np.abs(a.image - c.image).max() > 1e-3


def test_vmapped_seeds_and_images_equal_single_runs(blurred):
    method = selfdeblur(9, **TINY)
    other = jnp.flip(blurred, 0)
    single = [[run(method, jax.random.key(s), y, 3) for s in (5, 6)] for y in (blurred, other)]
    seeds = run(over_seeds(method), keys(5, 6), blurred, 3)
    both = run(over_images(over_seeds(method)), jnp.broadcast_to(keys(5, 6), (2, 2)), jnp.stack([blurred, other]), 3)
    for s in range(2):
        np.testing.assert_allclose(seeds.losses[:, s], single[0][s].losses, rtol=1e-3)
        np.testing.assert_allclose(seeds.output.image[s], single[0][s].output.image, atol=5e-3)
        for i in range(2):
            np.testing.assert_allclose(both.losses[:, i, s], single[i][s].losses, rtol=1e-3)
            np.testing.assert_allclose(both.output.kernel[i, s], single[i][s].output.kernel, atol=1e-4)


def test_seeds_draw_their_own_noise(blurred):
    result = run(over_seeds(selfdeblur(9, **TINY)), keys(0, 1, 2), blurred, 1)
    assert len(set(result.losses[0].tolist())) == 3


def test_stopped_and_resumed_equals_uninterrupted(blurred, tmp_path):
    method = over_seeds(selfdeblur(9, **TINY))
    whole = run(method, keys(0, 1), blurred, 10, chunk=2)
    first = Checkpoint(tmp_path / "c")
    context = stoppable(lambda progress: progress.step == 6, checkpoint=first)
    half = run(method, keys(0, 1), blurred, 10, chunk=2, context=context)
    first.close()
    assert len(half.losses) == 6
    second = Checkpoint(tmp_path / "c")
    resumed = run(method, keys(0, 1), blurred, 10, chunk=2, context=RunContext(checkpoint=second))
    second.close()
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    chex.assert_trees_all_equal(resumed.output, whole.output)
    chex.assert_trees_all_equal(resumed.state.opt_state, whole.state.opt_state)


def test_chunks_do_not_matter_and_scanned_steps_equal_single_ones(blurred):
    method = selfdeblur(9, **TINY)
    a, b = (run(method, jax.random.key(0), blurred, 6, chunk=c) for c in (1, 4))
    chex.assert_trees_all_equal(a.output, b.output)
    state = jax.jit(method.init)(jax.random.key(0), blurred)
    _, losses = jax.jit(
        lambda s: jax.lax.scan(lambda s, t: (lambda n, i: (n, i.loss))(*method.step(s, blurred, t)), s, jnp.arange(6))
    )(state)
    np.testing.assert_allclose(losses, a.losses, rtol=1e-3)


def test_known_kernel_does_not_change(blurred):
    kernel = gaussian_process_kernel(jax.random.key(8), 9)
    result = run(selfdeblur(9, kernel=kernel, **TINY), jax.random.key(0), blurred, 4)
    np.testing.assert_allclose(result.output.kernel, kernel, atol=1e-6)


def test_method_compiles_once(blurred):
    from jbid.engine.driver import _compile

    traced = []
    method = selfdeblur(9, **TINY)
    counted = method._replace(step=lambda *args: (traced.append(0), method.step(*args))[1])
    for seed in range(3):
        run(counted, jax.random.key(seed), blurred, 2)
    assert len(traced) == 1
    assert _compile(counted) is _compile(counted)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(kernel_size=8), "odd"),
        (dict(kernel_size=-1), "odd"),
        (dict(kernel_net="cnn"), "kernel_net"),
        (dict(loss="l7"), "loss"),
        (dict(schedule="never"), "schedule"),
        (dict(kernel=jnp.ones((3, 3))), "`kernel` must"),
    ],
)
def test_bad_options_are_refused(options, words, unchecked):
    with pytest.raises(ValueError, match=words):
        selfdeblur(**{"kernel_size": 9, **options})


def test_each_seed_has_its_own_initial_kernel(blurred):
    method = selfdeblur(9, **TINY, kernel_net="free")
    starts = jax.vmap(lambda key: gaussian_process_kernel(key, 9))(keys(3, 4))
    both = run(over_seeds(method), keys(0, 1), blurred, 0, init_kernel=starts).output.kernel
    np.testing.assert_allclose(both, starts, atol=1e-3)
    images = run(over_images(over_seeds(method)), keys(0, 1)[None], blurred[None], 0, init_kernel=starts[None])
    np.testing.assert_allclose(images.output.kernel[0], both, atol=1e-6)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_follows_the_protocol(name, blurred):
    spec = methods.get(name)
    assert spec.name == name and set(spec.presets) == {"quick", "paper"} and spec.summary
    if spec.build is None:
        return
    method = spec.build(31 if name == "gkpile" else 9, out_channels=1)
    state = jax.eval_shape(method.init, jax.random.key(0), blurred)
    after, info = jax.eval_shape(method.step, state, blurred, jnp.asarray(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert info.loss.shape == ()
    estimate = jax.eval_shape(method.estimate, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(info.estimate, estimate)
    assert info.stopped.shape == () and info.stopped.dtype == bool
    assert jax.eval_shape(method.restore, estimate, blurred).image.shape == blurred.shape


@pytest.mark.parametrize(
    "updates, moves",
    [
        (joint(), [(True, True)] * 4),
        (warm_up(2), [(True, False)] * 2 + [(True, True)] * 2),
        (warm_up(1, turns(2, 1, reset_kernel=False)), [(True, False), (False, True), (False, True), (True, False)]),
        (turns(1, 1, reset_kernel=False, image_first=True), [(True, False), (False, True)] * 2),
        (warm_up(2, alternate()), [(True, False)] * 2 + [(True, True)] * 2),
    ],
)
def test_update_schedules_move_image_and_kernel_in_turn(updates, moves):
    image = Generator(lambda key, y: (jnp.full((10, 12, 1), 0.3), {}), lambda params, code, key: params)
    method = deep_prior(
        image, free_kernel((3, 3)), loss=mse(), optimizers=Estimate(optax.adam(0.1), optax.adam(0.1)), updates=updates
    )
    y = jax.random.uniform(jax.random.key(1), (8, 10, 1))
    state, step = method.init(jax.random.key(0), y), jax.jit(method.step)
    for t, expected in enumerate(moves):
        after, _ = step(state, y, jnp.asarray(t))
        assert tuple(bool((a != b).any()) for a, b in zip(after.params, state.params)) == expected
        state = after


def test_optimizer_follows_the_gradients_in_a_warm_up_only_if_asked():
    image = Generator(lambda key, y: (jnp.full((10, 12, 1), 0.3), {}), lambda params, code, key: params)
    y = jax.random.uniform(jax.random.key(1), (8, 10, 1))
    for optimizer in (False, True):
        optimizers = Estimate(optax.adam(0.1), optax.adam(0.1))
        schedule = warm_up(3, optimizer=optimizer)
        method = deep_prior(image, free_kernel((3, 3)), loss=mse(), optimizers=optimizers, updates=schedule)
        state = method.init(jax.random.key(0), y)
        after, _ = method.step(state, y, jnp.asarray(0))
        is_moved = bool((after.opt_state.kernel[0].mu != state.opt_state.kernel[0].mu).any())
        assert is_moved == optimizer


def test_schedules_refuse_turns_without_steps():
    with pytest.raises(ValueError, match="at least 1"):
        turns(0, 1)
    with pytest.raises(ValueError, match="at least 0"):
        warm_up(-1)
