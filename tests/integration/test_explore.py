"""The blur-operator family: networks, training, transfer."""

from __future__ import annotations

import csv
import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from skimage import data as data_of_scikit

from jbid import losses
from jbid.cli.main import main
from jbid.data import pairs as data
from jbid.engine.driver import run
from jbid.engine.generators import network_generator
from jbid.io import torch_weights, weights
from jbid.io.images import read_image, write_image
from jbid.losses import perceptual
from jbid.methods.explore import blur_operator, generators
from jbid.methods.explore.method import explore
from jbid.methods.explore.objective import equivalent_kernel
from jbid.methods.explore.transfer import apply_code, extract_code
from jbid.metrics import psnr
from jbid.nets import gated_wizard, kernel_wizard, wizards
from jbid.nets.gated_wizard import GatedWizard
from jbid.nets.kernel_wizard import KernelWizard, Levels, Widths
from jbid.nets.skip import Skip
from jbid.nets.vgg import vgg_features
from jbid.ops import motion
from jbid.ops.conv import blur, pad_edge
from jbid.pretrain import blur_operator as training
from jbid.pretrain import loop
from tests.helpers import stoppable
from tests.torch_names import drawn_weights, wizard_variables

TINY = Widths(4, 4, 8, 1, 1, 1)
GATED = Levels((4, 6, 8), 8, 16, (4, 8))
FEW = {"held_out": 2, "code_pairs": 8}


@pytest.mark.parametrize("name, variational", [("plain", False), ("vae", True)])
def test_operator_family_matches_the_authors_values(golden, name, variational):
    given = golden(f"kernel_wizard_{name}")
    net = KernelWizard(Widths(8, 64, 64, 2, 2, 2), variational)
    variables = wizard_variables(drawn_weights(str(given["order"]), given["seed"]), 2, 2, 2)
    rng = np.random.default_rng(10)
    x, y = (rng.uniform(0, 1, (1, 3, 256, 256)).astype(np.float32).transpose(0, 2, 3, 1) for _ in range(2))
    chex.assert_trees_all_equal_shapes(variables, jax.eval_shape(net.init, jax.random.key(0), x, y))
    made, mean, deviation = (np.asarray(v).transpose(0, 3, 1, 2) for v in jax.jit(net.apply)(variables, x, y))
    np.testing.assert_allclose(mean, given["k_mean"], atol=1e-5)
    np.testing.assert_allclose(deviation, given["k_sigma"], atol=1e-5)
    np.testing.assert_allclose(made[:, :, 100:164, 60:124], given["y_hat_crop"], atol=1e-4)
    assert made.std() == pytest.approx(float(given["y_hat_std"]), abs=1e-5)


