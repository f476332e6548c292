"""Batches, devices and processes change how work is done, not its result."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jbid import methods
from jbid.bench.cli import main as bench
from jbid.cli.main import main
from jbid.engine import batching as scale
from jbid.engine.batching import even_batch, run_batched
from jbid.engine.checkpoint import Checkpoint
from jbid.engine.deep_prior import deep_prior
from jbid.engine.driver import RunContext, run, step_memory
from jbid.engine.generators import free_kernel
from jbid.engine.wrappers import over_images
from jbid.io.images import read_image, write_image
from jbid.kernel_estimation.ranking import latent_images
from jbid.losses import mse
from jbid.methods.selfdeblur import selfdeblur
from jbid.pipeline.config import build, resolve
from jbid.pipeline.grouping import padded_shapes
from jbid.pipeline.prepare import prepare
from jbid.pipeline.solve import optimize, solve
from jbid.runtime.compile import clear_programs
from jbid.runtime.memory import parse_memory
from jbid.types import Estimate, Generator
from tests.helpers import ROOT, TINY_ARGUMENTS, stoppable

STEPS = 4
TINY = [*TINY_ARGUMENTS, "--steps=2", "--init=random", "--preset=quick"]


@pytest.fixture(scope="module")
def method():
    return over_images(selfdeblur(7, channels=4, skip_channels=2, scales=1, steps=STEPS))


@pytest.fixture(scope="module")
def given():
    y = np.random.default_rng(0).random((5, 24, 20, 1), np.float32)
    return jax.vmap(jax.random.key)(jnp.arange(5)), y


@pytest.fixture(scope="module")
def whole(method, given):
    return run(method, given[0], jnp.asarray(given[1]), STEPS)


def same(answer, whole, tolerance=1e-5):
    assert answer.is_complete and answer.losses.shape == whole.losses.shape
    np.testing.assert_allclose(answer.losses, whole.losses, rtol=1e-4)
    np.testing.assert_allclose(answer.output.image, whole.output.image, atol=5e-3)
    np.testing.assert_allclose(answer.output.kernel, whole.output.kernel, atol=1e-4)


def test_batches_of_any_size_equal_a_single_one(method, given, whole):
    each = step_memory(method, given[0][:1], jnp.asarray(given[1][:1]))
    assert each > 24 * 20 * 4
    for memory in (1, int(2.5 * each), 100 * each):
        same(run_batched(method, *given, STEPS, context=RunContext(memory=memory)), whole)


def test_all_batches_have_one_size(method, given, monkeypatch):
    """One program serves all; copies fill up the last batch."""
    sizes = []

    def noted(spread, keys, *args, **options):
        sizes.append(len(keys))
        return run(spread, keys, *args, **options)

    monkeypatch.setattr(scale, "run", noted)
    y = given[1]
    many = jax.vmap(jax.random.key)(jnp.arange(13))
    answer = run_batched(method, many, y[np.arange(13) % 5], 1)
    assert sizes == [7, 7] and answer.losses.shape == (1, 13)


def test_batch_is_halved_when_memory_runs_out(method, given, whole, monkeypatch):
    """The context hears of it; a single work item that does not fit is an error with a hint."""
    least = 2

    def limited(spread, keys, *args, **options):
        if len(keys) > least:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return run(spread, keys, *args, **options)

    monkeypatch.setattr(scale, "run", limited)
    # what is compiled does no harm here
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    told = []
    context = RunContext(on_smaller_batch=lambda *pair: told.append(pair))
    same(run_batched(method, *given, STEPS, context=context), whole)
    assert told == [(5, 2)]
    least = 0
    with pytest.raises(ValueError, match="single image and seed"):
        run_batched(method, *given, STEPS)


def test_other_errors_do_not_count_as_out_of_memory(method, given, monkeypatch):
    def broken(*args, **options):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(scale, "run", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run_batched(method, *given, STEPS)


def test_resumed_batches_equal_uninterrupted(method, given, tmp_path):
    """Those that were done are not done again, and the one that was begun goes on."""
    steps = 12  # two chunks for each part
    undisturbed = run_batched(method, *given, steps, context=RunContext(memory=1))
    asked = []

    def stop(now):
        asked.append(now.step)
        return len(asked) == 3

    context = stoppable(stop, memory=1, checkpoint=Checkpoint(tmp_path))
    first = run_batched(method, *given, steps, context=context)
    # all units have an answer, the unfinished ones an early one
    assert not first.is_complete and first.output.image.shape == undisturbed.output.image.shape
    seen = []
    context = RunContext(
        memory=1, checkpoint=Checkpoint(tmp_path), on_progress=lambda progress: seen.append(progress.step)
    )
    again = run_batched(method, *given, steps, context=context)
    # the rest of the second part and three more
    assert again.is_complete and len(seen) == 7
    for name in ("losses", "stopped"):
        np.testing.assert_array_equal(getattr(again, name), getattr(undisturbed, name))
    np.testing.assert_array_equal(again.output.image, undisturbed.output.image)


def test_resumed_batches_keep_their_size(method, given, whole, tmp_path):
    """Finished batches are not computed again, however much memory is free the next time."""
    run_batched(method, *given, STEPS, context=RunContext(memory=1, checkpoint=Checkpoint(tmp_path)))
    assert Checkpoint(tmp_path).parts() == [f"{i}-{i + 1}" for i in range(5)]
    seen = []
    context = RunContext(checkpoint=Checkpoint(tmp_path), on_progress=seen.append)
    same(run_batched(method, *given, STEPS, context=context), whole)
    assert not seen


def test_halved_batches_are_resumed_halved(method, given, whole, tmp_path, monkeypatch):
    """Unless a memory limit is given, which may be the reason to run again."""
    sizes, short = [], True

    def limited(spread, keys, *args, **options):
        sizes.append(len(keys))
        if short and len(keys) > 1 and len(sizes) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        if short and len(sizes) > 3:
            raise KeyboardInterrupt
        return run(spread, keys, *args, **options)

    monkeypatch.setattr(scale, "run", limited)
    monkeypatch.setattr(scale, "CPU_BATCH", 2)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        run_batched(method, *given, STEPS, context=RunContext(checkpoint=Checkpoint(tmp_path)))
    assert sizes == [2, 2, 1, 1] and Checkpoint(tmp_path).parts() == ["0-2", "2-3"]
    sizes.clear()
    short = False
    seen = []
    context = RunContext(checkpoint=Checkpoint(tmp_path), on_progress=seen.append)
    same(run_batched(method, *given, STEPS, context=context), whole)
    # the first three units were done
    assert sizes == [2, 1, 2] and len(seen) == 1
    sizes.clear()
    run_batched(method, *given, STEPS, context=RunContext(memory=1, checkpoint=Checkpoint(tmp_path)))
    assert sizes == [1] * 5


def test_many_kernels_are_deconvolved_in_batches(monkeypatch):
    rng = np.random.default_rng(0)
    y, kernels = rng.random((40, 36), np.float32), list(rng.random((5, 5, 5), np.float32) / 12.5)
    together = latent_images(y, kernels)
    monkeypatch.setattr("jbid.kernel_estimation.ranking.BATCH", 2)
    for few, all_at_once in zip(latent_images(y, kernels), together, strict=True):
        np.testing.assert_allclose(few, all_at_once, atol=1e-4)


def test_even_batches_hold_all_items():
    for units in (1, 5, 8, 13, 64):
        for most in (1, 3, 8, 100):
            for devices in (1, 2, 8):
                size = even_batch(units, most, devices)
                assert size % devices == 0 and size // devices <= most
                parts = -(-units // size)
                # no more parts than needed, and copies only to fill up the last round
                assert parts == -(-units // (most * devices)) and parts * size - units < parts * devices


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="of Linux")
def test_programs_are_cleared_before_memory_mappings_run_out(monkeypatch):
    """And made anew where they are needed again."""

    def mappings():
        return len(Path("/proc/self/maps").read_text().splitlines())

    made = [jax.jit(lambda x, n=n: jnp.sort(jnp.fft.fft2(x).real, 0) * n) for n in range(20)]
    x = jnp.ones((16, 16))
    before = mappings()
    answers = [np.asarray(f(x)) for f in made]
    after = mappings()
    assert after > before
    # far from the limit nothing is lost; a process that has run other tests may be half way there
    monkeypatch.setattr("jbid.runtime.compile.MAPPING_SHARE", 1)
    clear_programs()
    assert mappings() >= after
    monkeypatch.setattr("jbid.runtime.compile.MAPPING_SHARE", 0)
    clear_programs()
    assert mappings() < after
    np.testing.assert_array_equal(made[3](x), answers[3])


def test_memory_sizes_are_parsed():
    assert parse_memory("6GiB") == 6 * 2**30 and parse_memory("1.5 m") == 3 * 2**19 and parse_memory("512") == 512
    for text in ("", "much", "-1G", "0", "3 GX"):
        with pytest.raises(ValueError, match="such as 6GiB"):
            parse_memory(text)


def test_nan_pixels_get_no_gradient():
    """A latent pixel that only unknown ones see has no gradient, and the known ones have what they had without."""
    kernel = free_kernel((3, 3))
    image = Generator(lambda key, y: (jnp.full((10, 12, 1), 0.3), {}), lambda params, code, key: params)
    method = deep_prior(image, kernel, loss=mse(), optimizers=Estimate(optax.sgd(1.0), optax.sgd(0.0)))
    y = np.random.default_rng(1).random((8, 10, 1), np.float32)
    y[:, 6:] = np.nan
    state = method.init(jax.random.key(0), jnp.asarray(y))
    moved, info = method.step(state, jnp.asarray(y), jnp.asarray(0))
    change = np.asarray(moved.params.image - state.params.image)[..., 0]
    assert np.isfinite(info.loss) and (change[:, 8:] == 0).all() and (change[:, :8] != 0).all()
    narrow = Generator(lambda key, y: (jnp.full((10, 8, 1), 0.3), {}), lambda params, code, key: params)
    alone = deep_prior(narrow, kernel, loss=mse(), optimizers=Estimate(optax.sgd(1.0), optax.sgd(0.0)))
    state = alone.init(jax.random.key(0), jnp.asarray(y[:, :6]))
    expected = np.asarray(alone.step(state, jnp.asarray(y[:, :6]), jnp.asarray(0))[0].params.image - 0.3)[..., 0]
    # the mean is over ten columns in place of six
    np.testing.assert_allclose(change[:, :8] * 10 / 6, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "first, shown, counts", [(1.4, 1.0, False), (0.6, 1.0, True), (-0.2, 0.0, False), (0.1, 0.0, True)]
)
def test_clipped_pixels_count_while_the_prediction_is_within_the_range(first, shown, counts):
    image = Generator(lambda key, y: (jnp.full((10, 12, 1), first), {}), lambda params, code, key: params)
    optimizers = Estimate(optax.sgd(1.0), optax.sgd(0.0))
    method = deep_prior(image, free_kernel((3, 3)), loss=mse(), optimizers=optimizers)
    y = jnp.full((8, 10, 1), float(shown))
    state = method.init(jax.random.key(0), y)
    moved, info = method.step(state, y, jnp.asarray(0))
    assert (info.loss > 0) == counts
    assert bool((moved.params.image != state.params.image).all()) == counts


def test_images_of_many_sizes_share_few_padded_shapes():
    lai = [(680, 1024), (683, 1024), (648, 1012), (764, 1024), (701, 1024), (684, 1024), (605, 1024), (768, 1024)]
    lai += [(1024, 752), (1024, 768), (937, 1024), (663, 1008), (682, 1024), (368, 560), (809, 941), (678, 1024)]
    lai += [(518, 630), (380, 536), (442, 612), (520, 558), (351, 502)]
    paper = resolve([("test", {"preset": "paper"})])
    found = padded_shapes(lai, paper)
    assert len(set(found.values())) <= 8
    for shape, room in found.items():
        assert room[0] >= shape[0] and room[1] >= shape[1] and shape[0] * shape[1] >= 0.85 * room[0] * room[1]
    assert padded_shapes(lai[:1], paper) == {lai[0]: lai[0]}
    # a patch is what the network sees
    assert set(padded_shapes(lai, resolve([("test", {"preset": "quick", "patch": 256})])).values()) == {(256, 256)}
    # robust looks for its window among the picture's pixels
    assert not methods.get("robust").is_maskable
    own = padded_shapes(lai, resolve([("test", {"method": "robust", "patch": 0})]))
    assert all(shape == room for shape, room in own.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["selfdeblur", "gkpile", "robust", "explore"])
def test_steps_lower_for_accelerators(name, dtype):
    """Scanned, as they are driven there, without a call back to the host, and in the number format asked for."""
    values = {"method": name, "preset": "quick", "channels": 8, "skip_channels": 4, "scales": 2}
    if name == "explore":
        if dtype == "bfloat16":
            pytest.skip("explore has no such option")
    else:
        values["dtype"] = dtype
    channels = 3 if name == "explore" else 1
    method = over_images(build(resolve([("test", values)]), 31, channels))
    keys, y = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 48, 40, channels))

    def several(state, y, t):
        return jax.lax.scan(lambda state, i: method.step(state, y, i), state, t + jnp.arange(10))

    state = jax.eval_shape(method.init, keys, y, jnp.ones((2, 31, 31)) / 961)
    lowered = jax.export.export(jax.jit(several), platforms=["tpu", "cuda"])(state, y, jnp.asarray(0)).mlir_module()
    assert "callback" not in lowered and "f64" not in lowered
    assert ("bf16" in lowered) == (dtype == "bfloat16")


def test_padded_image_is_restored_at_its_own_size(monkeypatch):
    """Pictures of two sizes in one launch: each has its own corner of the padded image."""
    rng = np.random.default_rng(0)
    settings = resolve(
        [("test", {"kernel_size": 7, "preset": "quick", "init": "random", "steps": 2, "deconvolve": False, "patch": 0})]
    )
    settings = settings._replace(options=settings.options | {"channels": 4, "skip_channels": 2, "scales": 1})
    pictures = [rng.random(shape, np.float32) for shape in ((48, 40, 3), (46, 38, 3))]
    room = padded_shapes([p.shape for p in pictures], settings)
    assert set(room.values()) == {(48, 40)}
    results = []
    real = optimize

    def noted(*args, **options):
        results.append(real(*args, **options))
        return results[0]

    monkeypatch.setattr("jbid.pipeline.solve.optimize", noted)
    tasks = [prepare(p, settings)._replace(padded_shape=room[p.shape[:2]]) for p in pictures]
    answers = solve(tasks, settings)
    assert results[0].output.image.shape == (2, 1, 48, 40, 1)
    for i, (picture, answer) in enumerate(zip(pictures, answers)):
        h, w = picture.shape[:2]
        np.testing.assert_array_equal(answer.network_image, results[0].output.image[i, 0, :h, :w])
        assert answer.image.shape == picture.shape and np.isfinite(answer.losses).all()


DEVICES = """
import sys, numpy as np, jax, jax.numpy as jnp
from jbid.engine.checkpoint import Checkpoint
from jbid.methods.selfdeblur import selfdeblur
from jbid.engine.batching import run_batched
from jbid.engine.driver import RunContext
from jbid.engine.wrappers import over_images
method = over_images(selfdeblur(7, channels=4, skip_channels=2, scales=1, steps=4))
keys = jax.vmap(jax.random.key)(jnp.arange(5))
y = np.random.default_rng(0).random((5, 24, 20, 1), np.float32)
spread = run_batched(method, keys, y, 4)
# the first two steps, and from what they left the rest
for steps in (2, 4):
    resumed = run_batched(method, keys, y, steps, context=RunContext(checkpoint=Checkpoint(sys.argv[2])))
