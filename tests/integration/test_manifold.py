"""Images on the manifold of a generator: StyleGAN2 in the PyTorch port's layout, spheres, turns."""

from __future__ import annotations

import argparse
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jbid.cli.main import main
from jbid.data import text_lines
from jbid.engine.driver import run
from jbid.engine.wrappers import lowest_loss, over_seeds
from jbid.io import torch_weights
from jbid.io.images import read_image, write_image
from jbid.methods.explore import generators, manifold
from jbid.methods.explore.method import explore
from jbid.metrics import psnr
from jbid.nets import stylegan2
from jbid.nets import text_lines as nets
from jbid.ops.conv import blur, pad_edge
from jbid.ops.motion import gaussian_process_kernel
from jbid.pretrain import loop
from jbid.pretrain import text_lines as training
from jbid.types import Estimate, Method, MethodOutput, StepInfo
from tests.helpers import ROOT, stoppable

WIDTH, CHANNELS = 16, (12, 10, 8)
CONFIG = ROOT / "configs" / "explore_lines.toml"


@pytest.fixture(scope="module")
def state():
    """Random weights of a generator of 16x16 pixels, named and shaped as those of the PyTorch port."""
    rng = np.random.default_rng(0)
    made = {"input.input": (1, CHANNELS[0], 4, 4)}
    for i in range(1, 9):
        made |= {f"style.{i}.weight": (WIDTH, WIDTH), f"style.{i}.bias": (WIDTH,)}

    def modulated(name, inner, out, size):
        made.update({f"{name}.weight": (1, out, inner, size, size), f"{name}.modulation.weight": (inner, WIDTH)})
        made.update({f"{name}.modulation.bias": (inner,)})

    def styled(name, inner, out):
        modulated(f"{name}.conv", inner, out, 3)
        made.update({f"{name}.noise.weight": (1,), f"{name}.activate.bias": (out,)})

    def seen(name, inner):
        modulated(f"{name}.conv", inner, 3, 1)
        made.update({f"{name}.bias": (1, 3, 1, 1)})

    styled("conv1", CHANNELS[0], CHANNELS[0])
    seen("to_rgb1", CHANNELS[0])
    for i in (0, 1):
        styled(f"convs.{2 * i}", CHANNELS[i], CHANNELS[i + 1])
        styled(f"convs.{2 * i + 1}", CHANNELS[i + 1], CHANNELS[i + 1])
        seen(f"to_rgbs.{i}", CHANNELS[i + 1])
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in made.items()}
    for name in arrays:
        if name.startswith("style") and name.endswith("weight"):
            arrays[name] *= 100  # the port divides the mapping's weights by that
    return arrays


