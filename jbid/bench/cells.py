"""Cells of the variance benchmark: one image, method and initial kernel, with all random seeds in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jbid.bench.protocols import Protocol
from jbid.bench.scoring import quantize
from jbid.data.levin import Item
from jbid.data.synthetic import MIXED
from jbid.deconvolution.tiled import deconvolve_tiled
from jbid.engine.driver import RunContext, RunResult
from jbid.io.files import atomic_write, read_json, write_json
from jbid.kernel_estimation.ranking import Candidate, latent_images, rank_candidates
from jbid.metrics import kernel_similarity
from jbid.ops import motion
from jbid.ops.color import luma
from jbid.ops.kernels import place_kernel
from jbid.pipeline.config import Config
from jbid.pipeline.prepare import InitialKernel, PreparedImage, prepare
from jbid.pipeline.resume import fingerprint, run_identity
from jbid.pipeline.solve import optimize

FAILED = 3.0  # error ratio above which a restoration counts as failed, Levin et al. 2009
AVERAGED = 1000  # simulated kernels in the average
# initial kernel of `Config` that `prepare` must make for that of a cell
PREPARED_INITS = {"random": "edges", "average": "edges", "perturbed": "learned"}


class Cell(NamedTuple):
    """Image, method and initial kernel.

    Attributes:
        item: the image.
        init: random, average, edges, learned or perturbed.
        config: the run.
        perturb: share of a simulated kernel in a perturbed one.
    """

    item: Item
    init: str
    config: Config
    perturb: float

    @property
    def name(self) -> str:
        """Name of the cell's files."""
        return f"{self.item.name}_{self.config.method}_{self.init}"

    def identity(self) -> str:
        """Fingerprint of everything that decides the result."""
        init = f"{self.init} {self.perturb if self.init == 'perturbed' else ''}"
        return run_identity(self.config, self.item.blurred, np.frombuffer(init.encode(), np.uint8))


class CellFiles(NamedTuple):
    """Files of the cells in a folder.

    Attributes:
        folder: of the results.
    """

    folder: Path

    def row_path(self, cell: Cell) -> Path:
        """JSON file of a cell's row."""
        return self.folder / f"{cell.name}.json"

    def kernels_path(self, name: str) -> Path:
        """Archive of the kernels of a cell's seeds."""
        return self.folder / f"{name}.npz"

    def checkpoint_path(self, cell: Cell) -> Path:
        """Folder of a cell's checkpoint."""
        return self.folder / ".jbid" / fingerprint(cell.name, cell.identity())

    def read(self, cell: Cell, protocol: Protocol) -> dict[str, Any] | None:
        """Row of an earlier run with the same settings and protocol; None without its kernels."""
        row = read_json(self.row_path(cell))
        is_same = row.get("identity") == cell.identity() and row.get("scoring") == protocol.to_dict()
        return row if is_same and self.kernels_path(cell.name).is_file() else None

    def write(self, cell: Cell, row: dict[str, Any], kernels: NDArray) -> None:
        """Write the kernels of the seeds and the row of a cell."""
        with atomic_write(self.kernels_path(cell.name)) as temporary:
            np.savez_compressed(temporary, kernels=kernels)
        write_json(self.row_path(cell), row)


def initial_kernels(cell: Cell, prepared: PreparedImage) -> tuple[InitialKernel, ...]:
    """Initial kernels of the seeds: one for all or, if perturbed, one for each; none for random initialization.

    average: mean of simulated kernels. perturbed: (1 - p) k + p s with the learned kernel k, the share p of
    `Cell.perturb` and a simulated kernel s of each seed.
    """
    side = max(prepared.kernel_shape)
    if cell.init == "random":
        return ()
    if cell.init == "average":
        average = np.asarray(motion.mixed_kernels(jax.random.key(0), side, AVERAGED, MIXED)).mean(0)
        return (InitialKernel("average", place_kernel(average, prepared.kernel_shape)),)
    by_name = {initial.name: initial for initial in prepared.initial_kernels}
    if cell.init != "perturbed":
        return (by_name[cell.init],)
    learned = by_name["learned"].kernel
    kernels = []
    for s in range(cell.config.n_seeds):
        key = jax.random.fold_in(jax.random.key(cell.config.seed + s), 1)
        simulated = place_kernel(np.asarray(motion.mixed_kernels(key, side, 1, MIXED)[0]), prepared.kernel_shape)
        mixed = (1 - cell.perturb) * learned + cell.perturb * simulated
        kernels.append(InitialKernel(f"perturbed {s}", mixed))
    return tuple(kernels)