np.testing.assert_array_equal(resumed.losses, spread.losses)
np.testing.assert_array_equal(resumed.output.image, spread.output.image)
# what is loaded is where it is needed, and nowhere else
loaded = []
load = Checkpoint.load
def noted(self, *args):
    loaded.append(load(self, *args))
    return loaded[-1]
Checkpoint.load = noted
run_batched(method, keys, y, 4, context=RunContext(checkpoint=Checkpoint(sys.argv[2])))
leaves = jax.tree.leaves(loaded[0][0])
assert leaves and all(len(x.sharding.device_set) == 4 and x.addressable_shards[0].data.shape[0] == 2 for x in leaves)
np.savez(sys.argv[1], devices=len(jax.devices()), losses=spread.losses, image=spread.output.image)
"""


@pytest.mark.slow
def test_several_devices_equal_one(whole, tmp_path):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    subprocess.run(
        [sys.executable, "-c", DEVICES, tmp_path / "out.npz", tmp_path / "checkpoint"],
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=ROOT,
        check=True,
    )
    found = np.load(tmp_path / "out.npz")
    assert found["devices"] == 4
    np.testing.assert_allclose(found["losses"], whole.losses, rtol=1e-4)
    np.testing.assert_allclose(found["image"], whole.output.image, atol=5e-3)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.mark.slow
def test_two_processes_share_a_benchmark_and_resume_after_a_loss(levin_set, tmp_path):
    out = tmp_path / "both.json"
    command = [sys.executable, "-m", "jbid.bench", "levin", "--data", str(levin_set), "--kernel-size=11", *TINY]
    command += ["--limit=2", "--no-full", "--out", str(out)]

    def both(port, *more):
        return [
            subprocess.Popen(
                [*command, f"--distributed=localhost:{port},2,{i}", *more], cwd=ROOT, stderr=subprocess.PIPE
            )
            for i in range(2)
        ]

    first = both(free_port())
    rows = tmp_path / "both"
    # one process is lost as soon as any image is done, and the other one with it
    begun = time.monotonic()
    while not list(rows.glob("im*.json")) and time.monotonic() - begun < 240:
        time.sleep(0.02)
    for process in first:
        process.kill()
        process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in rows.glob("*.json")}
    assert kept
    again = both(free_port(), "--resume")
    errors = [process.communicate(timeout=300)[1] for process in again]
    assert [process.returncode for process in again] == [0, 0], errors
    content = json.loads(out.read_text())
    assert [row["name"] for row in content["images"]] == [f"im1_kernel{k}_img" for k in (1, 2)]
    assert content["processes"] == 2
    assert all((rows / name).stat().st_mtime_ns == before for name, before in kept.items())
    alone = tmp_path / "alone.json"
    assert bench([*command[3:-1], str(alone)]) == 0
    scores = [[row["psnr"] for row in json.loads(path.read_text())["images"]] for path in (out, alone)]
    np.testing.assert_allclose(*scores, atol=0.01)


LEAVING = """
import sys, time, jax
from jbid.runtime.commandline import create_app, execute, run
from jbid.runtime.console import interruptible
from jbid.runtime.distributed import wait_for_all
_, port, index, how = sys.argv
def work():
    jax.devices()
    print("ready", flush=True)
    if index == "0":
        wait_for_all("nothing")
    if how == "error":
        raise ValueError("no such thing")
    with interruptible() as interrupt:
        while not interrupt.is_set():
            time.sleep(0.1)
    raise KeyboardInterrupt