def in_torch(torch, state, latents, noises):
    """The generator written from the description of the port, with PyTorch's own operators."""
    f = torch.nn.functional
    w = {name: torch.tensor(value) for name, value in state.items()}
    taps = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 16

    def smoothed(x):
        return f.conv2d(x.transpose(0, 1), taps[None, None]).transpose(0, 1)

    def modulated(name, x, latent, doubled, demodulated):
        weight = w[f"{name}.weight"]
        inner, size = weight.shape[2:4]
        scale = w[f"{name}.modulation.weight"] / math.sqrt(WIDTH)
        style = f.linear(latent, scale, w[f"{name}.modulation.bias"])
        weight = (weight * style.view(1, 1, -1, 1, 1) / math.sqrt(inner * size**2))[0]
        if demodulated:
            weight = weight * torch.rsqrt(weight.pow(2).sum((1, 2, 3), keepdim=True) + 1e-8)
        if doubled:
            return smoothed(f.pad(f.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (1, 1, 1, 1)))
        return f.conv2d(x, weight, padding=size // 2)

    def styled(name, x, latent, noise, doubled):
        x = modulated(f"{name}.conv", x, latent, doubled, True) + w[f"{name}.noise.weight"] * noise
        return f.leaky_relu(x + w[f"{name}.activate.bias"].view(1, -1, 1, 1), 0.2) * math.sqrt(2)

    def seen(name, x, latent, before):
        picture = modulated(f"{name}.conv", x, latent, False, False) + w[f"{name}.bias"]
        if before is None:
            return picture
        spaced = torch.zeros(1, 3, *(2 * n for n in before.shape[2:]))
        spaced[:, :, ::2, ::2] = before
        return picture + smoothed(f.pad(spaced, (2, 1, 2, 1)))

    x = styled("conv1", w["input.input"], latents[0], noises[0], False)
    picture = seen("to_rgb1", x, latents[1], None)
    for i in (0, 1):
        x = styled(f"convs.{2 * i}", x, latents[2 * i + 1], noises[2 * i + 1], True)
        x = styled(f"convs.{2 * i + 1}", x, latents[2 * i + 2], noises[2 * i + 2], False)
        picture = seen(f"to_rgbs.{i}", x, latents[2 * i + 3], picture)
    return picture[0].permute(1, 2, 0).numpy()


def test_stylegan2_matches_the_pytorch_port(state):
    import torch

    assert stylegan2.layers(state) == 6 and stylegan2.shape(state) == (16, 16, 3)
    shapes = stylegan2.noise_shapes(state)
    assert shapes == [(4, 4), (8, 8), (8, 8), (16, 16), (16, 16)]
    rng = np.random.default_rng(1)
    z = rng.standard_normal((6, WIDTH)).astype(np.float32)
    expected = torch.tensor(z) * torch.rsqrt(torch.tensor(z).pow(2).mean(-1, keepdim=True) + 1e-8)
    for i in range(1, 9):
        weight = torch.tensor(state[f"style.{i}.weight"]) * (0.01 / math.sqrt(WIDTH))
        expected = torch.nn.functional.linear(expected, weight, torch.tensor(state[f"style.{i}.bias"]) * 0.01)
        expected = torch.nn.functional.leaky_relu(expected, 0.2) * math.sqrt(2)
    latents = jax.jit(stylegan2.mapping)(state, z)
    np.testing.assert_allclose(latents, expected, atol=1e-5)
    noises = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    made = jax.jit(stylegan2.synthesis)(state, latents, [jnp.asarray(n) for n in noises])
    theirs = in_torch(torch, state, expected, [torch.tensor(n) for n in noises])
    np.testing.assert_allclose(made, theirs, atol=1e-4)


@pytest.fixture
def file(tmp_path, state):
    import torch

    path = tmp_path / "generator.pt"
    # as a training leaves it
    saved = {"g_ema": {name: torch.tensor(value) for name, value in state.items()}, "args": argparse.Namespace(size=16)}
    torch.save(saved, path)
    return str(path)


def test_spherical_descent_keeps_lengths_and_lowers_the_loss():
    target = jax.random.normal(jax.random.key(0), (5, 7))
    params = {"latents": 3 * jax.random.normal(jax.random.key(1), (5, 7)), "noises": [jnp.arange(1.0, 6)]}
    tx = manifold.spherical(optax.sgd(0.05))
    state, first = tx.init(params), params

    def distance(p):
        return jnp.sum(jnp.square(p["latents"] - target)) + jnp.sum(jnp.square(p["noises"][0] - 1))

    for _ in range(100):
        updates, state = tx.update(jax.grad(distance)(params), state, params)
        params = optax.apply_updates(params, updates)
    for name in ("latents", "noises"):
        for a, b in zip(jax.tree.leaves(params[name]), jax.tree.leaves(first[name])):
            np.testing.assert_allclose(np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1), rtol=1e-4)
    assert distance(params) < distance(first)
    cosine = jnp.sum(params["latents"] * target, -1) / (
        jnp.linalg.norm(params["latents"], axis=-1) * jnp.linalg.norm(target, axis=-1)
    )
    assert cosine.min() > 0.98


