"""Trainings: what they see, resuming, both readings of the outer loss, export."""

from __future__ import annotations

import io
import json
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from jbid.cli.main import main
from jbid.data.crops import crops
from jbid.io import weights
from jbid.io.images import read_image, write_image
from jbid.metrics import kernel_similarity
from jbid.nets.kernel_gan import LATENT, SIZES, KernelGenerator
from jbid.ops.camera import Degradation, degrade, jpeg
from jbid.ops.motion import motion_kernels
from jbid.pipeline.config import read_config, record
from jbid.pretrain import blur_operator as operator
from jbid.pretrain import corrector, deconvolutions, deconvolver, initializer, kernel_gan, loop, pairs
from jbid.pretrain import kernel_gan as generator
from jbid.pretrain import text_lines as lines
from jbid.pretrain.blurred_photos import perturb_kernel
from tests.helpers import ROOT, stoppable

CONFIGS = sorted((ROOT / "configs" / "pretrain").glob("*.toml"))
# both phases, the change within a chunk
GAN = kernel_gan.Config(size=31, steps=30, batch=4, scaled=True, schedule="cosine", autoencoded=15, held_out=50)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "inner").mkdir()
    write_image(folder / "a.png", data.camera()[:150, :130, None] / 255)
    write_image(folder / "inner" / "b.png", data.astronaut()[:120, :140] / 255)
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A folder of weights with a generator that has not been trained."""
    folder = tmp_path_factory.mktemp("weights")
    variables = jax.jit(KernelGenerator(31).init)(jax.random.key(0), jnp.zeros((2, 100)))
    # far from its initial weights, so that codes matter
    variables = {**variables, "params": jax.tree.map(lambda x: 3 * x, variables["params"])}
    loop.ship(folder, "generator_31", variables, {"settings": {"size": 31}})
    return folder


class FewLayers(nn.Module):
    """In the ResNet's place where its eighteen layers, which take long to compile, do not matter."""

    width: int

    @nn.compact
    def __call__(self, y, train=False):
        x = nn.relu(nn.Conv(self.width, (5, 5), strides=5)(y[..., None]))
        return nn.Dense(LATENT)(nn.BatchNorm(not train)(x).mean((1, 2)))


def run(training, folder, until=None, **options):
    """Train; stopped after `until` steps if that is given."""

    context = stoppable(lambda progress: until is not None and progress.step >= until)
    options = {"every": 10, "settings": {"a": 1}, "seconds": 0.0} | options
    options |= {"on_progress": context.on_progress, "is_cancelled": context.is_cancelled}
    return loop.train(training, 30, folder, **options)