def run_cell(
    cell: Cell, protocol: Protocol, context: RunContext
) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.float32]] | None:
    """Run all seeds of a cell and score the deconvolution with each seed's kernel.

    Returns:
        Row with an entry for each seed, kernels (seeds, kh, kw) and losses (steps, seeds); None if it was cancelled.
    """
    item, config = cell.item, cell.config
    prepared = prepare(item.blurred, config._replace(init=PREPARED_INITS.get(cell.init, cell.init)))
    prepared = prepared._replace(initial_kernels=initial_kernels(cell, prepared))
    result = optimize([prepared], config, context)
    if not result.is_complete:
        return None
    kernels = np.asarray(result.output.kernel)[0]
    true_kernel, seeds = _score_seeds(cell, prepared, result, protocol)
    row: dict[str, Any] = {"name": cell.name, "image": item.name, "method": config.method, "init": cell.init}
    row |= {"kernel_size": max(prepared.kernel_shape), "steps": config.steps, "psnr_true_kernel": true_kernel}
    row["psnr_blurred"] = protocol.score(item.blurred, np.asarray(item.sharp)).psnr
    row |= {"identity": cell.identity(), "scoring": protocol.to_dict(), "seeds": seeds}
    return row, kernels, result.losses[:, 0]


def _score_seeds(
    cell: Cell, prepared: PreparedImage, result: RunResult, protocol: Protocol
) -> tuple[float, list[dict[str, Any]]]:
    """PSNR of the deconvolution with the true kernel, and the entry of each seed."""
    item = cell.item
    assert item.sharp is not None and item.kernel is not None
    kernels, images = (np.asarray(x)[0] for x in (result.output.kernel, result.output.image))
    image = item.blurred if protocol.is_color else luma(item.blurred)
    true_kernel = protocol.score(deconvolve_tiled(image, item.kernel), item.sharp)
    has_whole_image = prepared.observed.shape[:2] == item.sharp.shape[:2]
    seeds = []
    for s, candidate in enumerate(_rank_seeds(cell, prepared, kernels, images)):
        is_finite = bool(np.isfinite(kernels[s]).all())
        latent = deconvolve_tiled(image, kernels[s]) if is_finite else image
        best = protocol.score(quantize(latent), item.sharp)
        entry: dict[str, Any] = {"seed": cell.config.seed + s, "psnr": best.psnr, "ssim": best.ssim}
        if has_whole_image and np.isfinite(images[s]).all():
            network = protocol.score(quantize(images[s]), item.sharp)
            entry |= {"psnr_network": network.psnr, "ssim_network": network.ssim}
        ratio = best.squared_error / true_kernel.squared_error
        loss = float(result.losses[-1, 0, s])
        entry |= {"error_ratio": ratio, "failed": bool(ratio > FAILED or not is_finite)}
        entry["kernel_similarity"] = kernel_similarity(_finite(kernels[s]), item.kernel)
        entry |= {"loss": loss if np.isfinite(loss) else None, "score": candidate.terms.score}
        entry |= {"terms": candidate.terms._asdict(), "failure": candidate.failure}
        seeds.append(entry | {"stopped": int(result.stopped[0, s])})
    return true_kernel.psnr, seeds


def _rank_seeds(cell: Cell, prepared: PreparedImage, kernels: NDArray, images: NDArray) -> list[Candidate]:
    gray = luma(prepared.observed)[..., 0]
    names = [f"seed {cell.config.seed + s}" for s in range(len(kernels))]
    latents = latent_images(gray, list(_finite(kernels)))
    return rank_candidates(gray, latents, list(kernels), names, [luma(x)[..., 0] for x in images])


def _finite(kernels: NDArray) -> NDArray:
    """The kernels with zeros for values that are not finite."""
    return np.where(np.isfinite(kernels), kernels, 0)