def test_geocross_is_the_squared_angle():
    a = jnp.zeros(8).at[0].set(1.0)
    b = jnp.zeros(8).at[1].set(1.0)
    # of four pairs two are at a right angle
    assert manifold.geocross(jnp.stack([a, b])) == pytest.approx((np.pi / 2) ** 2 / 2, rel=1e-3)
    assert manifold.geocross(jnp.stack([a, a])) < 1e-6


def test_one_cycle_rises_falls_and_drops():
    rate = manifold.one_cycle(0.2, 100)
    np.testing.assert_allclose([rate(0), rate(45), rate(90), rate(100)], [0.02, 0.2, 0.02, 2e-4], rtol=1e-3)


def test_fitted_gaussian_inverts_the_leaky_relu():
    def mapping(z):
        v = 2 * z + jnp.array([0.5, -1.0])
        return jnp.maximum(v, v / manifold.SLOPE)

    mean, deviation = manifold.fit_gaussian(mapping, jax.random.key(0), 2, 40_000)
    np.testing.assert_allclose(mean, [0.5, -1], atol=0.05)
    np.testing.assert_allclose(deviation, 2, atol=0.05)


@pytest.fixture
def few(monkeypatch):
    fit = manifold.fit_gaussian
    monkeypatch.setattr(generators, "fit_gaussian", lambda *args: fit(*args, 20_000))
    generators.style_images.cache_clear()


SETTINGS = dict(image_net="stylegan2", blur_model="convolution", loss="mse", loss_weight=100.0, warm_up=0, image_lr=0.2)
SETTINGS |= dict(sparse_weights=(0.0, 0.0), kernel_net="free", kernel_lr=1e-2)


def test_image_of_the_manifold_is_recovered(file, few, state):
    kernel = gaussian_process_kernel(jax.random.key(3), 5)
    known = explore(5, generator=file, kernel=kernel, steps=150, **SETTINGS)
    first = known.init(jax.random.key(9), jnp.zeros((16, 16, 3)))
    sharp = known.estimate(first).image
    blurred = blur(pad_edge(sharp, (5, 5)), kernel)
    result = run(over_seeds(known), jax.vmap(jax.random.key)(jnp.arange(2)), blurred, 150)
    assert (result.losses[-1] < 0.2 * result.losses[0]).all()
    best = result.output.image[int(result.losses.min(0).argmin())]
    start = known.estimate(known.init(jax.random.key(0), blurred)).image
    assert jnp.mean((best - sharp) ** 2) < 0.2 * jnp.mean((start - sharp) ** 2)


def test_turns_on_a_manifold_begin_with_the_image_and_keep_the_kernel(file, few):
    method = explore(5, generator=file, scheme="alternating", kernel_steps=2, image_steps=3, steps=10, **SETTINGS)
    blurred = jax.random.uniform(jax.random.key(0), (16, 16, 3))
    state, step, moved = method.init(jax.random.key(0), blurred), jax.jit(method.step), []
    for t in range(6):
        after = step(state, blurred, jnp.asarray(t))[0]
        parts = zip(state.inner.params, after.inner.params)
        moved.append([any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, part))) for part in parts])
        state = after
    assert moved == [[True, False]] * 3 + [[False, True]] * 2 + [[True, False]]


def test_estimate_of_the_lowest_loss_is_the_answer():
    def step(state, blurred, t):
        return state + 1, StepInfo(jnp.array([3.0, 1.0, 2.0])[t], Estimate(state, state), jnp.array(False))

    plain = Method(
        lambda key, blurred, init_kernel=None: jnp.array(0.0),
        step,
        lambda state: Estimate(state, state),
        lambda e, y: MethodOutput(*e),
    )
    # with another loss from step 2 on, what was before no longer counts
    for changes, lowest in ((), 1), ((2,), 2):
        method = lowest_loss(plain, changes)
        state = method.init(None, None)
        for t in range(3):
            state, _ = method.step(state, None, t)
        assert method.estimate(state).image == lowest