app = create_app("test", "A command.")
app.default(lambda: execute(work, f"localhost:{port},2,{index}"))
sys.exit(run(app, []))
"""


@pytest.mark.slow
@pytest.mark.parametrize("who, how, codes", [(0, "signal", (-2, 130)), (1, "signal", (130,)), (1, "error", (2,))])
def test_process_ends_while_others_wait_or_work(who, how, codes, tmp_path):
    """By Ctrl-C, where it waits and where it works, or by an error of its own; soon, and not by an abort."""
    port = str(free_port())
    told = [tmp_path / f"{i}.txt" for i in range(2)]
    processes = []
    try:
        for i, path in enumerate(told):
            with path.open("w") as file:
                command = [sys.executable, "-c", LEAVING, port, str(i), how]
                processes.append(subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file))
        begun = time.monotonic()
        while not all("ready" in path.read_text() for path in told) and time.monotonic() - begun < 120:
            time.sleep(0.1)
        # until the first one waits
        time.sleep(2)
        if how == "signal":
            processes[who].send_signal(signal.SIGINT)
        assert processes[who].wait(timeout=60) in codes
        assert "Traceback" not in told[who].read_text() and "stack trace" not in told[who].read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_two_processes_share_a_folder_of_photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in "abc":
        write_image(tmp_path / "photos" / f"{name}.png", rng.random((40, 36, 1), np.float32))
    command = [sys.executable, "-m", "jbid", "deblur", str(tmp_path / "photos"), "--kernel-size=7", *TINY]
    port = free_port()
    both = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / "both"), f"--distributed=localhost:{port},2,{i}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        told = [process.communicate(timeout=240)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    # each picture once, and none of the processes all of them
    assert [each.count("_sharp.png") for each in told] == [1, 2]
    assert main([*command[3:], "--out", str(tmp_path / "alone")]) == 0
    made, alone = ({p.name: p for p in (tmp_path / d).iterdir()} for d in ("both", "alone"))
    assert sorted(made) == sorted(alone) and len(made) == 9
    for name in "abc":
        x, y = (read_image(folder[f"{name}_sharp.png"]) for folder in (made, alone))
        np.testing.assert_allclose(x, y, atol=2 / 255)