@pytest.mark.slow
def test_resumed_generator_training_equals_uninterrupted(tmp_path):
    training = kernel_gan.training(GAN)
    assert run(training, tmp_path / "whole")
    assert not run(training, tmp_path / "parts", until=10)
    # a kill between checkpoint and log leaves lines, one of them torn, that will be written again
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "loss": 7.0}\n{"step": 20, "lo')
    with pytest.raises(ValueError, match="other settings"):
        run(training, tmp_path / "parts", resume=True, settings={"a": 2})
    assert run(training, tmp_path / "parts", resume=True)
    for name in ("weights/generator_31.npz", "weights/manifest.json", "metrics.jsonl", "samples/000030.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 10, 20, 20, 30, 30]
    assert weights.manifest(tmp_path / "whole" / "weights")["generator_31.npz"]["held_out"]["energy_distance"] < 1
    # begun anew without --resume
    assert not run(training, tmp_path / "whole", until=10)


def test_energy_distance_vanishes_only_for_equal_distributions():
    a, b = (motion_kernels(jax.random.key(i), 15, 300) for i in (0, 1))
    other = motion_kernels(jax.random.key(2), 15, 300, "gaussian_process")
    assert kernel_gan.energy_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert 0 < kernel_gan.energy_distance(a, b) < 0.02 < 0.05 < kernel_gan.energy_distance(a, other)


SMALL = dict(held_out=4, part=2, size=31, steps=30, batch=2, crop=48, width=8, inner_steps=3)


@pytest.mark.slow
def test_resumed_initializer_training_equals_uninterrupted(tmp_path, photos, untrained, monkeypatch):
    monkeypatch.setattr(initializer, "KernelEncoder", FewLayers)
    settings = pairs.Config(photos=str(photos), weights=str(untrained), **SMALL)
    whole = initializer.training(settings)
    assert run(whole, tmp_path / "whole")
    assert not run(initializer.training(settings), tmp_path / "parts", until=10)
    assert run(initializer.training(settings), tmp_path / "parts", resume=True)
    for name in ("weights/initializer_31.npz", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_outer_loss_of_the_paper_vanishes_without_inner_steps(photos, untrained, monkeypatch):
    monkeypatch.setattr(initializer, "KernelEncoder", FewLayers)
    settings = pairs.Config(photos=str(photos), weights=str(untrained), **(SMALL | {"inner_steps": 0}))
    told = []
    for steps in (0, 5):
        training = initializer.training(settings._replace(inner_steps=steps, outer="inverted"))
        state = training.init(jax.random.key(0))
        told.append(np.asarray(jax.jit(training.step)(state, training.batch(0), 0)[1]))
    assert told[0][1] < 1e-9 and told[0][2] < 1e-9
    assert told[1][1] > 1e-6 and told[1][2] > 1e-6
    # the published code's leads to the true kernel, from which an untrained generator is far
    training = initializer.training(settings._replace(inner_steps=5))
    assert np.asarray(jax.jit(training.step)(state, training.batch(0), 0)[1])[1] > 2 * told[1][1]


def test_corrector_learns_from_a_cached_pool(tmp_path, photos, monkeypatch, unchecked):
    calls = []

    def estimated(picture, size):
        calls.append(picture.shape)
        near = np.asarray(motion_kernels(jax.random.key(len(calls)), size, 3))
        return types.SimpleNamespace(refined=list(near), fits=list(near))

    monkeypatch.setattr("jbid.pretrain.corrector.search_kernel", estimated)
    settings = pairs.Config(photos=str(photos), input="edges", pool={"31": 4, "15": 2}, rate=1e-3, **SMALL)
    assert run(initializer.training(settings, tmp_path), tmp_path)
    # two pairs of one size and four of the other, and four held-out ones of each
    assert sorted(calls) == [(16, 16)] * 6 + [(48, 48)] * 8
    initializer.training(settings._replace(rate=1e-4), tmp_path)
    assert len(calls) == 14
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert {"similarity_31", "similarity_15_of_edges"} < set(lines[-1])


def test_deconvolver_keeps_its_pool_and_resumes(tmp_path, photos, monkeypatch):
    calls = []

    def estimates(blurred, kernel):
        calls.append(blurred.shape)
        return [kernel]

    monkeypatch.setattr(deconvolutions, "_estimates", estimates)
    few = dict(problems=3, held_out=2, least=3, largest=9, width=4, deep_width=4, warm_up=5, batch=2, crop=48)
    settings = deconvolutions.Config(photos=str(photos), steps=30, processes=1, **few)
    training = deconvolver.training(settings, tmp_path)
    assert run(training, tmp_path / "whole")
    again = deconvolver.training(settings, tmp_path)
    assert len(calls) == 5
    assert not run(again, tmp_path / "parts", until=10)
    assert run(again, tmp_path / "parts", resume=True)
    for name in ("weights/deconvolver.npz", "metrics.jsonl", "samples/000030.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    last = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    for kind in ("true", "perturbed", "estimated"):
        # an untrained correction is none
        assert abs(last[f"psnr_learned_{kind}"] - last[f"psnr_sparse_{kind}"]) < 2
    assert last["psnr_sparse_true"] > last["psnr_sparse_perturbed"]


def test_perturbed_kernels_are_like_the_true_one():
    kernel = np.asarray(motion_kernels(jax.random.key(0), 21, 1))[0]
    found = [perturb_kernel(kernel, np.random.default_rng(i)) for i in range(8)]
    similarities = [kernel_similarity(k, kernel) for k in found]
    assert 0.6 < min(similarities) < max(similarities) < 1
    assert all(k.sum() == pytest.approx(1, abs=1e-5) and k.min() >= 0 for k in found)


def test_crops_are_the_same_in_every_run(photos):
    source = crops(str(photos), 140, 3)
    first = [source[i] for i in range(6)]
    assert all(c.shape == (140, 140) and c.dtype == np.float32 and c.min() >= 0 and c.max() <= 1 for c in first)
    again = crops(str(photos), 140, 3)
    for i in (5, 0, 3):
        np.testing.assert_array_equal(again[i], first[i])
    assert not np.array_equal(first[0], crops(str(photos), 140, 4)[0])


def test_held_out_photos_are_not_trained_on(tmp_path):
    for i in range(40):
        write_image(tmp_path / f"{i:02}.png", np.full((20, 20, 1), i / 255))

    def seen(count, **which):
        source = crops(str(tmp_path), 16, 0, **which)
        return {round(float(source[i].mean() * 255)) for i in range(count)}

    assert seen(38) == set(range(40)) - {0, 20} and seen(2, held_out=True) == {0, 20}


def test_crops_of_a_tfds_data_set(monkeypatch, tmp_path):
    asked = []

    def data_source(name, split):
        asked.append((name, split))
        return [{"image": data.astronaut()[:90, :80]}]

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.SimpleNamespace(data_source=data_source))
    picture = crops("flowers:test", 64, 0)[0]
    assert asked == [("flowers", "test")] and picture.shape == (64, 64)
    assert "tensorflow" not in sys.modules
    with pytest.raises(ValueError, match="no photos found"):
        crops(str(tmp_path), 64, 0)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_matches_pillow(quality):
    picture = data.camera()[:203, :301]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).astype(float)
    # its integer DCT rounds some coefficients the other way, more of them where the steps are small
    gap = np.abs(np.asarray(jpeg(jnp.asarray(picture / 255), quality)) * 255 - expected)
    assert gap.mean() < 0.25 and np.mean(gap > 1) < 0.08


def test_degradations():
    picture = jnp.asarray(data.camera()[:64, :64] / 255, jnp.float32)
    key = jax.random.key(0)
    np.testing.assert_array_equal(degrade(key, picture, Degradation()), picture)
    for change in (dict(noise=0.1), dict(gamma=0.5), dict(jpeg=30), dict(rounded=True)):
        x = degrade(key, picture + 1e-3, Degradation(**change))
        assert x.min() >= 0 and x.max() <= 1 and not np.array_equal(x, picture + 1e-3), change
        np.testing.assert_array_equal(degrade(key, picture, Degradation(**change, clean=1.0)), picture)


def test_damaged_and_missing_weights_are_reported(tmp_path, untrained):
    variables = weights.load("generator_31", untrained)
    assert variables["params"]["convolutions_0"]["weight"].dtype == np.float32
    assert weights.sizes("generator", untrained) == [31]
    loop.export(untrained, tmp_path, "generator_31")
    assert (tmp_path / "generator_31.npz").read_bytes() == (untrained / "generator_31.npz").read_bytes()
    content = bytearray((tmp_path / "generator_31.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "generator_31.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"generator_31\.npz: damaged"):
        weights.load("generator_31", tmp_path)
    with pytest.raises(ValueError, match=r"generator_45\.npz: no such pretrained weights; there are: generator_31"):
        weights.load("generator_45", tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="manifest"):
        weights.sizes("generator", tmp_path)


KINDS = {
    "deconvolver": deconvolutions,
    "generator": generator,
    "operator": operator,
    "lines": lines,
    "gkpile": initializer,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_trainings(path):
    kind = next(kind for name, kind in KINDS.items() if name in path.stem)
    settings = record(kind.Config, read_config(path), str(path))
    if kind in (generator, initializer):
        assert settings.size in SIZES and str(settings.size) in path.stem + "corrector31"


def test_shipped_weights_match_the_manifest():
    entries = weights.manifest()
    files = sorted(path.name for path in weights.SHIPPED.glob("*.npz"))
    assert files == sorted(entries) and "generator_31.npz" in files
    assert sum((weights.SHIPPED / name).stat().st_size for name in files) < 40e6
    for name, entry in entries.items():
        weights.load(name.removesuffix(".npz"))
        assert {"settings", "command", "commit", "device", "versions", "held_out"} <= set(entry)


@pytest.mark.parametrize(
    "args, words",
    [
        (["generator", "--set=size=33"], "one of 31"),
        (["generator", "--set=batsch=3"], "batch"),
        (["generator", "--set=batch=0"], "at least 1"),
        (["generator", "--set=autoencoded=99999"], "at most"),
        (["initializer", "--set=photos=/nowhere"], "/nowhere"),
        (["initializer", "--set=crop=64"], "photos"),
        (["initializer", "--set=pool=0"], "pool"),
        (["initializer", "--set=photos=.", "--set=pool={32=4}"], "odd kernel size"),
        (["initializer", "--set=input=sound"], "input"),
    ],
)
def test_bad_trainings_are_refused_in_one_line(tmp_path, args, words, capsys):
    (tmp_path / "c.toml").write_text("seed = 1\n")
    network, *changes = args
    assert main(["pretrain", network, *changes, "--config", str(tmp_path / "c.toml"), "--workdir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jbid: error: ") and error.count("\n") == 1 and words in error


def test_kernel_grid_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "new" / "grid.png"
    assert main(["kernels", "--model", "trajectory", "--size", "15", "--count", "10", "--out", str(out)]) == 0
    assert read_image(out).shape == (32, 128, 1)
    for wrong in (["--size=14"], ["--model=gyro"], ["--out=grid.jpg"]):
        assert main(["kernels", *wrong]) == 2
        assert capsys.readouterr().err.startswith("jbid: error: ")


def test_estimates_are_aligned_to_the_true_kernel_by_fractions_of_a_pixel():
    rows, columns = np.mgrid[-7:8, -7:8]
    true, away = (np.exp(-((rows - s) ** 2) / 3 - (columns + 2 * s) ** 2 / 4) for s in (0, 0.75))
    seen = np.stack([[away, 2 * away], [away, away]])
    moved = corrector.align_to(true, seen)
    np.testing.assert_allclose(moved[0, 0], true, atol=0.02)
    np.testing.assert_allclose(moved[0, 1], 2 * true, atol=0.04)
    assert np.abs(away - true).max() > 0.3
