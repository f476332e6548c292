"""Fit of the predicted gain (`jbid.kernel_estimation.gain`) to simulated blurs, and its test on images left out.

    python -m benchmarks.fit_gain --sharp DIR --work DIR [--problems 336] [--ship jbid/trained] [--out gain.json]

Each problem is a part of a sharp photo or a rendered page, blurred or not: camera shake, lines, discs, slight blurs, a
sharp foreground before a soft background; then noise, contrast, clipping, 8 bits, JPEG. Its candidates are the
edge-based estimates of all sizes and settings after none to two refinements, the simple blurs, and for the fit alone
the true kernel, also smoothed and refined. From problem `PARTS` on it is a whole photo, with larger kernels, and its
candidates are those of the search. Each candidate has its
features and its true gain: PSNR of the deconvolution minus PSNR of the blurred image, after the best shift. No image or
kernel of Levin's or Lai's sets is used.

Ridge regression of the gain, each problem with the same weight, and logistic regression of its sign for the candidate
that is chosen, from predictions of problems that were left out. The report holds the mean gain of the chosen
candidates over ten folds, the regret, the share that lose, and the reliability of the confidence. Problems are kept in
`--work`, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from benchmarks.script import Parser, json_file, run_script
from jbid.data.crops import find_images
from jbid.io.files import make_folder, read_json, write_json
from jbid.io.images import read_image
from jbid.kernel_estimation.edges import sample_edge_kernels
from jbid.kernel_estimation.gain import GATE, GainModel, GainPredictor
from jbid.kernel_estimation.ranking import latent_images
from jbid.kernel_estimation.refine import refine_kernels
from jbid.kernel_estimation.sampling import SETTINGS, Plan, search_sizes, smooth_noise
from jbid.kernel_estimation.scale_search import DISCS, search_scale, simple_kernels
from jbid.kernel_estimation.search import MANY_PIXELS, clean_image
from jbid.metrics import align
from jbid.ops.color import luma
from jbid.ops.kernels import disc_kernel, gaussian_kernel
from jbid.ops.motion import kernel_of_extent
from jbid.pretrain.loop import ship
from jbid.runtime import parallel
from jbid.runtime.environment import core_count, source_commit, versions_and_device

KINDS = {"sharp": 0.2, "soft background": 0.06, "slight": 0.14, "camera": 0.44, "disc": 0.08, "line": 0.08}
PARTS = 256  # number of problems with parts of photos; the others have whole ones
SIDES = (128, 160, 192, 224)
WHOLE_SIDE = 300  # pixels; shorter side of a whole photo, about
SMALLEST = (5, 20)  # pixels; extent of camera shake, of a part and of a whole photo
LARGEST = 51  # size of the estimates
PAGES = 0.08  # share of rendered pages among the images
SEED = 1000
ROUNDS = 2
RIDGE = 300.0
CLIP = (-4.0, 8.0)  # dB; a failure is a failure, and gains are not to dominate the fit
FOLDS = 10
CHOSEN = 4  # candidates of each problem that the confidence is fitted to


class Problem(NamedTuple):
    kind: str
    blurred: NDArray[np.float32]
    sharp: NDArray[np.float32]
    kernel: NDArray[np.float32]
    about: dict[str, Any]
    is_part: bool


def draw_page(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A page of text, dark on light or the reverse."""
    size = int(rng.integers(9, 30))
    font = ImageFont.load_default(size)
    paper, ink = rng.uniform(0.75, 1), rng.uniform(0, 0.3)
    image = Image.new("F", (side, side), paper)
    draw = ImageDraw.Draw(image)
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.")
    y = int(rng.integers(-size, size))
    while y < side:
        words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(side // size)]
        draw.text((int(rng.integers(0, size)), y), " ".join(words), fill=ink, font=font)
        y += int(size * rng.uniform(1.2, 1.8))
    page = np.asarray(image, np.float32)
    return 1 - page if rng.random() < 0.2 else page


def draw_sharp(rng: np.random.Generator, files: Sequence[Path], side: int) -> tuple[str, NDArray[np.float32]]:
    """Name and part of a photo, or a page."""
    if rng.random() < PAGES:
        return "page", draw_page(rng, side)
    path = files[rng.integers(len(files))]
    photo = luma(read_image(path))[..., 0]
    if min(photo.shape) < side:
        photo = scipy.ndimage.zoom(photo, 1.01 * side / min(photo.shape), order=1)
    top, left = (int(rng.integers(n - side + 1)) for n in photo.shape)
    return path.name, photo[top : top + side, left : left + side]


def draw_line(rng: np.random.Generator, length: float) -> NDArray[np.float32]:
    """Straight motion."""
    side = int(np.ceil(length)) + 2 | 1
    angle = rng.uniform(0, np.pi)
    at = np.linspace(-0.5, 0.5, int(16 * length) + 1)[:, None] * (length - 1) * [np.sin(angle), np.cos(angle)]
    shares = np.maximum(0, 1 - np.abs(np.arange(side) - side // 2 - at[..., None]))
    kernel = np.einsum("nr,nc->rc", shares[:, 0], shares[:, 1])
    return (kernel / kernel.sum()).astype(np.float32)


def draw_kernel(kind: str, rng: np.random.Generator, side: int, seed: int, least: int) -> NDArray[np.float32]:
    """A kernel of a kind, of at most 2 / 9 of the image's side; camera shake of an extent of at least `least`."""
    if kind in ("sharp", "soft background"):
        return np.ones((1, 1), np.float32)
    if kind == "slight":
        kinds: list[Callable[[], NDArray[np.float32]]] = [
            lambda: gaussian_kernel(rng.uniform(0.4, 1.2)),
            lambda: disc_kernel(rng.uniform(0.8, 1.6)),
            lambda: draw_line(rng, rng.uniform(2, 4)),
        ]
        return kinds[rng.integers(3)]()
    if kind == "disc":
        return disc_kernel(rng.uniform(1.5, 6))
    if kind == "line":
        return draw_line(rng, min(rng.uniform(5, 40), side / 5))
    return kernel_of_extent(min(np.exp(rng.uniform(np.log(least), np.log(70))), side / 4.5), seed)


def jpeg(image: NDArray, quality: int) -> NDArray[np.float32]:
    """Image (h, w, c) in [0, 1] after JPEG compression."""
    file = io.BytesIO()
    Image.fromarray(np.squeeze(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))).save(
        file, "JPEG", quality=quality
    )
    return (np.asarray(Image.open(file)).reshape(image.shape) / 255).astype(np.float32)


def draw_problem(index: int, files: Sequence[Path]) -> Problem:
    """Problem of a number; the same for the same photos."""
    rng = np.random.default_rng(SEED + index)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    is_part = index < PARTS
    side = int(rng.choice(SIDES)) if is_part else WHOLE_SIDE
    kernel = draw_kernel(kind, rng, side, index, SMALLEST[not is_part])
    rim = kernel.shape[0] // 2
    if is_part:
        name, sharp = draw_sharp(rng, files, side + 2 * rim)
    else:
        path = files[rng.integers(len(files))]
        name, sharp = path.name, luma(read_image(path))[..., 0]
    if kind == "soft background":
        soft = scipy.ndimage.gaussian_filter(sharp, rng.uniform(2, 5))
        noise = scipy.ndimage.gaussian_filter(rng.standard_normal(sharp.shape), side / 6)
        sharp = np.where(noise > np.quantile(noise, rng.uniform(0.4, 0.7)), sharp, soft).astype(np.float32)
    gain = rng.uniform(1.15, 1.6) if rng.random() < 0.12 else 1.0
    contrast = rng.uniform(0.15, 1) if rng.random() < 0.15 else 1.0
    sharp = sharp * gain if gain > 1 else 0.5 + contrast * (sharp - 0.5)
    noise_level = float(rng.choice([0, 0.002, 0.005, 0.01, 0.02], p=[0.25, 0.2, 0.25, 0.18, 0.12])) * contrast
    quality = int(rng.uniform(50, 96)) if rng.random() < 0.3 else 0
    blurred = scipy.signal.fftconvolve(sharp, kernel, "valid")
    blurred = blurred + noise_level * rng.standard_normal(blurred.shape)
    eight_bits = np.round(np.clip(blurred, 0, 1) * 255).astype(np.uint8)
    observed = jpeg(eight_bits[..., None] / 255, quality)[..., 0] if quality else eight_bits / 255
    h, w = observed.shape
    sharp = np.clip(sharp[rim : rim + h, rim : rim + w], 0, 1)
    about = {"photo": name, "kernel": kernel.shape[0], "noise": noise_level, "jpeg": quality, "gain": round(gain, 2)}
    return Problem(kind, observed.astype(np.float32), sharp.astype(np.float32), kernel, about, is_part)


def candidate_entries(problem: Problem) -> dict[str, Any]:
    """Features and true gains of all candidates of a problem."""
    image = clean_image(problem.blurred[..., None])[..., 0]
    (h, w), predictor = image.shape, GainPredictor(image)

    def score(x):
        return align(np.clip(x, 0, 1), problem.sharp, max_shift=8, border=max(16, h // 16)).psnr

    before = score(problem.blurred)

    def entry(name, done, latent, kernel):
        half = kernel.shape[0] // 2
        gain = score(latent[half : half + h, half : half + w]) - before
        features = {key: round(value, 4) for key, value in predictor.features(latent, kernel).items()}
        return {"name": name, "refined": done, "gain": round(gain, 3), "features": features}

    entries, kernels, names = [], [], []
    if problem.is_part:
        simple = simple_kernels(DISCS, min(h, w) // 4)
        latents = latent_images(image, [sample.kernel for sample in simple])
        entries += [entry(sample.name, 0, latent, sample.kernel) for sample, latent in zip(simple, latents)]
        sizes = [size for size in search_sizes(image.shape) if size <= min(LARGEST, min(h, w) // 4)]
        options = [(size, *setting, 0.0) for size in sizes for setting in SETTINGS]
        kernels = sample_edge_kernels(smooth_noise(image), options)
        names = [f"{size}, {weight:g}, {ridge:g}" for size, weight, ridge, _ in options]
        entries += [entry(*args) for args in zip(names, [0] * len(names), latent_images(image, kernels), kernels)]
    else:
        # no more candidates than in the search, because they take minutes
        plan = Plan(many=image.size >= MANY_PIXELS)
        pool = search_scale(image, search_sizes(image.shape), plan, limit=min(h, w) // 4)
        entries += [entry(*args) for args in zip(pool.names, [0] * len(pool.names), pool.latents, pool.kernels)]
    if problem.kernel.size > 1:
        # few estimates are as good as these, and the model must know such ones too
        wide = np.pad(problem.kernel, 2)
        near = [wide, scipy.ndimage.gaussian_filter(wide, 0.7)]
        for name, kernel, latent in zip(("true kernel", "true kernel, smoothed"), near, latent_images(image, near)):
            entries.append(entry(name, 0, latent, kernel))
        kernels, names = [*kernels, near[1]], [*names, "true kernel, smoothed"]
    refined = refine_kernels(image, kernels, [kernel.shape[0] for kernel in kernels], rounds=ROUNDS)
    for name, steps in zip(names, refined):
        entries += [entry(name, done + 1, step.image, step.kernel) for done, step in enumerate(steps)]
    return {
        "kind": problem.kind,
        **problem.about,
        "side": h,
        "width": w,
        "psnr": round(before, 2),
        "candidates": entries,
    }


def _solve(index: int, files: Sequence[Path], path: Path) -> None:
    # one thread for each process
    parallel.core_count = lambda: 1
    if not path.exists():
        write_json(path, candidate_entries(draw_problem(index, files)))


class Table(NamedTuple):
    features: NDArray[np.float64]  # candidates, features
    gains: NDArray[np.float64]
    problems: NDArray[np.int64]
    is_found: NDArray[np.bool_]  # not made from the true kernel
    names: tuple[str, ...]

    def of(self, chosen: NDArray[np.bool_]) -> Table:
        """The table with some of its rows."""
        return Table(*(column[chosen] for column in self[:-1]), self.names)


def make_table(problems: Sequence[dict[str, Any]]) -> Table:
    """Candidates of all problems."""
    rows = [(i, c) for i, problem in enumerate(problems) for c in problem["candidates"]]
    names = tuple(rows[0][1]["features"])
    return Table(
        np.array([[c["features"][name] for name in names] for _, c in rows]),
        np.array([c["gain"] for _, c in rows]),
        np.array([i for i, _ in rows]),
        np.array([not c["name"].startswith("true kernel") for _, c in rows]),
        names,
    )


def _ridge(x: NDArray, y: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Coefficients of a weighted least-squares fit with a penalty; x and y have mean zero."""
    root = np.sqrt(weight)
    a, b = x * root[:, None], y * root
    return np.linalg.solve(a.T @ a + RIDGE * np.eye(a.shape[1]), a.T @ b)


def fit_linear(table: Table) -> GainModel:
    """Ridge regressions of the clipped gain, as it is and less its mean over the candidates of each problem."""
    counts = np.bincount(table.problems)
    weight = 1 / counts[table.problems]
    weight = weight / weight.mean()
    mean = np.average(table.features, 0, weight)
    scale = np.sqrt(np.average((table.features - mean) ** 2, 0, weight)) + 1e-6
    x, y = np.clip((table.features - mean) / scale, -4, 4), np.clip(table.gains, *CLIP)
    x_mean, y_mean = np.average(x, 0, weight), np.average(y, 0, weight)
    gain = _ridge(x - x_mean, y - y_mean, weight)

    def without_mean(values):
        """Values less their mean over the candidates of each problem."""
        columns = values.reshape(len(values), -1)
        sums = np.zeros((len(counts), columns.shape[1]))
        np.add.at(sums, table.problems, columns)
        return (columns - (sums / np.maximum(counts, 1)[:, None])[table.problems]).reshape(values.shape)

    rank = _ridge(without_mean(x), without_mean(y), weight)
    intercept = y_mean - x_mean @ gain
    return GainModel(table.names, mean, scale, rank, np.concatenate([[intercept], gain]), np.zeros(2 + len(GATE)))


class Predictions(NamedTuple):
    rank: NDArray[np.float64]
    gate: NDArray[np.float64]  # inputs of the confidence


def predict(model: GainModel, table: Table) -> Predictions:
    """Predictions of all rows."""
    x = model.standardize(table.features)
    return Predictions(x @ model.rank, model.gate(x, model.gain[0] + x @ model.gain[1:]))


def fit_logistic(x: NDArray, is_better: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Coefficients of the probability of a gain, by Newton's method, with a weak penalty."""
    values, penalty = np.zeros(x.shape[1]), np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ values))
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + penalty + 1e-6 * np.eye(len(values))
        values += np.linalg.solve(hessian, x.T @ (weight * (is_better - p)) - penalty @ values)
    return values


def left_out(table: Table, count: int) -> Predictions:
    """Predictions by models that have not seen the problem."""
    fold = np.random.default_rng(0).permutation(count) % FOLDS
    rank, gate = np.zeros(len(table.gains)), np.zeros((len(table.gains), 2 + len(GATE)))
    for k in range(FOLDS):
        is_out = fold[table.problems] == k
        rank[is_out], gate[is_out] = predict(fit_linear(table.of(~is_out)), table.of(is_out))
    return Predictions(rank, gate)


def best_of_each(table: Table, rank: NDArray, count: int) -> NDArray[np.int64]:
    """Rows of the best-ranked candidates of each problem, (problems, count)."""
    owns = [np.flatnonzero((table.problems == i) & table.is_found) for i in np.unique(table.problems)]
    return np.array([own[np.argsort(-rank[own])[:count]] for own in owns])


def left_out_confidence(table: Table, predicted: Predictions, top: NDArray) -> NDArray[np.float64]:
    """Confidence in the best-ranked candidate of each problem, by logistic models that have not seen the problem."""
    fold = np.random.default_rng(1).permutation(len(top)) % FOLDS
    confidence = np.zeros(len(top))
    for k in range(FOLDS):
        rows = top[fold != k].ravel()
        values = fit_logistic(predicted.gate[rows], table.gains[rows] > 0, np.full(len(rows), 1 / top.shape[1]))
        confidence[fold == k] = 1 / (1 + np.exp(-predicted.gate[top[fold == k, 0]] @ values))
    return confidence


def reliability_table(confidence: NDArray, is_gain: NDArray) -> list[list[float]]:
    """Mean confidence, share of gains and number of the predictions in each fifth of the range."""
    fifths = np.minimum((confidence * 5).astype(int), 4)
    rows = []
    for fifth in range(5):
        inside = fifths == fifth
        if inside.any():
            means = confidence[inside].mean(), is_gain[inside].mean()
            rows.append([*(round(float(v), 2) for v in means), int(inside.sum())])
    return rows


def report(problems: Sequence[dict[str, Any]], table: Table, top: NDArray, confidence: NDArray) -> dict[str, Any]:
    """Gain of the choice on problems left out, by kind, and reliability of the confidence."""
    chosen = table.gains[top[:, 0]]
    gains = np.where(confidence >= 0.5, chosen, 0)
    best = np.array([max(0.0, table.gains[(table.problems == i) & table.is_found].max()) for i in range(len(problems))])
    kinds = np.array([problem["kind"] for problem in problems])

    def summary(mask):
        return {
            "problems": int(mask.sum()),
            "gain": round(float(gains[mask].mean()), 2),
            "best": round(float(best[mask].mean()), 2),
            "left as they are": int((confidence[mask] < 0.5).sum()),
            "lost over 0.1 dB": int((gains[mask] < -0.1).sum()),
            "worst": round(float(gains[mask].min()), 2),
        }

    reliability = reliability_table(confidence, chosen > 0)
    by_kind = {kind: summary(kinds == kind) for kind in KINDS if (kinds == kind).any()}
    return {"all": summary(kinds != ""), **by_kind, "reliability": reliability}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m benchmarks.fit_gain", __doc__)
    parser.add_argument("--sharp", type=Path, required=True, help="folder of sharp photos")
    parser.add_argument("--work", type=Path, required=True, help="folder for the problems")
    parser.add_argument("--problems", type=int, default=336)
    parser.add_argument("--ship", type=Path, help="folder of weights to add the model to")
    parser.add_argument("--out", type=json_file, help="report")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    files = find_images(args.sharp)
    folder = make_folder(args.work)
    paths = [folder / f"{i:04}.json" for i in range(args.problems)]
    # processes, because many short steps in Python keep its lock
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(core_count(), multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_solve, i, files, path) for i, path in enumerate(paths)]
        for job in tqdm(jobs, "problems", file=sys.stderr):
            job.result()
    problems = [read_json(path) for path in paths]
    table = make_table(problems)
    predicted = left_out(table, len(problems))
    top = best_of_each(table, predicted.rank, CHOSEN)
    result = report(problems, table, top, left_out_confidence(table, predicted, top))
    rows = top.ravel()
    values = fit_logistic(predicted.gate[rows], table.gains[rows] > 0, np.full(len(rows), 1 / CHOSEN))
    model = fit_linear(table)._replace(confidence=values)
    for name, values in result.items():
        print(name, values)
    about = {
        "settings": {"features": list(model.names), "problems": args.problems, "seed": SEED, "ridge": RIDGE},
        "command": "python -m benchmarks.fit_gain",
        "commit": source_commit(),
        **versions_and_device(),
    }
    if args.ship:
        variables = {name: np.asarray(value) for name, value in model._asdict().items() if name != "names"}
        ship(args.ship, "gain", variables, about | {"held_out": result["all"]})
    if args.out:
        write_json(args.out, about | result)


if __name__ == "__main__":
    sys.exit(run_script(main))
