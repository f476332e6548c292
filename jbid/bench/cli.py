"""`python -m jbid.bench`: command line of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import Parameter

from jbid.bench.options import (
    LaiConfig,
    NoiseConfig,
    NoiseOnlyConfig,
    OversizeConfig,
    RealConfig,
    SetName,
    SyntheticConfig,
    TableConfig,
    VarianceConfig,
)
from jbid.runtime import commandline
from jbid.runtime.commandline import INTERRUPTED, create_app, execute
from jbid.runtime.console import RESUME_HINT, print_note

RENAMED = {**commandline.RENAMED, "--starts": "--inits"}
FLAT = Parameter(name="*")

app = create_app("python -m jbid.bench", "Benchmarks on published data sets, synthetic and real images.")


def _run(module: str, config: Any) -> int:
    """Run a benchmark's module, which imports JAX."""

    def command():
        code = import_module(f"jbid.bench.{module}").run(config)
        if code == INTERRUPTED:
            print(RESUME_HINT)
        return code

    return execute(command, config.distributed, hint=RESUME_HINT)


@app.command
def levin(config: Annotated[TableConfig | None, FLAT] = None) -> int:
    """Restore and score the 32 images of Levin et al. 2009."""
    return _run("table", config or TableConfig())


@app.command
def lai(config: Annotated[LaiConfig | None, FLAT] = None) -> int:
    """Restore and score the 100 uniformly blurred images of Lai et al. 2016."""
    return _run("table", config or LaiConfig())


@app.command
def synthetic(config: Annotated[SyntheticConfig | None, FLAT] = None) -> int:
    """Restore and score sharp photos blurred by simulated kernels."""
    return _run("table", config or SyntheticConfig())


@app.command
def real(config: Annotated[RealConfig | None, FLAT] = None) -> int:
    """Restore real blurred photos: images to look at and no-reference scores."""
    return _run("real", config or RealConfig())


@app.command
def oversize(config: Annotated[OversizeConfig | None, FLAT] = None) -> int:
    """Compare methods on kernel sizes given too large, up to half the image."""
    return _run("conditions", config or OversizeConfig())


@app.command
def noise(config: Annotated[NoiseConfig | None, FLAT] = None) -> int:
    """Compare methods on blurred images with noise."""
    return _run("conditions", config or NoiseConfig())


@app.command
def noise_only(config: Annotated[NoiseOnlyConfig | None, FLAT] = None) -> int:
    """Compare methods on images with noise and without blur."""
    return _run("conditions", config or NoiseOnlyConfig())


@app.command
def variance(config: Annotated[VarianceConfig | None, FLAT] = None) -> int:
    """Compare many random seeds of each initial kernel: PSNR, loss, kernels, and the regret of the selection.

    The default is 32 seeds on the first image.
    """
    config = config or VarianceConfig()
    if "encoder" in config.inits:
        print_note("the initial kernel 'encoder' is now 'learned'; the old name will be removed in the next version")
        inits = tuple("learned" if name == "encoder" else name for name in config.inits)
        config = replace(config, inits=inits)
    return _run("variance", config)


@app.command
def check(*sets: SetName, data: Path | None = None) -> int:
    """Compare the files of the data sets with the checksums of those behind the published scores.

    Args:
        sets: levin or lai (default: both).
        data: Folder that holds the sets' folders (default: $JBID_DATA).
    """
    from jbid.bench import check

    return check.run(sets or get_args(SetName), data)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark: 0; 2 for bad input, after one line on stderr; 130 after Ctrl-C."""
    return commandline.run(app, argv, RENAMED)
