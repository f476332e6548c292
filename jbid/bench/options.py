"""Configurations of the benchmarks: one frozen dataclass for each command, whose fields are its options.

Nothing here imports JAX. Options that are None follow from the preset, or from what a field's text says.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from jbid.runtime.commandline import (
    MAIN,
    RESEARCH,
    Assignments,
    Deconvolve,
    JsonFile,
    KernelSize,
    Memory,
    Positive,
    Seconds,
    SetKernelSize,
    Words,
)

if TYPE_CHECKING:
    from jbid.pipeline.config import Config

# names that the commands offer; the tests compare them with the modules that define them
SetName = Literal["levin", "lai"]
ProtocolName = Literal["sd_matlab", "sd_fullrange", "gain_aligned", "rgb_aligned", "rgb_raw"]
KernelModel = Literal["mixed", "camera", "trajectory", "gaussian_process"]
INITS = ("random", "average", "edges", "learned", "perturbed")
# levels of Zhuang et al., section 4.2.2, and without blur those of section 4.2.3
NOISES = ("gaussian:0.001", "gaussian:0.05", "impulse:0.005", "impulse:0.08", "shot:90", "shot:25")
NOISES_WITHOUT_BLUR = ("gaussian:0.1", "impulse:0.08", "shot:40")

Subset = Annotated[Words, Parameter(group=MAIN, help="Groups to run on, such as kernel4 (levin) or text (lai).")]
MaxShift = Annotated[int, Parameter(group=RESEARCH, help="Largest shift before scoring, in pixels.")]
_Several = Parameter(consume_multiple=True, show_default=False)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every benchmark that restores images."""

    data: Annotated[Path | None, Parameter(group=MAIN)] = None
    """Folder of the images (default: the set's folder in $JBID_DATA)."""
    out: Annotated[JsonFile | None, Parameter(group=MAIN)] = None
    """Report, FILE.json; images go to a folder of this name without the suffix."""
    resume: Annotated[bool, Parameter(group=MAIN)] = False
    """Keep the results of an earlier run with the same settings."""
    overwrite: Annotated[bool, Parameter(group=MAIN)] = False
    """When resuming, replace results of other settings."""
    limit: Annotated[Positive | None, Parameter(group=MAIN)] = None
    """Run on the first N images only."""
    only: Annotated[Words, Parameter(group=MAIN)] = ()
    """Run on these images only, by their file names."""
    tensorboard: Annotated[Path | None, Parameter(group=MAIN)] = None
    """Folder for losses, scores and images as TensorBoard events."""
    checkpoint_every: Annotated[Seconds, Parameter(group=RESEARCH)] = 30.0
    """Seconds between two checkpoints, from which an interrupted run resumes."""
    memory: Annotated[Memory | None, Parameter(group=RESEARCH)] = None
    """Memory limit per device, such as 6GiB (default: what is free)."""
    distributed: Annotated[str | None, Parameter(group=RESEARCH)] = None
    """Run as process I of N with the coordinator at HOST:PORT, as HOST:PORT,N,I; without a value: TPU pod or Slurm."""


@dataclass(frozen=True, kw_only=True)
class PresetOptions:
    """Options of a method's run that every benchmark takes."""

    preset: Annotated[str | None, Parameter(group=MAIN)] = None
    """quick (about a minute per image) or paper (published settings, for a GPU)."""
    n_seeds: Annotated[Positive | None, Parameter(name="--seeds", group=MAIN)] = None
    """Random seeds that run in parallel."""
    seed: Annotated[int | None, Parameter(group=RESEARCH)] = None
    """First random seed (default: 0)."""
    steps: Annotated[int | None, Parameter(group=RESEARCH)] = None
    """Optimization steps."""
    patch: Annotated[int | None, Parameter(group=RESEARCH)] = None
    """Estimate from the most informative N x N pixels; 0: from the whole image."""
    config: Annotated[Path | None, Parameter(group=RESEARCH)] = None
    """TOML file with options, see configs/."""
    set: Annotated[Assignments, Parameter(group=RESEARCH)] = ()
    """One option of the method, as KEY=VALUE, such as channels=64; may be repeated."""

    def sources(self, **chosen: Any) -> list[tuple[str, dict[str, Any]]]:
        """Sources for `jbid.pipeline.config.resolve`: the file, `set`, the other options, `chosen`.

        Raises:
            ValueError: for a configuration file or an assignment that cannot be read.
        """
        from jbid.pipeline.config import parse_assignment, read_config

        sources = [(str(self.config), read_config(self.config))] if self.config else []
        sources += [("set", dict([parse_assignment(text)])) for text in self.set]
        names = ("method", "preset", "init", "kernel_size", "n_seeds", "seed", "steps", "patch", "deconvolve")
        values = {name: getattr(self, name, None) for name in names} | chosen
        return [*sources, ("", {name: value for name, value in values.items() if value is not None})]

    def resolve(self, *, defaults: Mapping[str, Any] | None = None, **chosen: Any) -> Config:
        """Configuration of the run.

        Args:
            defaults: come after the preset and before the options.
            **chosen: come last; None leaves the option as it is.

        Raises:
            ValueError: for unknown names and values that the method refuses.
        """
        from jbid.pipeline.config import resolve

        sources = self.sources(**chosen)
        config = resolve([("defaults", defaults or {}), *sources])
        if config.is_optimized and not any("min_confidence" in values for _, values in sources):
            return config._replace(min_confidence=0.0)  # to show the network's answer in any case
        return config

    def reject_fixed(self, replacements: Mapping[str, str]) -> None:
        """Refuse values for what a benchmark varies itself, given in the file or in `set`.

        Args:
            replacements: by name, the option to use instead; empty if there is none.

        Raises:
            ValueError: for such a value.
        """
        from jbid.pipeline.renamed import modernize

        for source, values in self.sources():
            prefix = f"{source}: " if source else ""
            if values.get("preset") == "instant":
                raise ValueError(f"{prefix}`preset` must be quick or paper here, got instant")
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                values = modernize(values, source)
            for name, replacement in replacements.items():
                if name in values:
                    hint = f" Set `{replacement}` instead." if replacement else ""
                    raise ValueError(f"{prefix}{name} does not apply to this benchmark, which varies it.{hint}")


