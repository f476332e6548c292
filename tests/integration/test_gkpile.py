"""GKPILE: networks against the authors' numbers, weights, the method, starts."""

from __future__ import annotations

import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jbid import methods
from jbid.cli.main import main
from jbid.engine.driver import run
from jbid.io.images import write_image
from jbid.io.weights import load
from jbid.kernel_estimation.learned import corrector_input, learned_kernel, predict_kernel
from jbid.kernel_estimation.ranking import NO_TERMS, Candidate
from jbid.kernel_estimation.search import KernelEstimate
from jbid.methods.gkpile import gkpile, latent_kernel
from jbid.metrics import kernel_similarity
from jbid.nets.corrector import KernelCorrector
from jbid.nets.kernel_gan import SIZES, Discriminator, KernelGenerator
from jbid.nets.resnet import KernelEncoder
from jbid.ops import motion
from jbid.ops.conv import blur
from jbid.pipeline.config import resolve
from jbid.pipeline.prepare import prepare
from jbid.pipeline.resume import run_identity
from jbid.pretrain import loop
from jbid.pretrain.loop import ship
from tests.torch_names import discriminator_variables, drawn_weights, encoder_variables, generator_variables

PARAMETERS = {31: 1_256_896, 45: 1_592_768, 55: 1_666_496, 65: 2_371_008, 75: 2_207_168}
DISCRIMINATOR_PARAMETERS = {31: 1_028_672, 45: 959_040, 55: 1_032_768, 65: 1_129_024, 75: 965_184}


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("size", SIZES)
def test_generator_and_discriminator_match_the_authors_values(golden, size):
    data = golden(f"gkpile_{size}")
    net, variables = KernelGenerator(size), generator_variables(drawn_weights(str(data["gen_order"]), data["gen_seed"]))
    z = jnp.asarray(data["z"][..., 0, 0])
    chex.assert_trees_all_equal_shapes(dict(jax.eval_shape(net.init, jax.random.key(0), z)), variables)
    assert count(variables["params"]) == PARAMETERS[size]
    # compiled as a whole: each operation by itself would take longer
    w = jax.jit(lambda z: net.apply(variables, z, method="first"))(z)
    np.testing.assert_allclose(w, data["w_eval"].transpose(0, 2, 3, 1), atol=1e-4)
    kernel = jax.jit(lambda w: net.apply(variables, w, method="rest"))(w)
    np.testing.assert_allclose(kernel, data["k_eval"][:, 0], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(kernel.sum((1, 2)), 1, rtol=1e-5)
    trained, _ = jax.jit(lambda z: net.apply(variables, z, True, mutable=["batch_stats"]))(z)
    np.testing.assert_allclose(trained, data["k_train"][:, 0], rtol=1e-3, atol=1e-7)

    judge = Discriminator(size)
    variables = discriminator_variables(drawn_weights(str(data["disc_order"]), data["disc_seed"]))
    assert count(variables["params"]) == DISCRIMINATOR_PARAMETERS[size]
    # theirs ran in this order, so that the second pass has statistics that the first has moved
    logit, moved = jax.jit(lambda k: judge.apply(variables, k, True, mutable=["batch_stats"]))(data["k_train"][:, 0])
    np.testing.assert_allclose(jax.nn.sigmoid(logit), data["d_train"], atol=1e-5)
    logit = jax.jit(lambda k: judge.apply(variables | moved, k))(data["k_eval"][:, 0])
    np.testing.assert_allclose(jax.nn.sigmoid(logit), data["d_eval"], atol=1e-4)


def test_encoder_matches_the_authors_values(golden):
    data = golden("gkpile_encoder")
    net, variables = KernelEncoder(), encoder_variables(drawn_weights(str(data["order"]), data["seed"]))
    y = jnp.asarray(data["y"][:, 0])
    shapes = jax.eval_shape(net.init, jax.random.key(0), y)
    chex.assert_trees_all_equal_shapes(dict(shapes), variables)
    assert count(variables["params"]) == 11_221_540
    largest = np.abs(data["z_train"]).max()
    trained, _ = jax.jit(lambda v, y: net.apply(v, y, True, mutable=["batch_stats"]))(variables, y)
    np.testing.assert_allclose(trained, data["z_train"], atol=1e-4 * largest)
    np.testing.assert_allclose(
        jax.jit(net.apply)(variables, y), data["z_eval"], atol=1e-4 * np.abs(data["z_eval"]).max()
    )


TINY = dict(channels=4, skip_channels=2, scales=1, out_channels=1)


@pytest.fixture(scope="module")
def kernel():
    return motion.camera_kernel(jax.random.key(5), 31)


@pytest.fixture(scope="module")
def blurred(kernel):
    x = jax.image.resize(jax.random.uniform(jax.random.key(7), (10, 10, 1)), (110, 110, 1), "nearest")
    return blur(x, kernel)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights with a single size, and a corrector and an initializer that have not been trained."""
    path = tmp_path_factory.mktemp("weights")
    ship(path, "generator_31", load("generator_31"), {})
    ship(
        path,
        "corrector",
        jax.jit(KernelCorrector(8).init)(jax.random.key(0), jnp.zeros((1, 2, 2, 31, 31))),
        {"settings": {"width": 8}},
    )
    return path


@pytest.mark.parametrize("space, least", [("w", 0.8), ("z", 0.4), ("z_theta", 0.95)])
def test_kernel_is_inverted_in_each_space(kernel, space, least):
    generator = latent_kernel(31, load("generator_31"), space, fit_steps=200)
    params, code = jax.jit(lambda key: generator.init(key, None))(jax.random.key(0))
    before = jax.jit(lambda p: generator.apply(p, code, None))(params)
    after = jax.jit(lambda p: generator.apply(generator.fit(p, code, kernel), code, None))(params)
    np.testing.assert_allclose(after.sum(), 1, rtol=1e-4)
    assert kernel_similarity(np.asarray(after), np.asarray(kernel)) > max(
        least, kernel_similarity(np.asarray(before), np.asarray(kernel))
    )


def test_each_seed_has_its_own_code():
    generator = latent_kernel(31, load("generator_31"), "w")
    draw = jax.jit(lambda key: generator.init(key, None)[0])
    w = [draw(jax.random.key(seed)) for seed in (0, 1)]
    assert w[0].shape == (3, 3, 256) and (w[0] >= 0).all() and not np.array_equal(*w)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(space="z", kernel_lr=1e-2, loss="huber", regularizer="l1_over_l2", stop=True, window=5),
        dict(space="z_theta", loss="mse", regularizer="l1", schedule="cosine", steps=12),
    ],
)
def test_every_variant_lowers_its_loss_and_returns_a_kernel(blurred, options):
    result = run(gkpile(31, **TINY, **options), jax.random.key(0), blurred, 12)
    assert result.losses[-1] < 0.9 * result.losses[0]
    assert result.output.image.shape == blurred.shape
    np.testing.assert_allclose(result.output.kernel.sum(), 1, atol=1e-5)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(space="v"), "space"),
        (dict(loss="l3"), "loss"),
        (dict(regularizer="l3"), "regularizer"),
        (dict(weights="/nowhere"), "no such pretrained weights"),
        (dict(delta=0.0), "delta"),
    ],
)
def test_bad_options_are_refused(options, words, unchecked):
    with pytest.raises(ValueError, match=words):
        gkpile(31, **options)


def test_other_sizes_use_the_next_larger_generator(folder, blurred):
    options = {"weights": str(folder)}
    assert [methods.get("gkpile").fitting_size(options, size) for size in (9, 31, 33)] == [31, 31, 31]
    assert methods.get("selfdeblur").fitting_size({}, 33) == 33
    settings = resolve([("test", {"method": "gkpile", "init": "uniform", "weights": str(folder)})])
    picture = np.asarray(blurred)
    task = prepare(picture, settings._replace(kernel_size=17))
    assert task.kernel_shape == (31, 31) and task.warnings == ()
    with pytest.raises(ValueError, match=r"at most 31 .* got 33"):
        prepare(picture, settings._replace(kernel_size=33))


def test_estimated_size_without_a_generator_gives_a_warning(folder, monkeypatch):
    found = types.SimpleNamespace(
        kernel=np.full((41, 41), 1 / 41**2, np.float32), kernels=[], refined=[], fits=[], warning=None
    )
    monkeypatch.setattr("jbid.pipeline.prepare._estimate", lambda *args: found)
    settings = resolve([("test", {"method": "gkpile", "weights": str(folder)})])
    task = prepare(np.zeros((120, 120, 1), np.float32), settings)
    assert task.kernel_shape == (31, 31) and "gkpile takes 31" in task.warnings[0]


def test_configuration_accepts_any_odd_size(folder):
    values = {"method": "gkpile", "weights": str(folder)}
    assert resolve([("test", values | {"kernel_size": 17})]).kernel_size == 17
    assert resolve([("test", values | {"kernel_size": 9})], known_kernel=True).options["loss"] == "ssim"
    with pytest.raises(ValueError, match="odd"):
        resolve([("test", values | {"kernel_size": 18})])
    with pytest.raises(ValueError, match="`n_seeds` must be at least 3"):
        resolve([("test", values | {"init": "edges+uniform+learned"})])


def test_other_weights_change_the_identity_of_a_run(folder, tmp_path):
    loop.export(folder, tmp_path, "generator_31")
    settings = resolve([("test", {"method": "gkpile", "weights": str(tmp_path)})])
    before = run_identity(settings)
    ship(tmp_path, "operator", {"a": np.zeros(1)}, {})
    assert run_identity(settings) == before  # which this method does not read
    variables = jax.tree.map(lambda x: x + 1, load("generator_31", tmp_path))
    ship(tmp_path, "generator_31", variables, {})
    assert run_identity(settings) != before
    assert load("generator_31", tmp_path)["params"]["norms_0"]["bias"].min() > 0.5


def test_seeds_alternate_between_initial_kernels(folder, tmp_path, blurred, monkeypatch):
    near = list(np.asarray(motion.motion_kernels(jax.random.key(2), 31, 2)))
    candidates, gray = [Candidate("planted", NO_TERMS, None)], np.asarray(blurred)[..., 0]
    found = KernelEstimate(near[0], (31, 31), candidates, near, near, near, gray, 1.0, 0.9, None)
    monkeypatch.setattr("jbid.pipeline.prepare._estimate", lambda *args: found)
    write_image(tmp_path / "photo.png", blurred)
    options = ["--method=gkpile", f"--set=weights={folder}", "--set=channels=4", "--set=scales=1", "--kernel-size=31"]
    call = [
        "deblur",
        str(tmp_path / "photo.png"),
        *options,
        "--steps=2",
        "--init=edges+learned",
        "--out",
        str(tmp_path),
    ]
    assert main(call) == 2
    assert main([*call, "--seeds=2"]) == 0
    report = json.loads((tmp_path / "photo.json").read_text())
    names = {candidate["name"] for candidate in report["candidates"]}
    assert {"initial kernel: edges", "initial kernel: learned", "seed 0", "seed 1"} <= names
    values = {"method": "gkpile", "init": "edges+learned", "n_seeds": 2, "weights": str(folder), "kernel_size": 31}
    task = prepare(np.asarray(blurred), resolve([("test", values)]))
    assert [item.name for item in task.initial_kernels] == ["edges", "learned"]
    starts = task.kernels_of_seeds(3)
    np.testing.assert_array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])
    np.testing.assert_allclose(starts.sum((1, 2)), 1, rtol=1e-5)


def test_untrained_corrector_keeps_the_best_estimate_at_any_size(folder, unchecked):
    for size in (31, 55):
        near = np.asarray(motion.motion_kernels(jax.random.key(1), size, 2))
        made = predict_kernel(types.SimpleNamespace(refined=list(near), fits=list(near)), size, folder)
        assert made.shape == (size, size)
        np.testing.assert_allclose(made.sum(), 1, rtol=1e-5)
        assert kernel_similarity(made, near[0]) > 0.95


def test_initializer_takes_precedence_over_the_corrector(folder, tmp_path, blurred, unchecked):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    variables = jax.jit(KernelEncoder(8).init)(jax.random.key(0), jnp.zeros((1, 64, 64)))
    ship(tmp_path, "initializer_31", variables, {"settings": {"width": 8}})
    made = predict_kernel(types.SimpleNamespace(image=np.asarray(blurred)[..., 0]), 31, tmp_path)
    z = jax.jit(KernelEncoder(8).apply)(load("initializer_31", tmp_path), blurred[None, ..., 0])
    expected = jax.jit(KernelGenerator(31).apply)(load("generator_31"), z)[0]
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-6)


def test_edge_based_estimate_replaces_a_much_worse_learned_kernel(blurred, kernel, monkeypatch, unchecked):
    true, wrong = np.asarray(kernel), np.asarray(motion.camera_kernel(jax.random.key(9), 31))
    picture = np.asarray(blurred)[..., 0]
    for of_edges, of_network in ((true, wrong), (wrong, true)):
        monkeypatch.setattr("jbid.kernel_estimation.learned.predict_kernel", lambda *args, k=of_network: k)
        made = learned_kernel(types.SimpleNamespace(kernel=of_edges, image=picture), 31)
        assert kernel_similarity(made, true, 4) > 0.9 > kernel_similarity(wrong, true, 4)
        np.testing.assert_allclose(made.sum(), 1, rtol=1e-5)
    # the second time the fits have brought it nearer, the first time it is the edges' own
    assert not np.array_equal(made, true)


def test_input_of_the_corrector_is_aligned_to_the_best_estimate(kernel, unchecked):
    best = np.asarray(kernel)
    fit = best + 1e-3
    away = [np.roll(x, (2, -3), (0, 1)) for x in (best, fit)]
    seen = corrector_input(types.SimpleNamespace(refined=[best, away[0]], fits=[fit, away[1]]), 31)
    assert seen.shape == (2, 2, 31, 31)
    np.testing.assert_allclose(seen[1, 0], seen[0, 0], atol=1e-6)
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(seen[1, 1][inner], seen[0, 1][inner], atol=1e-6)
    alone = corrector_input(types.SimpleNamespace(refined=[best, best], fits=[fit]), 55)
    assert alone.shape == (2, 2, 55, 55)
    np.testing.assert_array_equal(alone[0], alone[1])
