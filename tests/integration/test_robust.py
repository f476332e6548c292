"""The parts of `robust` against planted truths, and the method as a whole on small pictures."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from skimage.metrics import structural_similarity

from jbid import losses
from jbid.engine import fitting
from jbid.engine.checkpoint import Checkpoint
from jbid.engine.driver import RunContext, run
from jbid.engine.wrappers import early_stopping
from jbid.methods.robust import restore_best_window, robust, siren_kernel
from jbid.metrics import kernel_similarity
from jbid.nets.siren import Siren
from jbid.ops.alignment import best_window, window_similarity
from jbid.ops.conv import blur
from jbid.ops.kernels import shift_kernel
from jbid.ops.motion import gaussian_process_kernel
from jbid.ops.noise import gaussian_noise
from jbid.pipeline.config import resolve
from jbid.pipeline.solve import restore
from jbid.types import Estimate, Method, MethodOutput, StepInfo
from tests.helpers import stoppable, third_loss

TINY = dict(channels=4, skip_channels=2, scales=1, siren_width=16)


def photo(h=60, w=70, channels=1, key=3):
    coarse = jax.random.uniform(jax.random.key(key), (h // 5, w // 5, channels))
    return jax.image.resize(coarse, (h, w, channels), "nearest")


@pytest.fixture(scope="module")
def blurred():
    return blur(photo(64, 72, 3), gaussian_process_kernel(jax.random.key(8), 9))


# early stopping


def planted(valley: int, shape=(40, 50, 1)) -> Method:
    """A method whose image comes closer to the truth until step `valley` and is ever noisier from then on."""
    truth = photo(*shape)

    def step(state, blurred, t):
        key = jax.random.fold_in(state["key"], t)
        noise = 0.01 + 0.2 * jnp.abs(t - state["valley"]) / state["valley"]
        estimate = Estimate(truth + noise * jax.random.normal(key, shape), jnp.full((3, 3), t, float))
        return state | {"last": estimate, "steps": state["steps"] + 1}, StepInfo(noise, estimate, jnp.array(False))

    def init(key, blurred, init_kernel=None):
        last = Estimate(jnp.zeros(shape), jnp.zeros((3, 3)))
        return {
            "key": key,
            "valley": jnp.array(valley) if init_kernel is None else init_kernel,
            "last": last,
            "steps": 0,
        }

    return Method(init, step, lambda state: state["last"], lambda e, blurred: MethodOutput(e.image, e.kernel))


def full_window_stop(valley: int, window: int, patience: int, key) -> tuple[int, int]:
    """The step of the least moving variance and of the stop, with all pixels of all images of the window kept."""
    method = planted(valley)
    state, seen, variances = method.init(key, None), [], []
    for t in range(10 * valley):
        state, info = method.step(state, None, t)
        seen = [*seen, np.asarray(info.estimate.image)][-window:]
        variances.append(np.var(seen, 0).mean() if len(seen) == window else np.inf)
        best = int(np.argmin(variances))
        if np.isfinite(variances[best]) and t - best >= patience:
            return best, t + 1
    raise AssertionError


def test_early_stopping_finds_the_planted_valley_like_the_full_window():
    valley, window, patience = 600, 20, 100
    result = run(
        early_stopping(planted(valley), window=window, patience=patience, samples=500), jax.random.key(0), photo(), 5000
    )
    best = int(result.output.kernel[0, 0])
    # the variance of a window is that of its middle
    assert abs(best - window / 2 - valley) <= 0.02 * valley
    assert result.is_complete and result.stopped == best + patience + 1
    full = full_window_stop(valley, window, patience, jax.random.key(0))
    assert abs(full[0] - best) <= 0.02 * valley and abs(full[1] - int(result.stopped)) <= 0.02 * valley


def test_nan_is_no_lower_variance():
    sound = planted(200)

    def step(state, blurred, t):
        state, info = sound.step(state, blurred, t)
        spoilt = jax.tree.map(lambda leaf: jnp.where(t >= 60, jnp.nan, leaf), info.estimate)
        return state, StepInfo(jnp.where(t >= 60, jnp.nan, info.loss), spoilt, info.stopped)

    for window in (5, 100):
        method = early_stopping(sound._replace(step=step), window=window, patience=20)
        result = run(method, jax.random.key(0), photo(), 200)
        assert result.stopped == 80 and result.output.kernel[0, 0] == 59 and np.isfinite(result.output.image).all()


def of_two(method: Method) -> Method:
    """Seeds with a valley each."""
    return Method(
        jax.vmap(method.init, (0, None, 0)),
        jax.vmap(method.step, (0, None, None)),
        jax.vmap(method.estimate),
        jax.vmap(method.restore, (0, None)),
    )


def test_stopped_seeds_freeze_and_the_run_ends_when_all_have_stopped():
    method = early_stopping(planted(0), window=5, patience=20)
    valleys = jnp.array([40, 90])
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    both = of_two(method)
    result = run(both, keys, photo(), 1000, init_kernel=valleys)
    assert len(result.losses) < 200 and result.is_complete and (result.stopped > 0).all()
    assert result.stopped[0] < result.stopped[1] - 30
    # frozen: not one step of its own more
    np.testing.assert_array_equal(result.state.inner["steps"], result.stopped)
    for i in range(2):
        alone = run(method, keys[i], photo(), 1000, init_kernel=valleys[i])
        assert alone.stopped == result.stopped[i]
        np.testing.assert_allclose(alone.output.image, result.output.image[i], atol=1e-6)


def test_patience_depends_on_the_noise_level():
    calm = photo(64, 64) * 0.5 + 0.2
    noisy = calm + 0.05 * jax.random.normal(jax.random.key(1), calm.shape)
    method = early_stopping(planted(10))
    assert [int(method.init(jax.random.key(0), y).patience) for y in (calm, noisy)] == [500, 200]
    assert int(early_stopping(planted(10), patience=7).init(jax.random.key(0), noisy).patience) == 7


def test_resumed_early_stopping_equals_uninterrupted(tmp_path):
    method = of_two(early_stopping(planted(0), window=5, patience=20))
    keys, valleys = jax.vmap(jax.random.key)(jnp.arange(2)), jnp.array([40, 120])
    whole = run(method, keys, photo(), 500, init_kernel=valleys)
    first = Checkpoint(tmp_path / "c")
    context = stoppable(lambda progress: progress.step == 100, checkpoint=first)
    half = run(method, keys, photo(), 500, init_kernel=valleys, context=context)
    first.close()
    # one has stopped by then, the other has not
    assert not half.is_complete and list(half.stopped > 0) == [True, False]
    second = Checkpoint(tmp_path / "c")
    resumed = run(method, keys, photo(), 500, init_kernel=valleys, context=RunContext(checkpoint=second))
    second.close()
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    np.testing.assert_array_equal(resumed.stopped, whole.stopped)
    chex.assert_trees_all_equal(resumed.output, whole.output)


# locating


@pytest.mark.parametrize("offset", [(0, 0), (3, 17), (24, 20), (12, 10)])
def test_the_window_search_recovers_a_planted_shift(offset):
    x = photo(84, 90, 3)
    y = x[offset[0] : offset[0] + 60, offset[1] : offset[1] + 70]
    noisy = blur(jnp.pad(y, ((2, 2), (2, 2), (0, 0)), mode="edge"), jnp.full((5, 5), 1 / 25))
    noisy = noisy + 0.05 * jax.random.normal(jax.random.key(0), y.shape)
    for seen in (y, noisy):
        assert tuple(best_window(x, seen).tolist()) == offset


def test_window_similarity_is_ssim():
    # few enough windows that all of them are looked at
    x, y = (np.asarray(photo(h, w, 1, key)[..., 0]) for h, w, key in ((36, 40, 1), (30, 32, 2)))
    got = np.asarray(window_similarity(x[..., None], y[..., None]))
    assert got.shape == (7, 9)
    for i, j in ((0, 0), (6, 8), (3, 5)):
        wanted = structural_similarity(
            x[i : i + 30, j : j + 32], y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        assert got[i, j] == pytest.approx(wanted, abs=2e-3)


def test_image_and_kernel_are_shifted_back_together():
    small = gaussian_process_kernel(jax.random.key(2), 9)
    x = photo(60 + 24, 70 + 20)
    frame = jnp.pad(small, ((8, 8), (6, 6)))
    moved = shift_kernel(frame, 5, -4)
    y = blur(x, moved)
    # a latent image of half the brightness and a kernel of twice the sum are the same to the data term
    restored = restore_best_window(Estimate(x / 2, moved * 2), y, threshold=0.01)
    assert restored.kernel.shape == frame.shape and restored.image.shape == y.shape
    np.testing.assert_allclose(restored.kernel.sum(), 1, atol=1e-5)
    assert kernel_similarity(restored.kernel, small) > 0.99
    kernel = np.asarray(restored.kernel)
    again = np.asarray(blur(restored.image, kernel))
    np.testing.assert_allclose(again, y[12:-12, 10:-10], atol=0.03)


@pytest.mark.parametrize("peak, tail", [((1, 2), (9, 8)), ((8, 4), (0, 6))])
def test_kernel_that_fills_its_frame_is_not_cut_off(peak, tail):
    kernel = jnp.zeros((10, 9)).at[peak].set(0.6)
    steps = jnp.linspace(0, 1, 60)[:, None]
    path = jnp.round(jnp.asarray(peak) * (1 - steps) + jnp.asarray(tail) * steps).astype(int)
    kernel = kernel.at[path[:, 0], path[:, 1]].add(0.4 / 60)
    x = photo(60 + 9, 70 + 8)
    # the peak, and so the window that looks most like the picture, is far from the middle
    restored = restore_best_window(Estimate(x, kernel), blur(x, kernel), threshold=0.001)
    assert kernel_similarity(restored.kernel, kernel) > 0.999


def test_known_kernel_is_returned_unchanged():
    kernel = jnp.zeros((9, 9)).at[2, 2].set(0.9).at[7, 7].set(0.1)
    x = photo(68, 78)
    method = robust(9, **TINY, kernel=kernel)
    y = blur(x, kernel)
    restored = method.restore(Estimate(x, kernel), y)
    np.testing.assert_allclose(restored.kernel, kernel, atol=1e-6)
    np.testing.assert_allclose(restored.image, x[4:-4, 4:-4], atol=1e-6)


def test_brightness_is_restored_for_a_free_kernel_sum():
    x, kernel = photo(), gaussian_process_kernel(jax.random.key(2), 9)
    for latent in ("enlarged", "exact"):
        frame = jnp.pad(x, ((4, 4), (4, 4), (0, 0)), mode="edge") if latent == "enlarged" else x
        restored = jax.jit(robust(9, **TINY, latent=latent).restore)(Estimate(frame / 2, kernel * 2), x)
        np.testing.assert_allclose(restored.image.mean(), x.mean(), atol=0.02)
        np.testing.assert_allclose(restored.kernel.sum(), 1, atol=1e-5)


# terms of the loss


def terms(loss, image=None, reblurred=None, blurred=None):
    return float(loss(Estimate(image, None), reblurred, blurred, 0))


def test_huber_matches_scipy():
    a, b = jax.random.uniform(jax.random.key(0), (2, 9, 8, 3))
    wanted = scipy.special.huber(0.05, np.asarray(a - b)).mean()
    assert terms(losses.huber(0.05), reblurred=a, blurred=b) == pytest.approx(wanted, rel=1e-5)


def test_l1_over_l2_is_scale_invariant_and_prefers_sparse_gradients():
    x = photo()
    value = float(losses.l1_over_l2(x))
    for scale in (0.01, 3.0, -1.0):
        assert float(losses.l1_over_l2(scale * x)) == pytest.approx(value, rel=1e-4)
    assert value > float(losses.l1_over_l2(jnp.round(x)))
    d = np.concatenate([np.diff(np.asarray(x), axis=a).ravel() for a in (0, 1)])
    assert value == pytest.approx(np.abs(d).sum() / np.sqrt((d * d).sum()), rel=1e-5)
    assert np.isfinite(jax.grad(losses.l1_over_l2)(jnp.ones((5, 5, 1)))).all()


# the kernel network


def test_untrained_siren_sums_to_one_and_fits_a_kernel(monkeypatch):
    # two samples per pixel, not seventeen
    monkeypatch.setattr(fitting, "FIT_SAMPLES", 256)
    target = gaussian_process_kernel(jax.random.key(4), 11)
    for normalize in (False, True):
        generator = siren_kernel((11, 11), Siren(mean=1 / 122), normalize=normalize)
        params, code = jax.jit(lambda key, fitted=generator: fitted.init(key, None))(jax.random.key(0))
        assert generator.apply(params, code, None).sum() == pytest.approx(1, abs=0.3)
        assert generator.fit is not None
        fitted = generator.apply(jax.jit(generator.fit)(params, code, target), code, None)
        assert kernel_similarity(fitted, target) > 0.97
        assert fitted.sum() == pytest.approx(1, abs=0.05)


# the whole


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(normalize="sum", loss="mse"),
        dict(kernel_net="mlp", regularizer="l1", reg_weight=1e-3),
        dict(kernel_net="skip", regularizer="none"),
        dict(latent="exact", stop=False),
    ],
)
def test_every_variant_runs_and_lowers_its_loss(blurred, options):
    method = robust((11, 9), **{**TINY, **options})
    result = run(method, jax.random.key(0), blurred, 12)
    assert result.losses[-1] < 0.9 * result.losses[0]
    assert result.output.image.shape == blurred.shape and result.output.kernel.shape == (11, 9)
    np.testing.assert_allclose(result.output.kernel.sum(), 1, atol=1e-5)


def test_variants_differ(blurred):
    options = [dict(), dict(siren_omega=10.0), dict(siren_first_omega=60.0), dict(reg_weight=1e-3)]
    init = jax.jit(robust(9, **TINY).init)
    told = [third_loss(robust(9, **{**TINY, **o}), blurred, init) for o in options]
    told.append(third_loss(robust(9, **TINY, delta=0.2, stop=False), blurred))
    assert len({float(v) for v in told}) == len(options) + 1


@pytest.mark.parametrize(
    "method, stop, sigma, is_deconvolved",
    [
        ("robust", True, 0.15, False),
        ("robust", True, 0.02, True),
        ("robust", False, 0.15, True),
        ("selfdeblur", None, 0.15, True),
    ],
)
def test_network_image_is_the_answer_for_very_high_noise_and_early_stopping(
    blurred, method, stop, sigma, is_deconvolved
):
    tiny = {name: value for name, value in TINY.items() if method == "robust" or name != "siren_width"}
    options = tiny | ({} if stop is None else {"stop": stop})
    options |= {"method": method, "kernel_size": 9, "init": "random", "steps": 2, "patch": 0}
    noisy = np.asarray(gaussian_noise(jax.random.key(0), blurred, sigma))
    answer = restore([noisy], resolve([("test", options)]))[0]
    assert answer.is_deconvolved == is_deconvolved


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(kernel_size=8), "odd"),
        (dict(kernel_net="big"), "siren"),
        (dict(loss="l2"), "huber"),
        (dict(regularizer="tv"), "l1_over_l2"),
        (dict(latent="half"), "enlarged"),
        (dict(normalize="max"), "sum"),
        (dict(siren_omega=0.0), "above 0"),
        (dict(siren_width=0), "at least 1"),
        (dict(window=1), "`window` must be at least 2, got 1"),
        (dict(patience=-5), "at least 1"),
    ],
)
def test_bad_options_are_refused_with_the_choices(options, word, unchecked):
    with pytest.raises(ValueError, match=word):
        robust(**{"kernel_size": 9, **options})