@dataclass(frozen=True, kw_only=True)
class MethodOptions(PresetOptions):
    """Options of one method's run."""

    method: Annotated[str | None, Parameter(group=MAIN)] = None
    """edges (default), selfdeblur (default if there is a preset), gkpile, explore or robust."""
    init: Annotated[str | None, Parameter(group=RESEARCH)] = None
    """Initial kernel: edges, learned, uniform, random or an image file; join with + to alternate over seeds."""
    deconvolve: Deconvolve = None


@dataclass(frozen=True, kw_only=True)
class BatchOptions(RunOptions):
    """Options of the benchmarks that restore several images in one batch."""

    batch: Annotated[Positive | None, Parameter(group=RESEARCH)] = None
    """Images of one size per batch (default: 1 on CPU, else 4 per device)."""


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Options of the scores against the ground truth."""

    protocol: Annotated[tuple[ProtocolName, ...], Parameter(group=MAIN), _Several] = ("sd_matlab",)
    """Scoring protocols; the first one leads (default: sd_matlab)."""
    maxshift: MaxShift = 10
    full: Annotated[bool | None, Parameter(group=RESEARCH, negative="--no-full")] = None
    """Add error ratio, VIF and the scores of the true kernel (default: yes, except for existing results of lai)."""
    lpips: Annotated[Path | None, Parameter(group=RESEARCH)] = None
    """Add LPIPS with torchvision's weights alexnet-owt-7be5be79.pth."""
    each_seed: Annotated[bool, Parameter(group=RESEARCH)] = False
    """Score all candidates, for the regret of the selection."""


@dataclass(frozen=True, kw_only=True)
class TableConfig(ScoringOptions, MethodOptions, BatchOptions):
    """Configuration of `levin` and `lai`."""

    set_name: Annotated[str, Parameter(parse=False)] = "levin"
    kernel_size: Annotated[SetKernelSize | None, Parameter(group=MAIN)] = None
    """auto (default), half, an odd number of pixels, or published: that of each kernel's publication."""
    score: Annotated[Path | None, Parameter(group=MAIN)] = None
    """Score the files <name>_x.png or <name>.png (and <name>_k.png) of this folder instead of restoring."""
    subset: Subset = ()
    scale: Annotated[float, Parameter(group=RESEARCH)] = 1.0
    """Shrink images and kernels first, such as 0.5."""


