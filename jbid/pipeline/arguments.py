"""Command-line arguments of a run, which the commands and the benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jbid.runtime.commandline import RESEARCH, Assignments, Deconvolve, Memory, Positive, Seconds


@Parameter(name="*")
@dataclass(frozen=True)
class ComputeOptions:
    """Options about how a run computes; none of them changes its result."""

    checkpoint_every: Annotated[Seconds, Parameter(group=RESEARCH)] = 30.0
    """Seconds between two checkpoints for --resume."""
    memory: Annotated[Memory, Parameter(group=RESEARCH)] = None
    """Memory limit per device, such as 6GiB (default: what is free)."""
    batch: Annotated[Positive, Parameter(group=RESEARCH)] = None
    """Images of one size per batch (default: 1 on a CPU, 8 on each other device)."""
    distributed: Annotated[str | None, Parameter(group=RESEARCH)] = None
    """HOST:PORT,N,I: run as process I of N with the coordinator at HOST:PORT; no value: detect a TPU pod or Slurm."""


@Parameter(name="*")
@dataclass(frozen=True)
class OptimizationOptions:
    """Options of a method's run; those that are None follow from the preset."""

    preset: Annotated[str | None, Parameter(group=RESEARCH)] = None
    """quick (about a minute) or paper (published settings, for a GPU); implies --method selfdeblur without --method."""
    init: Annotated[str | None, Parameter(group=RESEARCH)] = None
    """Initial kernel: edges, learned, uniform, random or an image file; join with + to alternate over seeds."""
    steps: Annotated[int | None, Parameter(group=RESEARCH)] = None
    """Optimization steps."""
    seed: Annotated[int | None, Parameter(group=RESEARCH)] = None
    """First random seed (default: 0)."""
    patch: Annotated[int | None, Parameter(group=RESEARCH)] = None
    """Estimate from the most informative N x N pixels; 0: from the whole image."""
    deconvolve: Deconvolve = None
    config: Annotated[Path | None, Parameter(group=RESEARCH)] = None
    """TOML file with options, see configs/."""
    set: Annotated[Assignments, Parameter(group=RESEARCH)] = ()
    """One option of the method, as KEY=VALUE, such as channels=64; may be repeated."""

    def sources(self, **flags: Any) -> list[tuple[str, dict[str, Any]]]:
        """Sources for `jbid.pipeline.config.resolve`, in order: the file, --set, the flags that were given."""
        from jbid.pipeline.config import parse_assignment, read_config

        sources = [(str(self.config), read_config(self.config))] if self.config else []
        sources += [("--set", dict([parse_assignment(text)])) for text in self.set]
        names = ("preset", "init", "steps", "seed", "patch", "deconvolve")
        values = {name: getattr(self, name) for name in names} | flags
        return [*sources, ("", {name: value for name, value in values.items() if value is not None})]


# defaults of the parameters of commands
NO_OPTIMIZATION, NO_COMPUTE = OptimizationOptions(), ComputeOptions()
