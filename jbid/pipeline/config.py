"""Run configuration: presets, TOML files, command line and keyword arguments resolved into one record."""

from __future__ import annotations

import difflib
import inspect
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

from beartype import BeartypeConf
from beartype.door import is_bearable

from jbid import methods
from jbid.methods import MethodSpec
from jbid.pipeline.renamed import modernize

# initial kernels by name, besides "random" and the file of a kernel
INITS = ("uniform", "edges", "learned")
# those that are estimates of the kernel, and so are candidates for the answer
ESTIMATES = ("edges", "learned")


class Config(NamedTuple):
    """A resolved run.

    Attributes:
        method: one of `jbid.methods.names()`.
        preset: "quick" or "paper".
        kernel_size: odd side in pixels; "auto": found from the image; "half": half the image in each direction.
        init: initial kernel: "random", one or several of `INITS` joined by a plus, which alternate over the seeds, or
            the path of a kernel.
        patch: side in pixels of the part that the kernel is estimated from; 0: the whole image.
        region: x, y, width and height of that part, if the user chose it.
        n_seeds: number of random seeds that run in parallel; the best-scoring result is the answer.
        seed: first random seed.
        steps: optimization steps; 0 for the method "edges".
        color: "luma" estimates from brightness alone, "rgb" from all channels.
        deconvolve: deconvolve with the kernel at the end, "sparse" or "learned", see `jbid.deconvolve`; "auto": unless
            noise is very high and the method stops early. Otherwise the network's own image is the answer.
        remove_impulses: pixels with impulse noise are replaced before the method sees them.
        linear: the image is sRGB and is restored in linear light.
        highlights: of lights that are restored to more than white: see `jbid.deblur`.
        min_confidence: probability of a gain below which the answer is the image itself; 0: always deblurred.
        options: keywords of the method's builder, complete except for kernel_size and out_channels.
    """

    method: str = "edges"
    preset: Literal["quick", "paper"] = "quick"
    kernel_size: int | Literal["auto", "half"] = "auto"
    init: str = "edges"
    patch: int = 0
    region: tuple[int, int, int, int] | None = None
    n_seeds: int = 1
    seed: int = 0
    steps: int = 0
    color: Literal["luma", "rgb"] = "luma"
    deconvolve: bool | Literal["auto", "sparse", "learned"] = "auto"
    remove_impulses: bool = True
    linear: bool = False
    highlights: Literal["clip", "compress", "keep"] = "clip"
    min_confidence: float = 0.4
    options: dict[str, Any] = {}

    @property
    def spec(self) -> MethodSpec:
        """Declaration of the method."""
        return methods.get(self.method)

    @property
    def is_optimized(self) -> bool:
        """True if the method optimizes networks, False for "edges"."""
        return self.spec.build is not None


def init_names(init: str) -> list[str]:
    """Names in an `init` such as "edges" or "edges+learned"; empty for "random" and for a file."""
    names = init.split("+")
    return names if set(names) <= set(INITS) and len(set(names)) == len(names) else []


_Record = TypeVar("_Record")


def record(kind: Callable[..., _Record], values: Mapping[str, Any], source: str) -> _Record:
    """A NamedTuple of class `kind` from keys and values, with its defaults for the rest.

    Raises:
        ValueError: for an unknown key, with the nearest known one, or a value of a wrong type; the message begins with
            the source.
    """
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            _reject(name, hints, source)
        _check(name, value, hints[name], source)
    return kind(**values)


def _prefix(source: str) -> str:
    return f"{source}: " if source else ""


def _reject(name: str, known: Iterable[str], source: str) -> NoReturn:
    near = difflib.get_close_matches(name, list(known), 1, 0.0)[0]
    raise ValueError(f"{_prefix(source)}unknown option {name!r}. The nearest known one is {near!r}.")


_NOT_OPTIONS = ("kernel_size", "out_channels", "kernel", "steps")
_HINTS = {name: hint for name, hint in typing.get_type_hints(Config).items() if name != "options"}


def _check(name: str, value: Any, hint: Any, source: str) -> None:
    if not is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True)):
        expected = str(getattr(hint, "__name__", hint)).replace("typing.", "").replace("collections.abc.", "")
        if typing.get_origin(hint) is Literal:
            expected = f"one of {', '.join(map(str, typing.get_args(hint)))}"
        raise ValueError(f"{_prefix(source)}`{name}` must be {expected}, got {value!r}")


