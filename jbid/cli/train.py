"""`jbid pretrain`: train a method's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jbid.pretrain import NETWORKS
from jbid.runtime.commandline import INTERRUPTED, MAIN, Assignments, Count, Seconds, execute
from jbid.runtime.console import RESUME_HINT


def pretrain(
    network: Annotated[str, Parameter(name="NETWORK")],
    /,
    *,
    config: Annotated[Path, Parameter(group=MAIN)],
    workdir: Annotated[Path, Parameter(group=MAIN)],
    set: Annotated[Assignments, Parameter(group=MAIN)] = (),
    resume: Annotated[bool, Parameter(group=MAIN)] = False,
    export: Annotated[Path | None, Parameter(group=MAIN)] = None,
    checkpoint_every: Seconds = 60.0,
    measure_every: Count = 500,
) -> int:
    """Train a network on simulated blur. Kernels and blurred images are generated on the fly.

    Example: jbid pretrain generator --config configs/pretrain/gkpile_generator_31_cpu.toml --workdir work

    Parameters
    ----------
    network
        generator or initializer (of gkpile), operator or lines (of explore), or deconvolver.
    config
        TOML file with settings, see configs/pretrain/.
    workdir
        Folder for metrics, samples, checkpoint and weights.
    set
        One setting, as KEY=VALUE, such as steps=100; may be repeated.
    resume
        Continue an interrupted training with the same arguments.
    export
        Add the weights to this folder too.
    checkpoint_every
        Seconds between two checkpoints.
    measure_every
        Steps between two measurements and samples.
    """
    if network not in NETWORKS:
        raise ValueError(f"the network must be one of {', '.join(NETWORKS)}, got {network}")
    return execute(lambda: _pretrain(network, config, workdir, set, resume, export, checkpoint_every, measure_every))


def _without_folders(value: Any) -> Any:
    """A setting for the manifest of shipped weights, which names no folder of the machine that trained them."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _pretrain(
    network: str,
    path: Path,
    workdir: Path,
    assignments: tuple[str, ...],
    resume: bool,
    export: Path | None,
    checkpoint_every: float,
    measure_every: int,
) -> int:
    from jbid import pretrain
    from jbid.io.files import make_folder
    from jbid.pipeline.config import parse_assignment, read_config, record
    from jbid.pretrain import loop
    from jbid.runtime.console import interruptible, step_bar
    from jbid.runtime.environment import source_commit, versions_and_device

    module = pretrain.get(network)
    values = read_config(path)
    changes = dict(parse_assignment(text) for text in assignments)
    for source, part in ((str(path), values), ("--set", changes)):
        record(module.Config, part, source)
    config = module.Config(**(values | changes))
    folder = make_folder(workdir)
    training = module.training(config, folder)
    shown = f"{path.parent.name}/{path.name}" if path.is_absolute() else path
    options = "".join(f" --set {name}={_without_folders(value)}" for name, value in changes.items())
    about = {
        "settings": {name: _without_folders(value) for name, value in config._asdict().items()},
        "command": f"jbid pretrain {network} --config {shown}{options}",
        "commit": source_commit(),
        **versions_and_device(),
    }
    with interruptible() as interrupt, step_bar(training.name, config.steps) as on_progress:
        is_complete = loop.train(
            training,
            config.steps,
            folder,
            seed=config.seed,
            resume=resume,
            seconds=checkpoint_every,
            every=measure_every,
            settings=config._asdict(),
            about=about,
            on_progress=on_progress,
            is_cancelled=interrupt.is_set,
        )
    if not is_complete:
        print(RESUME_HINT)
        return INTERRUPTED
    print(f"{training.name}: {config.steps} steps -> {folder / 'weights'}")
    if export:
        loop.export(folder / "weights", make_folder(export), training.name)
        print(f"added to {export}")
    return 0