@pytest.mark.parametrize("variational, count", [(False, 49_205_187), (True, 115_265_475)])
def test_parameters_at_published_width(variational, count):
    x = jnp.zeros((1, 128, 128, 3))
    shapes = jax.eval_shape(KernelWizard(wizards.WIDTHS["published"], variational).init, jax.random.key(0), x, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    shapes = jax.eval_shape(wizards.build_wizard("compact", variational).init, jax.random.key(0), x, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) <= 6_000_000


def test_losses_match_the_authors(golden):
    given = golden("explore_losses")
    a, b = (jnp.asarray(given[name][0].transpose(1, 2, 0)) for name in "ab")
    assert losses.charbonnier_distance(a, b) == pytest.approx(float(given["charbonnier"]), rel=1e-4)
    assert losses.hyper_laplacian(a) == pytest.approx(float(given["hyper_laplacian"]), rel=1e-4)


def lively(variables, seed=0):
    """Random weights with which pictures and codes do not fade through the layers."""
    rng = np.random.default_rng(seed)

    def drawn(leaf):
        scale = 0.1 if leaf.ndim < 2 else 1.5 / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree.map(drawn, variables)


@pytest.fixture(scope="module")
def tiny():
    """Networks of tiny width with random weights, without and with a VAE, and jbid's own."""
    x = jnp.zeros((1, 128, 128, 3))
    made = {}
    for name, net in {False: KernelWizard(TINY), True: KernelWizard(TINY, True), "gated": GatedWizard(GATED)}.items():
        shapes = jax.eval_shape(net.init, jax.random.key(1), x, x)
        made[name] = blur_operator.from_network(net, lively(shapes))
    return made


def test_local_kernels_are_ridge_regressions_of_tiles():
    rng = np.random.default_rng(0)
    x = scipy.ndimage.gaussian_filter(rng.uniform(size=(128, 256, 3)), (1, 1, 0))
    k = np.zeros((9, 9))
    k[2, 3], k[5, 6] = 0.7, 0.3
    y = scipy.ndimage.convolve(x, k[..., None], mode="wrap")
    made = np.asarray(gated_wizard.local_kernels(x[None].astype(np.float32), y[None].astype(np.float32), 15))[0]
    assert made.shape == (1, 2, 15, 15, 3)
    fade = np.clip((np.minimum(np.arange(128), np.arange(128)[::-1]) + 0.5) / 16, 0, 1)
    fade = np.sin(fade * np.pi / 2) ** 2
    for place in range(2):
        power, cross = 0, 0
        for axis in (0, 1):
            both = [v[:, 128 * place : 128 * (place + 1)].mean(-1) for v in (x, y)]
            a, b = (np.fft.fft2((np.roll(v, -1, axis) - v) * fade * fade[:, None]) for v in both)
            power, cross = power + np.abs(a) ** 2, cross + a.conj() * b
        for i, ridge in enumerate((1, 0.1, 0.01)):
            # of the whole spectrum the network sees the half that is not repeated
            whole = np.fft.fftshift(np.fft.ifft2(cross / (power + ridge * power[:, :65].mean())).real)
            np.testing.assert_allclose(made[0, place, ..., i], 15 * whole[57:72, 57:72], atol=1e-4)
        # and shows the kernel: its two peaks where they are
        shown = made[0, place, ..., 2]
        assert np.unravel_index(shown.argmax(), shown.shape) == (7 + 2 - 4, 7 + 3 - 4)
        assert shown[7 + 5 - 4, 7 + 6 - 4] > 0.3 * shown.max()


def test_gated_family_treats_channels_equally(tiny):
    x = jax.random.uniform(jax.random.key(0), (128, 128, 3))
    operator = tiny["gated"]
    code = jax.random.normal(jax.random.key(1), (1, 1, 8))
    f = jax.jit(operator.blur)
    made = np.asarray(f(x, code))
    np.testing.assert_allclose(made[..., 1:2], f(x[..., 1:2], code), atol=1e-5)
    assert np.abs(made - f(x, 0 * code)).max() > 0.01


def test_gated_family_mirrors_images_at_their_borders():
    net = GatedWizard(GATED)
    x = jnp.zeros((1, 128, 128, 3))
    variables = lively(jax.eval_shape(net.init, jax.random.key(1), x, x))
    x = jax.random.uniform(jax.random.key(0), (256, 128, 1))
    around = gated_wizard.FRAME
    wide = jnp.pad(x, ((around, around), (around, around), (0, 0)), mode="symmetric")
    code = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (1, 1, 8)), (2, 1, 8))
    made = jax.jit(blur_operator.from_network(net, variables).blur)(x, code)
    change = jax.jit(partial(net.apply, variables, method=lambda m, x, k: m.change(x, k)))(wide[None], code[None])[0]
    np.testing.assert_allclose(made - x, change[around:-around, around:-around], atol=1e-5)