def read_config(path: str | Path) -> dict[str, Any]:
    """Keys and values of a TOML file.

    Raises:
        ValueError: for a file that is missing or malformed.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as TOML: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """Key and value of `key=value` with a TOML value; any other value is a string.

    Raises:
        ValueError: for a text without a key or an equals sign.
    """
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ValueError(f"`set` must be key=value, such as channels=64, got {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


Sources = Sequence[tuple[str, Mapping[str, Any]]]


def resolve(sources: Iterable[tuple[str, Mapping[str, Any]]], *, known_kernel: bool = False) -> Config:
    """Configuration from several sources, later ones winning; the preset comes before all of them.

    Without a method, a preset means "selfdeblur" and everything else "edges".

    Args:
        sources: pairs of a name, for messages, and keys with values. A key is a field of `Config` or an option of the
            method. Names of earlier versions are accepted with a FutureWarning.
        known_kernel: apply the method's settings for a known kernel after the preset.

    Raises:
        ValueError: for an unknown key, with the nearest known one, a value of the wrong type, and whatever the method
            refuses.
    """
    sources = [(source, modernize(values, source)) for source, values in sources]
    spec, preset = _chosen_method(sources)
    options, hints = _defaults(spec)
    base: dict[str, Any] = {"method": spec.name, "preset": preset}
    layers: list[tuple[str, Mapping[str, Any]]] = [("preset", spec.presets[preset])]
    if known_kernel:
        layers.append(("known kernel", spec.non_blind))
    for source, values in [*layers, *sources]:
        for name, value in values.items():
            if name in ("method", "preset"):
                continue
            if name in _HINTS:
                _check(name, value, _HINTS[name], source)
                base[name] = value
            elif name in hints:
                _check(name, value, hints[name], source)
                options[name] = value
            else:
                _reject_option(name, spec, hints, source)
    is_explicit = any("kernel_hold" in values for _, values in sources)
    config = _limit_warm_up(Config(**base, options=options), is_explicit)
    _check_numbers(config)
    _check_method(config, known_kernel)
    return config


def _chosen_method(sources: Sources) -> tuple[MethodSpec, str]:
    chosen: dict[str, str] = {}
    for source, values in sources:
        for name, choices in (("method", methods.names()), ("preset", methods.PRESETS)):
            if name in values:
                if values[name] not in choices:
                    raise ValueError(
                        f"{_prefix(source)}`{name}` must be one of {', '.join(choices)}, got {values[name]!r}"
                    )
                chosen[name] = values[name]
    spec = methods.get(chosen.get("method", "selfdeblur" if "preset" in chosen else Config().method))
    preset = chosen.get("preset", Config().preset)
    if preset not in spec.presets:
        raise ValueError(f"`preset` must be one of {', '.join(spec.presets)} for {spec.name}, got {preset!r}")
    return spec, preset


def _defaults(spec: MethodSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a method's builder with their defaults, and their types."""
    if spec.build is None:
        return {}, {}
    parameters = inspect.signature(spec.build).parameters
    hints = {k: v for k, v in typing.get_type_hints(spec.build).items() if k in parameters and k not in _NOT_OPTIONS}
    return {name: parameters[name].default for name in hints}, hints


def _reject_option(name: str, spec: MethodSpec, hints: Mapping[str, Any], source: str) -> NoReturn:
    owners = [other for other in methods.names() if name in _defaults(methods.get(other))[1]]
    if owners:
        raise ValueError(
            f"{_prefix(source)}{name!r} is no option of the method {spec.name}, but of {', '.join(owners)}. "
            "Choose one of these as `method`."
        )
    _reject(name, [*_HINTS, *hints], source)


def _limit_warm_up(config: Config, is_explicit: bool) -> Config:
    """The configuration with a warm-up of the kernel that suits initial kernel and steps."""
    options = dict(config.options)
    if config.init == "random" and "kernel_hold" in options:
        # a random kernel is no estimate to be kept
        options["kernel_hold"] = 0
    if 0 < config.steps <= options.get("kernel_hold", 0) and not is_explicit:
        # otherwise the kernel would never move, and all seeds would end with the initial one
        options["kernel_hold"] = config.steps // 3
    return config._replace(options=options)


def _check_numbers(config: Config) -> None:
    if not config.is_optimized:
        _check_edges(config)
    least_values = (("n_seeds", 1), ("steps", 1 if config.is_optimized else 0), ("seed", 0), ("patch", 0))
    for name, least in least_values:
        if getattr(config, name) < least:
            raise ValueError(f"`{name}` must be at least {least}, got {getattr(config, name)}")
    if not 0 <= config.min_confidence <= 1:
        raise ValueError(f"`min_confidence` must be 0 to 1, got {config.min_confidence}")
    n_inits = len(init_names(config.init))
    if config.n_seeds < n_inits:
        raise ValueError(f"`n_seeds` must be at least {n_inits}, one for each of `init` = {config.init}")
    if config.region is not None and (min(config.region[:2]) < 0 or min(config.region[2:]) < 1):
        raise ValueError(f"`region` must be x, y, width, height in pixels within the image, got {config.region}")


def _check_edges(config: Config) -> None:
    """Raise ValueError for settings of an optimization that this method does not run."""
    names = init_names(config.init)
    conflicts = {
        "steps": config.steps > 0,
        "n_seeds": config.n_seeds > 1,
        "deconvolve": config.deconvolve is False,
        "init": len(names) != 1 or names[0] not in ESTIMATES,
    }
    for name, is_conflict in conflicts.items():
        if is_conflict:
            raise ValueError(
                f"`{name}` = {getattr(config, name)} does not apply to the method {config.method}, which runs no "
                "optimization. Choose another `method`, such as selfdeblur."
            )


def _check_method(config: Config, known_kernel: bool) -> None:
    """Raise ValueError for whatever the method's builder refuses."""
    from jbid.engine.generators import kernel_shape
    from jbid.ops.kernels import delta_kernel

    side, _ = kernel_shape(31 if isinstance(config.kernel_size, str) else config.kernel_size)
    if not config.is_optimized:
        return
    if known_kernel:
        build(config, side, 1, delta_kernel((side, side)))
    else:
        build(config, config.spec.fitting_size(config.options, side), 1)


def build(config: Config, kernel_size: int | tuple[int, int], out_channels: int, kernel: Any = None) -> Any:
    """The configured method for a kernel of this size.

    Raises:
        ValueError: for options that the method refuses, and for a method without an optimization.
    """
    if config.spec.build is None:
        raise ValueError(f"the method {config.method} has no optimization to build")
    return config.spec.build(
        kernel_size, steps=config.steps, out_channels=out_channels, kernel=kernel, **config.options
    )