def test_invalid_generator_files_are_refused(file, few, tmp_path):
    import torch

    with pytest.raises(ValueError, match="16x16"):
        explore(5, generator=file, **SETTINGS).init(jax.random.key(0), jnp.zeros((20, 16, 3)))
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_text("no")
    for name, words in (("a.pt", "input.input"), ("b.pt", "not a PyTorch state"), ("c.pt", "no such file")):
        with pytest.raises(ValueError, match=words):
            torch_weights.stylegan2(str(tmp_path / name))
    with pytest.raises(ValueError, match="`generator`"):
        explore(5, **SETTINGS)


@pytest.fixture
def narrow(monkeypatch):
    for name in ("LineDecoder", "LineEncoder"):
        small = partial(getattr(nets, name), width=8, depth=1)
        for where in (training, generators):
            monkeypatch.setattr(where, name, small, raising=False)


def test_lines_are_reproducible_and_held_out_words_are_separate():
    a, b = (text_lines.line(np.random.default_rng(3), 160) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (32, 160, 1) and a.min() >= 0 and a.max() <= 1 and np.ptp(a) > 0.4
    assert not np.array_equal(a, text_lines.line(np.random.default_rng(4), 160))
    assert all(text_lines.line(np.random.default_rng(i), 36).shape == (32, 36, 1) for i in range(200))
    assert len(text_lines.words(True)) > 100 and not set(text_lines.words(True)) & set(text_lines.words(False))


@pytest.mark.slow
def test_resumed_training_of_lines_equals_uninterrupted_and_serves_as_manifold(tmp_path, narrow):
    settings = training.Config(width=48, steps=20, batch=2, held_out=4)

    def train(folder, until=None):
        context = stoppable(lambda progress: until is not None and progress.step >= until)
        made = training.training(settings)
        resume = (folder / "checkpoint").exists()
        options = dict(seconds=0, settings=settings._asdict(), about={"settings": {}}, resume=resume)
        options |= dict(on_progress=context.on_progress, is_cancelled=context.is_cancelled)
        loop.train(made, settings.steps, folder, **options)

    train(tmp_path / "whole")
    train(tmp_path / "parts", until=10)
    train(tmp_path / "parts")
    for file in ("weights/lines.npz", "metrics.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
    options = dict(weights=str(tmp_path / "whole" / "weights")) | SETTINGS | dict(image_net="lines")
    method = explore(5, steps=10, **options)
    blurred = jax.random.uniform(jax.random.key(0), (32, 60, 1))
    result = run(method, jax.random.key(0), blurred, 10)
    assert result.output.image.shape == (32, 60, 1) and result.losses.min() < result.losses[0]
    with pytest.raises(ValueError, match="multiple of 12"):
        method.init(jax.random.key(0), blurred[:, :50])


@pytest.mark.slow
def test_shipped_manifold_deblurs_a_line_from_the_command_line(tmp_path, capsys):
    """An image that is no line is reported, and the line is still restored."""
    sharp = text_lines.line(np.random.default_rng(5), 120, held_out=True)
    kernel = gaussian_process_kernel(jax.random.key(1), 15)
    blurred = np.asarray(blur(pad_edge(jnp.asarray(sharp), (15, 15)), kernel))
    write_image(tmp_path / "a.png", np.zeros((64, 64, 1)))
    write_image(tmp_path / "b.png", blurred)
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    options = ["--config", str(CONFIG), "--kernel-size=15", "--seeds=2", "--steps=600", "--out", str(tmp_path)]
    assert main(["deblur", *files, *options]) == 2
    error = capsys.readouterr().err
    assert "a.png" in error and "gray lines 32 pixels high" in error and "Traceback" not in error
    made = read_image(tmp_path / "b_sharp.png")
    assert psnr(made, sharp) > max(28, psnr(blurred, sharp) + 10)
