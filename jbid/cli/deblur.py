"""`jbid deblur`: restore blurred photos."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from jbid.cli.inputs import about, list_inputs, output_suffix
from jbid.pipeline.arguments import NO_COMPUTE, NO_OPTIMIZATION, ComputeOptions, OptimizationOptions
from jbid.runtime.commandline import MAIN, KernelSize, Positive, Region, execute, with_flags
from jbid.runtime.console import Interrupt, print_error, print_warning, stage_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jbid.io.images import Photo
    from jbid.kernel_estimation.ranking import Candidate
    from jbid.pipeline.config import Config
    from jbid.pipeline.prepare import PreparedImage
    from jbid.pipeline.restoration import Restoration

SUFFIXES = ("_sharp", "_kernel", "_spread")


def deblur(
    images: Annotated[tuple[str, ...], Parameter(name="IMAGE")],
    /,
    *,
    out: Annotated[Path, Parameter(group=MAIN)] = Path("deblurred"),
    method: Annotated[str | None, Parameter(group=MAIN)] = None,
    kernel_size: Annotated[KernelSize, Parameter(group=MAIN)] = None,
    region: Annotated[Region, Parameter(group=MAIN)] = None,
    seeds: Annotated[Positive, Parameter(group=MAIN)] = None,
    kernel: Path | None = None,
    linear: bool = False,
    highlights: Literal["clip", "compress", "keep"] | None = None,
    color: Literal["luma", "rgb"] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    optimization: OptimizationOptions = NO_OPTIMIZATION,
    compute: ComputeOptions = NO_COMPUTE,
) -> int:
    """Restore blurred photos. Only the blurred image is needed: the blur is estimated from it.

    For each photo, NAME_sharp (the restored image), NAME_kernel.png (the blur) and NAME.json (settings,
    candidates and scores) are written. Unreadable files are reported and skipped.

    Example: jbid deblur photo.jpg --out restored

    Parameters
    ----------
    images
        Files, folders or patterns such as 'photos/*.jpg'.
    out
        Folder of the results.
    method
        edges (default: seconds), or a deep prior: selfdeblur, gkpile, robust (noisy photos), explore.
    kernel_size
        Size of the blur in pixels, an odd number; auto (default): found from the photo; half: half the photo.
    region
        Part of the photo to estimate the blur from, as X,Y,WIDTH,HEIGHT in pixels (default: chosen automatically).
    seeds
        Number of random seeds to run in parallel; the best-scoring result is kept. For network methods.
    kernel
        Image file of the kernel, if the blur is known.
    linear
        Restore in linear light, for sRGB photos.
    highlights
        Lights that come out brighter than white: clip (default); compress, with a soft shoulder; or keep, in a TIFF of
        floating-point values.
    color
        Estimate from brightness alone (luma, the default) or from all three channels (rgb).
    resume
        Continue an interrupted run with the same arguments, and skip finished photos.
    overwrite
        With --resume: replace results that were made with other settings.
    """
    arguments = {"method": method, "kernel_size": kernel_size, "region": region, "n_seeds": seeds, "color": color}
    source = (optimization, arguments | {"linear": linear or None, "highlights": highlights})
    return execute(lambda: _deblur(images, out, source, kernel, resume, overwrite, compute), compute.distributed)


class _Job(NamedTuple):
    """One photo that is being restored; its pixels are in `prepared`."""

    path: Path
    photo: Photo
    prepared: PreparedImage
    identity: str


def _known_kernel(path: Path | None, kernel_size: int | str | None) -> NDArray | None:
    if path is None:
        return None
    from jbid.io.images import read_kernel
    from jbid.ops.kernels import pad_to_odd_square

    kernel = pad_to_odd_square(read_kernel(path))
    if kernel_size not in (None, "auto", len(kernel)):
        raise ValueError(f"`kernel_size` {kernel_size} contradicts {path}, whose kernel has size {len(kernel)}")
    return kernel


def _deblur(
    images: Sequence[str],
    out: Path,
    source: tuple[OptimizationOptions, dict[str, Any]],
    kernel_path: Path | None,
    resume: bool,
    overwrite: bool,
    compute: ComputeOptions,
) -> int:
    import jax

    from jbid.io.files import make_folder
    from jbid.io.images import read_kernel
    from jbid.pipeline.config import resolve
    from jbid.pipeline.grouping import batch_key, batches, group_by
    from jbid.pipeline.prepare import init_file
    from jbid.runtime.console import interruptible
    from jbid.runtime.distributed import local_share, wait_for_all

    optimization, flags = source
    kernel = _known_kernel(kernel_path, flags["kernel_size"])
    if kernel is not None:
        flags = flags | {"kernel_size": len(kernel)}
    config = resolve(optimization.sources(**flags), known_kernel=kernel is not None)
    path = init_file(config.init)
    known = (kernel, read_kernel(path) if path else None)
    # all input errors that do not need the pixels appear before the first image is restored
    sizes, errors = _sizes(images, out, config)
    if not sizes:
        raise ValueError("; ".join(errors))
    run = _Run(make_folder(out), config, known, kernel_path, resume, overwrite, compute, errors)
    for line in errors:
        print_error(with_flags(line))
    batch = compute.batch or (1 if jax.default_backend() == "cpu" else 8) * jax.local_device_count()
    with interruptible() as interrupt:
        for group in group_by(local_share(list(sizes)), lambda path: sizes[path]):
            for paths in batches(group, batch):
                jobs = run.prepare(paths, interrupt)
                for same in group_by(jobs, lambda job: batch_key(job.prepared)):
                    run.restore(same, interrupt)
    # a process that leaves ends the run of the others, whose checkpoints lie in the same folder
    wait_for_all("images")
    if jax.process_index() == 0:
        shutil.rmtree(out / ".jbid", ignore_errors=True)
    return 2 if errors else 0


def _sizes(images: Sequence[str], out: Path, config: Config) -> tuple[dict[Path, tuple[int, int]], list[str]]:
    """Rows and columns of each usable image, and error messages."""
    from jbid.io.images import image_size
    from jbid.pipeline.prepare import check_deconvolve, check_size

    paths, errors = list_inputs(images, out, *SUFFIXES)
    sizes: dict[Path, tuple[int, int]] = {}
    for path in paths:
        try:
            width, height = image_size(path)
            check_size((height, width), config.kernel_size)
            check_deconvolve(config, (height, width))
            sizes[path] = (height, width)
        except (ValueError, OSError) as error:
            errors.append(about(path, error))
    return sizes, errors


class _Run:
    """The run of one command: settings, results and errors."""

    def __init__(
        self,
        out: Path,
        config: Config,
        known: tuple[NDArray | None, NDArray | None],
        kernel_path: Path | None,
        resume: bool,
        overwrite: bool,
        compute: ComputeOptions,
        errors: list[str],
    ):
        self.out, self.config, self.known, self.kernel_path = out, config, known, kernel_path
        self.resume, self.overwrite, self.compute, self.errors = resume, overwrite, compute, errors

    def _fail(self, path: Path, error: BaseException | str) -> None:
        self.errors.append(about(path, error))
        print_error(with_flags(self.errors[-1]))

    def prepare(self, paths: Sequence[Path], interrupt: Interrupt) -> list[_Job]:
        """Images that are not restored yet, prepared."""
        from jbid.pipeline.prepare import prepare
        from jbid.runtime.compile import clear_programs

        jobs = []
        for path in paths:
            # each image size has programs of its own
            clear_programs()
            try:
                photo, identity = self._read(path)
                if identity is not None:
                    with stage_line(path.stem, interrupt) as on_stage:
                        known, alpha = self.known[0], photo.alpha
                        prepared = prepare(photo.image, self.config, kernel=known, alpha=alpha, on_stage=on_stage)
                    jobs.append(_Job(path, photo._replace(image=prepared.image[:0]), prepared, identity))
            except (ValueError, OSError, MemoryError) as error:
                self._fail(path, error)
            interrupt.check()
        return jobs

    def _read(self, path: Path) -> tuple[Photo, str | None]:
        """The photo, and the identity of its run; None if it is restored already."""
        from jbid.io.files import read_json
        from jbid.io.images import read_photo
        from jbid.pipeline.resume import run_identity

        photo = read_photo(path)
        identity = run_identity(self.config, photo.image, photo.alpha, *self.known)
        report = read_json(self.out / f"{path.stem}.json") if self.resume else {}
        if not report.get("complete"):
            return photo, identity
        if report.get("identity") == identity:
            print(f"{path.stem}: already complete, skipped")
            return photo, None
        if self.overwrite:
            return photo, identity
        raise ValueError(
            f"{self.out / path.stem}.json: result of other settings or another image. Add `overwrite` to replace it."
        )

    def restore(self, jobs: Sequence[_Job], interrupt: Interrupt) -> None:
        """Restore prepared images of one shape and kernel size, and write the results."""
        from jbid.pipeline.launch import launch
        from jbid.pipeline.resume import fingerprint

        first = jobs[0].path.stem
        folder = self.out / ".jbid" / fingerprint([job.identity for job in jobs])
        try:
            restorations = launch(
                [job.prepared for job in jobs],
                self.config,
                name=first if len(jobs) == 1 else f"{first} and {len(jobs) - 1} more",
                folder=folder,
                resume=self.resume,
                seconds=self.compute.checkpoint_every,
                interrupt=interrupt,
                memory=self.compute.memory,
            )
        except ValueError as error:
            # a size that the method's networks cannot make
            for job in jobs:
                self._fail(job.path, error)
            return
        for job, restoration in zip(jobs, restorations):
            self._write(job, restoration)
        if all(restoration.is_complete for restoration in restorations):
            shutil.rmtree(folder, ignore_errors=True)
        interrupt.check()

    def _write(self, job: _Job, restoration: Restoration) -> None:
        from jbid.runtime.environment import versions_and_device

        path = job.path
        report: dict[str, Any] = {"input": path.name, "notes": list(job.photo.notes), **versions_and_device()}
        report["known_kernel"] = self.kernel_path.name if self.kernel_path else None
        report |= {"complete": restoration.is_complete, "identity": job.identity}
        is_float = self.config.highlights == "keep"
        suffix = ".tif" if is_float else output_suffix(path)
        photo = job.photo._replace(bits=32) if is_float else job.photo
        sharp = restoration.save(self.out, path.stem, photo=photo, suffix=suffix, report=report)
        for note in job.photo.notes:
            print(f"{path.stem}: {note}")
        if self.config.n_seeds > 1:
            print(candidate_table(restoration.candidates))
        for warning in restoration.warnings:
            print_warning(with_flags(f"{path.name}: {warning}"))
        steps = f", {len(restoration.losses)} steps" if self.config.is_optimized else ""
        rows, columns = restoration.prepared.kernel_shape
        size = "left as it is" if restoration.chosen == "no blur" else f"kernel {columns}x{rows}{steps}"
        sure = "" if restoration.confidence is None else f", confidence {restoration.confidence:.0%}"
        print(f"{path.stem}: {size}, {restoration.seconds:.0f} s, {restoration.chosen}{sure} -> {sharp}")


def candidate_table(candidates: Sequence[Candidate]) -> str:
    """Candidates with their scores, the chosen one first."""
    from tabulate import tabulate

    rows = [
        [c.name, c.failure or round(c.terms.score, 2), c.loss, c.terms.whiteness, c.terms.flatness] for c in candidates
    ]
    headers = ["candidate", "score (lower is better)", "loss", "whiteness", "flatness"]
    return tabulate(rows, headers, floatfmt=".5g")