@dataclass(frozen=True, kw_only=True)
class LaiConfig(TableConfig):
    """Configuration of `lai`, some of whose blurred images are brighter than their ground truth."""

    set_name: Annotated[str, Parameter(parse=False)] = "lai"
    protocol: Annotated[tuple[ProtocolName, ...], Parameter(group=MAIN), _Several] = ("sd_matlab", "gain_aligned")
    """Scoring protocols; the first one leads (default: sd_matlab gain_aligned)."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(TableConfig):
    """Configuration of `synthetic`."""

    set_name: Annotated[str, Parameter(parse=False)] = "synthetic"
    sizes: Annotated[tuple[int, ...], Parameter(group=MAIN), _Several] = (31,)
    """Odd sizes of the simulated kernels (default: 31)."""
    kernels: Annotated[int, Parameter(group=MAIN)] = 1
    """Kernels for each photo and size."""
    model: Annotated[KernelModel, Parameter(group=MAIN)] = "mixed"
    """Model of the kernels; mixed: mostly camera."""
    noise: Annotated[str | None, Parameter(group=MAIN)] = None
    """Noise as MODEL:LEVEL, such as gaussian:0.01 (default: rounding to 8 bits alone)."""
    crop: Annotated[int, Parameter(group=MAIN)] = 256
    """Side of the center of each photo, in pixels."""
    data_seed: Annotated[int, Parameter(group=RESEARCH)] = 0
    """Random seed of kernels and noise."""


@dataclass(frozen=True, kw_only=True)
class RealConfig(MethodOptions, BatchOptions):
    """Configuration of `real`."""

    kernel_size: Annotated[KernelSize | None, Parameter(group=MAIN)] = None
    """auto (default), half or an odd number of pixels."""


@dataclass(frozen=True, kw_only=True)
class ConditionsConfig(ScoringOptions, PresetOptions, BatchOptions):
    """Configuration of `oversize`, `noise` and `noise-only`: options that they share."""

    name: Annotated[str, Parameter(parse=False)] = ""
    set_name: Annotated[SetName, Parameter(group=MAIN)] = "levin"
    """Image set."""
    methods: Annotated[Words, Parameter(group=MAIN)] = ("robust", "selfdeblur")
    """Methods to compare (default: robust selfdeblur)."""
    deconvolve: Deconvolve = None
    init: Annotated[str | None, Parameter(group=RESEARCH)] = None
    """Initial kernel: edges, learned, uniform, random or an image file; join with + to alternate over seeds."""


@dataclass(frozen=True, kw_only=True)
class OversizeConfig(ConditionsConfig):
    """Configuration of `oversize`."""

    name: Annotated[str, Parameter(parse=False)] = "oversize"
    levels: Annotated[tuple[int, ...], Parameter(group=MAIN), _Several] = (1, 2, 3, 4, 5)
    """Kernel sizes, from 1, the true size, to 5, half the image (default: 1 2 3 4 5)."""
    noise: Annotated[str | None, Parameter(group=MAIN)] = None
    """Noise as MODEL:LEVEL, such as gaussian:0.05 (default: none)."""


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(ConditionsConfig):
    """Configuration of `noise`."""

    name: Annotated[str, Parameter(parse=False)] = "noise"
    noises: Annotated[Words, Parameter(group=MAIN)] = NOISES
    """Noise as MODEL:LEVEL (default: six conditions of Zhuang et al.)."""
    kernel_size: Annotated[KernelSize | None, Parameter(group=MAIN)] = None
    """auto (default), half or an odd number of pixels."""
    size_level: Annotated[Literal[1, 2, 3, 4, 5] | None, Parameter(group=MAIN)] = None
    """Kernel size of this level of oversize, instead of a number of pixels."""


@dataclass(frozen=True, kw_only=True)
class NoiseOnlyConfig(NoiseConfig):
    """Configuration of `noise-only`."""

    name: Annotated[str, Parameter(parse=False)] = "noise-only"
    methods: Annotated[Words, Parameter(group=MAIN)] = ("robust", "selfdeblur", "dip")
    """Methods to compare; dip: the image network alone (default: robust selfdeblur dip)."""
    noises: Annotated[Words, Parameter(group=MAIN)] = NOISES_WITHOUT_BLUR
    """Noise as MODEL:LEVEL (default: gaussian:0.1 impulse:0.08 shot:40)."""


@dataclass(frozen=True, kw_only=True)
class VarianceConfig(PresetOptions, RunOptions):
    """Configuration of `variance`."""

    set_name: Annotated[SetName, Parameter(group=MAIN)] = "levin"
    """Image set."""
    methods: Annotated[Words, Parameter(group=MAIN)] = ("selfdeblur",)
    """Methods to compare (default: selfdeblur). edges: samples of the edge-based estimate, at a reduced scale."""
    inits: Annotated[Words, Parameter(group=MAIN)] = INITS[:4]
    """Initial kernels: random, average (of simulated kernels), edges, learned (default: these four) or perturbed."""
    subset: Subset = ()
    perturb: Annotated[float, Parameter(group=RESEARCH)] = 0.3
    """Share of a simulated kernel, another one for each seed, in the perturbed learned one."""
    crop: Annotated[int | None, Parameter(group=MAIN)] = None
    """Center of each image, N x N pixels (default: the whole image)."""
    kernel_size: Annotated[KernelSize | None, Parameter(group=MAIN)] = None
    """auto (default), half or an odd number of pixels."""
    protocol: Annotated[ProtocolName, Parameter(group=MAIN)] = "sd_matlab"
    """Scoring protocol."""
    maxshift: MaxShift = 10