@pytest.mark.parametrize(
    "name, shape", [(False, (97, 240, 3)), (False, (131, 128, 1)), ("gated", (131, 128, 1)), ("gated", (511, 387, 3))]
)
def test_images_of_any_size_are_blurred(tiny, shape, name):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(2, *shape)).astype(np.float32)
    operator = tiny[name]
    code = extract_code(operator, x, y)
    assert code.shape == (-(-shape[0] // 128), -(-shape[1] // 128), TINY.code)
    assert apply_code(operator, x, code).shape == shape


def test_without_padding_the_networks_see_the_image_itself(tiny):
    x, y = jax.random.uniform(jax.random.key(0), (2, 256, 128, 3))
    operator = tiny[False]
    extract, apply = jax.jit(operator.extract), jax.jit(operator.blur)
    mean, deviation = extract(x, y)
    assert not np.asarray(deviation).any()
    np.testing.assert_allclose(extract_code(operator, np.asarray(x), np.asarray(y)), mean, atol=1e-5)
    expected, without = (np.clip(apply(x, k), 0, 1) for k in (mean, jnp.zeros_like(mean)))
    np.testing.assert_allclose(apply_code(operator, np.asarray(x), np.asarray(mean)), expected, atol=1e-4)
    assert np.abs(expected - without).max() > 0.005


def test_tiles_show_no_seams(tiny):
    x, y = np.asarray(jax.random.uniform(jax.random.key(0), (2, 640, 150, 3)))
    x, y = (np.asarray(blur(jnp.asarray(v), jnp.full((9, 9), 1 / 81))) for v in (x, y))
    operator = tiny[False]
    code = extract_code(operator, x, y)
    whole = apply_code(operator, x, code)
    tiled = apply_code(operator, x, code, tile=3)
    assert np.abs(tiled - whole).max() < 0.02
    assert np.abs(np.diff(tiled - whole, axis=0)).max() < 0.01


def test_resized_code_keeps_its_places():
    code = np.zeros((2, 2, 1), np.float32)
    code[0] = 1
    wide = np.asarray(blur_operator.resize_code(jnp.asarray(code), (4, 6)))
    assert wide.shape == (4, 6, 1) and (wide[0] > wide[-1]).all()
    assert blur_operator.resize_code(code, (2, 2)) is code


def test_sampled_codes_follow_the_fitted_distribution_and_are_correlated(tiny):
    rng = np.random.default_rng(0)
    known = rng.standard_normal((5000, 8)) @ rng.standard_normal((8, 8)) + 3
    operator = tiny[True]._replace(codes=blur_operator.fit_codes(jnp.asarray(known, jnp.float32)))
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = jax.jit(jax.vmap(lambda key: blur_operator.sample_code(operator, key, (256, 130, 3))))
    codes = np.asarray(draw(keys))
    assert codes.shape == (2000, 2, 2, 8)
    np.testing.assert_allclose(codes.mean((0, 1, 2)), known.mean(0), atol=0.4)
    spread = np.cov(known.T)
    np.testing.assert_allclose(np.cov(codes[:, 0, 0].T), spread, atol=0.15 * np.abs(spread).max())
    for i in range(8):
        assert np.corrcoef(codes[:, 0, 0, i], codes[:, 1, 1, i])[0, 1] == pytest.approx(0.9, abs=0.03)
    # where nothing is known of them, as the authors draw them
    codes = np.asarray(jax.vmap(lambda key: blur_operator.sample_code(tiny[True], key, (256, 130, 3)))(keys[:400]))
    assert codes.std() == pytest.approx(1.2, rel=0.03) and abs(codes.mean()) < 0.1
    with pytest.raises(ValueError, match="VAE"):
        blur_operator.sample_code(tiny[False], keys[0], (128, 128, 3))


def test_divergence_vanishes_for_the_standard_normal_distribution():
    zeros = jnp.zeros((2, 3))
    assert training.divergence(zeros, zeros + 1) == pytest.approx(0, abs=1e-5)
    # sum mu^2 + sigma^2 - log sigma^2 - 1
    assert training.divergence(zeros + 2, zeros + 0.5) == pytest.approx(6 * (4 + 0.25 + 2 * np.log(2) - 1), rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of weights with a random operator of tiny width."""
    x = jnp.zeros((1, 128, 128, 3))
    net = KernelWizard(TINY)
    path = tmp_path_factory.mktemp("weights")
    variables = lively(jax.eval_shape(net.init, jax.random.key(1), x, x))
    loop.ship(path, "operator", variables, {"settings": {"width": "tiny", "variational": False}})
    return str(path)


SMALL = dict(channels=4, skip_channels=2, scales=1, warm_up=0, image_lr=1e-2, kernel_lr=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_net="free"),
        dict(kernel_net="dip", loss="charbonnier", schedule="cosine"),
        dict(kernel_net="free", scheme="alternating", kernel_steps=2, steps=12),
    ],
)
def test_explore_lowers_its_loss_and_restores_the_whole_image(folder, monkeypatch, options):
    monkeypatch.setitem(wizards.WIDTHS, "tiny", TINY)
    y = jax.random.uniform(jax.random.key(0), (100, 140, 3))
    method = explore(9, weights=folder, **SMALL, **options)
    result = run(method, jax.random.key(0), y, 12)
    assert result.losses[-1] < result.losses[0]
    assert result.output.image.shape == y.shape and result.output.kernel.shape == (9, 9)
    np.testing.assert_allclose(result.output.kernel.sum(), 1, atol=1e-5)


def test_turns_move_kernel_and_image_one_at_a_time(folder, monkeypatch):
    monkeypatch.setitem(wizards.WIDTHS, "tiny", TINY)
    y = jax.random.uniform(jax.random.key(0), (64, 64, 3))
    options = SMALL | dict(kernel_net="free", scheme="alternating", kernel_steps=2, warm_up=1, steps=7)
    method = explore(9, weights=folder, **options)
    states = [jax.jit(method.init)(jax.random.key(0), y)]
    step = jax.jit(method.step)
    for t in range(5):
        states.append(step(states[-1], y, jnp.asarray(t))[0])

    def same(a, b):
        return all(bool((p == q).all()) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b)))

    pairs = list(itertools.pairwise(states))
    # one step of warm-up
    assert [same(a.params.image, b.params.image) for a, b in pairs] == [False, True, True, False, True]
    assert [same(a.params.kernel, b.params.kernel) for a, b in pairs] == [True, False, False, True, False]
    # continues from the initial kernel, and is initialized again in the second turn
    assert np.abs(states[2].params.kernel - states[0].params.kernel).max() < 0.02
    assert np.abs(states[5].params.kernel - states[4].params.kernel).mean() > 0.02
    assert [int(jax.tree.leaves(s.opt_state.kernel)[0]) for s in states] == [0, 0, 1, 2, 2, 1]


def test_initial_kernel_gives_a_code_and_the_code_the_kernel(monkeypatch):
    """With F(x, k) = k * x and G its inverse, the displayed kernel is the initial one."""
    kernel = jnp.asarray(motion.motion_kernels(jax.random.key(3), 9, 1)[0])
    x = jnp.asarray(data_of_scikit.astronaut()[100:220, 100:220] / 255, jnp.float32)
    y = blur(pad_edge(x, (9, 9)), kernel)

    def fake_blur(image, code):
        return blur(pad_edge(image, (9, 9)), code[0, 0].reshape(9, 9))

    def extract(sharp, blurred):
        # what G is given is a deconvolution close to the sharp picture
        assert sharp.shape == blurred.shape
        return kernel.reshape(1, 1, 81), None

    operator = blur_operator.Operator(extract, fake_blur, 81, None)
    for generator in (
        generators.free_code(operator),
        generators.dip_code(operator, kernel_wizard.KernelDip(4, 81, 1), 0.0),
    ):

        @jax.jit
        def fitted_code(key, y, kernel, generator=generator):
            params, code = generator.init(key, y)
            return generator.apply(generator.fit(params, code, kernel), code, None)

        made = fitted_code(jax.random.key(0), y, kernel)
        np.testing.assert_allclose(made, kernel.reshape(1, 1, 81), atol=1e-5)
    net = Skip(scales=1, channels=4, skip_channels=2, out_channels=3)
    image = generators.residual_generator(
        network_generator(net, lambda y: (*y.shape[:2], 8)), lambda y: y.shape, generators._deconvolve
    )
    params, code = jax.jit(image.init)(jax.random.key(0), y)
    first = jax.jit(lambda p, c: image.apply(image.fit(p, c, kernel), c, None))(params, code)
    assert psnr(np.asarray(first), np.asarray(x)) > psnr(np.asarray(y), np.asarray(x)) + 3
    shown = equivalent_kernel(operator, x, kernel.reshape(1, 1, 81), (15, 15))

    def likeness(a, b):
        # over shifts, but not over turns
        return scipy.signal.correlate2d(a, b).max() / (np.linalg.norm(a) * np.linalg.norm(b))

    right, turned = (likeness(np.asarray(shown), np.asarray(k)) for k in (kernel, kernel[::-1, ::-1]))
    assert right > 0.95 and right > turned + 0.02


def test_kernel_network_has_the_authors_parameter_count():
    shapes = jax.eval_shape(kernel_wizard.KernelDip().init, jax.random.key(0), jnp.zeros((64, 64, 64)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 34_787_264


def test_perceptual_features_match_torchvision(tmp_path):
    import torch

    rng = np.random.default_rng(0)
    state, channels = {}, 3
    plan = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
    layers, at = [], 0
    for width in plan:
        if not width:
            layers.append(torch.nn.MaxPool2d(2))
            at += 1
            continue
        conv = torch.nn.Conv2d(channels, width, 3, padding=1)
        layers += [conv, torch.nn.ReLU()]
        state |= {f"features.{at}.weight": conv.weight.data, f"features.{at}.bias": conv.bias.data}
        channels, at = width, at + 2
    torch.save(state, tmp_path / "vgg19.pth")
    image = rng.uniform(size=(37, 50, 3)).astype(np.float32)
    x, expected = torch.tensor(image.transpose(2, 0, 1)[None]), []
    for i, layer in enumerate(layers):
        x = layer(x).detach()
        if i in (1, 6, 11, 20, 29):
            expected.append(x[0].numpy().transpose(1, 2, 0))
    told = vgg_features(torch_weights.vgg19(str(tmp_path / "vgg19.pth")), jnp.asarray(image))
    for a, b in zip(told, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    loss = perceptual(torch_weights.vgg19(str(tmp_path / "vgg19.pth")))
    assert float(loss(None, jnp.asarray(image), jnp.asarray(image), 0)) == 0
    torch.save({"other": state["features.0.bias"]}, tmp_path / "wrong.pth")
    for name, words in (("none.pth", "no such file"), ("wrong.pth", "not torchvision")):
        with pytest.raises(ValueError, match=words):
            torch_weights.vgg19(str(tmp_path / name))


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(loss="l1"), "loss"),
        (dict(scheme="both"), "scheme"),
        (dict(kernel_weights=(1.0,)), "kernel_weights"),
        (dict(kernel=np.ones((9, 9)) / 81), "must be None"),
        (dict(loss="perceptual"), "vgg"),
        (dict(scheme="alternating", kernel_steps=0, warm_up=0, steps=4), "`kernel_steps` must be at least 1"),
        (dict(warm_up=4, steps=4), "exceed the 4"),
        (dict(channels=0), "`channels` must be above 0"),
        (dict(image_lr=-1.0), "`image_lr` must be above 0"),
        (dict(input_noise=-1.0), "`input_noise` must be at least 0"),
        (dict(scheme="alternating", kernel_steps=2, warm_up=0, steps=4), "Try 6"),
    ],
)
def test_explore_refuses_bad_options(folder, monkeypatch, options, words, unchecked):
    monkeypatch.setitem(wizards.WIDTHS, "tiny", TINY)
    with pytest.raises(ValueError, match=words):
        explore(9, weights=folder, **options)


def test_explore_refuses_too_large_images(folder, monkeypatch):
    monkeypatch.setitem(wizards.WIDTHS, "tiny", TINY)
    with pytest.raises(ValueError, match="at most"):
        explore(9, weights=folder, **SMALL).init(jax.random.key(0), jax.ShapeDtypeStruct((4000, 4000, 3), jnp.float32))


@pytest.fixture
def sources(tmp_path):
    """Two pairs in either layout, a clip of 40 frames in which a bright bar moves, and a photo."""
    rng = np.random.default_rng(0)
    for kind, value in (("sharp", 0.25), ("blur", 0.75)):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        write_image(tmp_path / "pairs" / kind / "a.png", np.full((140, 150, 3), value))
        write_image(tmp_path / "pairs" / f"b_{kind}.png", np.full((128, 128, 1), value))
    (tmp_path / "frames" / "clip").mkdir(parents=True)
    for i in range(40):
        frame = np.zeros((130, 200, 3))
        frame[:, 4 * i : 4 * i + 20] = 1
        write_image(tmp_path / "frames" / "clip" / f"{i:03}.png", frame)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "p.png", rng.uniform(size=(200, 220, 3)))
    return tmp_path


def test_pairs_come_from_pairs_frames_and_photos(sources):
    found = data.find_pairs(sources / "pairs")
    assert sorted((a.name, b.name) for a, b in found) == [("a.png", "a.png"), ("b_sharp.png", "b_blur.png")]
    of_pairs = data.pairs(128, 0, folder=str(sources / "pairs"))
    assert all(of_pairs[i].sharp.max() < 0.3 and of_pairs[i].blurred.min() > 0.7 for i in range(4))
    of_frames = data.pairs(128, 0, frames=str(sources / "frames"))
    pair = of_frames[3]
    assert pair.sharp.shape == (128, 128, 3) and set(np.unique(pair.sharp)) <= {0, 1}
    assert ((pair.blurred > 0.1) & (pair.blurred < 0.95)).any()
    of_photos = data.pairs(128, 0, photos=str(sources / "photos"), size=9)
    sharp, blurred = of_photos[0]
    assert sharp.std() > 2 * blurred.std()
    mixed = dict(folder=str(sources / "pairs"), photos=str(sources / "photos"), mix={"pairs": 3, "photos": 1}, size=9)
    both = data.pairs(128, 0, **mixed)
    assert sum(np.ptp(both[i].sharp) == 0 for i in range(8)) == 6
    np.testing.assert_array_equal(both[5].blurred, data.pairs(128, 0, **mixed)[5].blurred)


def test_kernels_follow_the_shares_of_their_models(sources, monkeypatch):
    drawn = []

    def blurrer(size, model):
        drawn.append(model)
        return lambda seed, sharp: sharp[4:-4, 4:-4]

    monkeypatch.setattr(data, "_blur_with_random_kernel", blurrer)
    found = data.pairs(32, 0, photos=str(sources / "photos"), size=9, shares={"camera": 3, "trajectory": 1})
    for i in range(60):
        assert found[i].blurred.shape == (32, 32, 3)
    assert 5 < drawn.count("trajectory") < 27 and len(drawn) == 60


def test_pairs_do_not_count_as_frames(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "clip").mkdir()
    for i in range(10):
        for name in (f"{i}_sharp.png", f"{i}_blur.png"):
            write_image(tmp_path / "test" / name, np.zeros((4, 4, 1)))
    for i in range(16):
        write_image(tmp_path / "clip" / f"{i}.png", np.zeros((4, 4, 1)))
    assert [[path.parent.name for path in clip] for clip in data.find_clips(tmp_path)] == [["clip"] * 16]


def test_averaged_frames_are_linear_in_light():
    dark, light = np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 255, np.uint8)
    np.testing.assert_allclose(data.average_frames([dark, light]), 0.5 ** (1 / 2.2), rtol=1e-5)
    np.testing.assert_allclose(data.average_frames([light, light, light]), 1, rtol=1e-5)


def test_held_out_frames_are_in_no_training_average(sources, monkeypatch):
    used = {True: set(), False: set()}
    seen = data._read_frame
    for apart in used:
        monkeypatch.setattr(data, "_read_frame", lambda path, apart=apart: (used[apart].add(path.name), seen(path))[1])
        source = data.pairs(128, 0, frames=str(sources / "frames"), held_out=apart)
        for i in range(60):
            source[i]
    assert used[True] and used[False] and not used[True] & used[False]


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(), "no pairs"),
        (dict(folder="/nowhere"), "/nowhere"),
        (dict(frames="photos"), "consecutive frames"),
        (dict(folder="photos"), "no pairs found"),
        (dict(photos="photos", mix={"sound": 1}), "sound"),
        (dict(photos="photos", mix={"photos": 1, "frames": 1}), "none for frames"),
        (dict(photos="photos", shares={"sound": 1}), "sound"),
        (dict(photos="photos", shares={"camera": 0}), "shares"),
        (dict(photos="photos", kernels="frames"), "odd sides"),
    ],
)
def test_bad_sources_are_reported(sources, given, words, monkeypatch):
    monkeypatch.chdir(sources)
    with pytest.raises(ValueError, match=words):
        data.pairs(128, 0, **given)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(wizards, "WIDTHS", {"compact": GATED})


def trained(sources, folder, until=None, **changes):
    settings = training.Config(
        **FEW
        | dict(photos=str(sources / "photos"), size=9, crop=128, width="compact", batch=2, rate=1e-3, steps=20)
        | changes
    )
    about = {"settings": settings._asdict()}
    context = stoppable(lambda progress: until is not None and progress.step >= until)
    made = training.training(settings)
    loop.train(
        made,
        settings.steps,
        folder,
        seconds=0,
        settings=settings._asdict(),
        about=about,
        on_progress=context.on_progress,
        is_cancelled=context.is_cancelled,
        resume=(folder / "checkpoint").exists(),
    )
    return settings


@pytest.mark.slow
def test_resumed_operator_training_equals_uninterrupted(sources, narrow):
    options = dict(variational=True, single=True, margin=9, schedule="restarts", periods=(10, 10))
    trained(sources, sources / "whole", **options)
    trained(sources, sources / "parts", until=10, **options)
    trained(sources, sources / "parts", **options)
    for file in ("weights/operator_vae.npz", "metrics.jsonl"):
        assert (sources / "whole" / file).read_bytes() == (sources / "parts" / file).read_bytes(), file
    codes = weights.load("operator_vae", sources / "whole" / "weights")["codes"]
    assert np.isfinite(codes["factor"]).all() and codes["factor"].any()


def test_training_lowers_the_loss_of_its_pairs(sources, narrow):
    settings = training.Config(pairs=str(sources / "pairs"), crop=128, width="compact", batch=2, rate=1e-2)
    made = training.training(settings)
    state, pair, step = jax.jit(made.init)(jax.random.key(0)), made.batch(0), jax.jit(made.step)
    told = []
    for t in range(12):
        state, values = step(state, pair, t)
        told.append(float(values[0]))
    assert told[-1] < 0.9 * told[0]


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(single=True, width="published"), "three channels"),
        (dict(margin=64), "`margin` must"),
        (dict(warm_up=20, steps=20), "`warm_up` must"),
        (dict(crop=100), "`crop` must"),
    ],
)
def test_bad_settings_of_the_operator_are_refused(sources, changes, words):
    given = dict(pairs=str(sources / "pairs"), crop=128, width="compact") | changes
    with pytest.raises(ValueError, match=words):
        training.training(training.Config(**given))


def test_vae_is_initialized_from_the_operator_without_one(sources, narrow):
    trained(sources, sources / "plain")
    settings = training.Config(
        photos=str(sources / "photos"),
        size=9,
        crop=128,
        width="compact",
        variational=True,
        initial=str(sources / "plain" / "weights"),
    )
    start = jax.jit(training.training(settings).init)(jax.random.key(5)).variables["params"]
    plain = weights.load("operator", sources / "plain" / "weights")["params"]
    chex.assert_trees_all_equal(start["change"], plain["change"])
    assert set(start["kernels"]) - set(plain["kernels"]) == {"deviation"}
    chex.assert_trees_all_equal(start["kernels"]["mean"], plain["kernels"]["mean"])


def test_random_blurs_from_the_command_line(tmp_path):
    """The shipped operator with a VAE puts another blur on the picture with each seed."""
    rng = np.random.default_rng(0)
    sharp = np.clip(np.repeat(np.repeat(rng.uniform(size=(20, 30, 3)), 5, 0), 5, 1)[:97], 0, 1)
    write_image(tmp_path / "sharp.png", sharp)

    def drawn(seed, out):
        command = ["transfer", "--sample", "--target", str(tmp_path / "sharp.png"), "--seed", str(seed)]
        assert main([*command, "--out", str(tmp_path / out)]) == 0
        return read_image(tmp_path / out / "sharp_blurred.png")

    first, same, other = drawn(0, "a"), drawn(0, "b"), drawn(1, "c")
    np.testing.assert_array_equal(first, same)
    assert first.shape == sharp.shape and np.abs(first - other).mean() > 0.01
    for made in (first, other):
        # a blur: less contrast from pixel to pixel, and nearly the same mean
        assert np.abs(np.diff(made, axis=1)).mean() < 0.8 * np.abs(np.diff(sharp, axis=1)).mean()
        assert abs(made.mean() - sharp.mean()) < 0.03


def test_transfer_and_augment_from_the_command_line(sources, narrow, capsys):
    trained(sources, sources / "plain", steps=10)
    folder = str(sources / "plain" / "weights")
    a, b = (str(sources / "pairs" / kind / "a.png") for kind in ("sharp", "blur"))
    out = sources / "out"
    write_image(sources / "photos" / "gray.png", np.full((97, 200, 1), 0.5))
    (sources / "broken.png").write_text("no")
    command = ["transfer", "--sharp", a, "--blurry", b, "--weights", folder, "--out", str(out), "--target"]
    assert main([*command, str(sources / "photos"), str(sources / "broken.png")]) == 2
    error = capsys.readouterr().err
    assert "broken.png" in error and "Traceback" not in error
    assert read_image(out / "gray_blurred.png").shape == (97, 200, 1)
    assert read_image(out / "p_blurred.png").shape == (200, 220, 3)

    command = ["augment", "--pairs", str(sources / "pairs"), "--target", str(sources / "photos"), "--weights", folder]
    command += ["--crop", "64", "--out", str(out)]
    assert main([*command, "--count", "3"]) == 0
    first = {path: path.read_bytes() for path in out.rglob("0*.png")}
    assert len(first) == 6
    changed = out / "blur" / "000001.png"
    changed.unlink()
    assert main([*command, "--count", "5"]) == 0
    assert changed.read_bytes() == first[changed] and len(list((out / "blur").iterdir())) == 5
    with (out / "pairs.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["pair", "0", "1", "2", "3", "4"]
    sharp, blurred = (read_image(p) for p in (a, b))
    assert float(rows[1][2]) == pytest.approx(psnr(sharp[:2], blurred[:2]), abs=0.01)

    capsys.readouterr()
    for wrong in (
        ["transfer", "--target", a],
        ["transfer", "--sharp", a, "--target", a],
        ["transfer", "--sample", "--target", a, "--weights", folder],
        ["augment", "--target", a],
        [*command, "--seed", "2"],
    ):
        assert main([*wrong, "--out", str(out)] if wrong[0] == "transfer" else wrong) == 2
        error = capsys.readouterr().err
        assert error.startswith("jbid: error: ") and error.count("\n") == 1
