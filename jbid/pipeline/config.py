"""What a run is asked to do: presets, configuration files and command-line options resolved into one record."""

from __future__ import annotations

import difflib
import inspect
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

from beartype import BeartypeConf
from beartype.door import is_bearable


class Config(NamedTuple):
    """A resolved run. `options` are keywords of the method's factory, complete but for kernel_size and out_channels.

    kernel_size: odd side in pixels; "auto": found from the picture; "half": half the picture in each direction.
    start: "random", one or several of `STARTS` joined by a plus, which the seeds take in turn, or the path of a kernel.
    steps: none for the preset "instant". patch: side in
    pixels of the part that the kernel is estimated from, 0 for the whole picture. region: x, y, width and height of
    that part, where the user chose it. finish: deconvolve with the kernel at the end; "auto": unless noise is very
    high and the method stops itself. clean: pixels hit by impulse noise are mended before the method sees them. linear:
    the picture is sRGB and is restored in linear light.
    """

    method: str = "selfdeblur"
    preset: Literal["instant", "quick", "paper"] = "quick"
    kernel_size: int | Literal["auto", "half"] = "auto"
    start: str = "edges"
    patch: int = 0
    region: tuple[int, int, int, int] | None = None
    seeds: int = 1
    seed: int = 0
    steps: int = 0  # 0: the preset's
    color: Literal["luma", "rgb"] = "luma"
    finish: bool | Literal["auto"] = "auto"
    clean: bool = True
    linear: bool = False
    options: dict[str, Any] = {}


# words that a start may be, besides "random" and the file of a kernel
INITS = ("uniform", "edges", "encoder")
# those that are estimates of the kernel, and so take part in the choice of the answer
ESTIMATES = ("edges", "encoder")


def init_names(start: str) -> list[str]:
    """The words in a start such as "edges" or "edges+encoder"; none for "random" and for a file."""
    words = start.split("+")
    return words if set(words) <= set(INITS) and len(set(words)) == len(words) else []


_Record = TypeVar("_Record")


def record(kind: Callable[..., _Record], values: Mapping[str, Any], source: str) -> _Record:
    """A NamedTuple of class `kind` from keys and values, its defaults for the rest.

    Raises ValueError that names the source for an unknown key (with the nearest known one) or a value of a wrong type.
    """
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            _unknown(name, hints, source)
        _check(name, value, hints[name], source)
    return kind(**values)


def _unknown(name: str, known: Iterable[str], source: str) -> NoReturn:
    near = difflib.get_close_matches(name, list(known), 1, 0.0)[0]
    raise ValueError(f"{source}: unknown option {name!r}; the nearest known one is {near!r}")


_NOT_OPTIONS = ("kernel_size", "out_channels", "kernel", "steps")
_HINTS = {name: hint for name, hint in typing.get_type_hints(Config).items() if name != "options"}


def _check(name: str, value: Any, hint: Any, source: str) -> None:
    if not is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True)):
        expected = str(getattr(hint, "__name__", hint)).replace("typing.", "").replace("collections.abc.", "")
        if typing.get_origin(hint) is Literal:
            expected = f"one of {', '.join(map(str, typing.get_args(hint)))}"
        raise ValueError(f"{source}: got {name} = {value!r}, expected {expected}")


def read_config(path: str | Path) -> dict[str, Any]:
    """The keys and values of a TOML file. Raises ValueError for one that is missing or malformed."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as TOML: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value; what is no TOML is a string."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ValueError(f"--set {text}: expected key=value, for example channels=64")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def resolve(sources: Iterable[tuple[str, Mapping[str, Any]]], *, known_kernel: bool = False) -> Config:
    """Settings from (name of the source, keys and values) pairs, later ones winning; the preset comes first of all.

    A key is a field of `Settings` or a keyword of the method. With `known_kernel`, what the method asks for where the
    kernel is known comes next to the preset. Raises ValueError that names the source for an unknown key (with the
    nearest known one), a value of the wrong type, and what the method itself refuses.
    """
    from jbid.engine.generators import kernel_shape
    from jbid.methods import METHODS, NON_BLIND, PRESETS, size_for
    from jbid.ops.kernels import delta_kernel

    sources = list(sources)
    base: dict[str, Any] = {}
    for source, values in sources:
        for name, known in (("method", list(METHODS)), ("preset", list(PRESETS["selfdeblur"]))):
            if name in values:
                if values[name] not in known:
                    raise ValueError(f"{source}: got {name} {values[name]!r}, expected one of: {', '.join(known)}")
                base[name] = values[name]
    method = base.get("method", Config().method)
    factory = METHODS[method]
    parameters = inspect.signature(factory).parameters
    hints = {k: v for k, v in typing.get_type_hints(factory).items() if k in parameters and k not in _NOT_OPTIONS}
    options = {name: parameters[name].default for name in hints}
    preset = PRESETS[method][base.get("preset", Config().preset)]
    told = NON_BLIND[method] if known_kernel and preset["steps"] else {}
    layers: list[tuple[str, Mapping[str, Any]]] = [("preset", preset), ("known kernel", told), *sources]
    for source, values in layers:
        for name, value in values.items():
            if name in _HINTS:
                _check(name, value, _HINTS[name], source)
                base[name] = value
            elif name in hints:
                _check(name, value, hints[name], source)
                options[name] = value
            else:
                _unknown(name, [*_HINTS, *hints], source)
    settings = Config(**base, options=options)
    if settings.start == "random" and "kernel_hold" in options:
        # nothing to hold on to
        options["kernel_hold"] = 0
    asked = any("kernel_hold" in values for _, values in sources)
    if 0 < settings.steps <= options.get("kernel_hold", 0) and not asked:
        # a kernel that is held to the end is the start's own, whatever the seed
        options["kernel_hold"] = settings.steps // 3
    instant = settings.preset == "instant"
    for name, least in (("seeds", 1), ("steps", 0 if instant else 1), ("seed", 0), ("patch", 0)):
        if getattr(settings, name) < least:
            raise ValueError(f"got {name} {getattr(settings, name)}, expected at least {least}")
    words = init_names(settings.start)
    no_estimate = len(words) != 1 or words[0] not in ESTIMATES
    if instant and (settings.steps or settings.seeds > 1 or no_estimate or not settings.finish):
        raise ValueError(
            "the preset instant has no network: no steps, seeds, --no-finish, or other start than encoder and edges; "
            "use --preset quick"
        )
    if settings.seeds < len(words):
        raise ValueError(
            f"got start {settings.start} and {settings.seeds} seeds, expected a seed for each: use --seeds {len(words)}"
        )
    if settings.region is not None and (min(settings.region[:2]) < 0 or min(settings.region[2:]) < 1):
        raise ValueError(f"got region {settings.region}, expected x,y,width,height in pixels within the picture")
    side, _ = kernel_shape(31 if isinstance(settings.kernel_size, str) else settings.kernel_size)
    if known_kernel:
        build(settings, side, 1, delta_kernel((side, side)))
    else:
        build(settings, size_for(method, options, side), 1)
    return settings


def build(settings: Config, kernel_size: int | tuple[int, int], out_channels: int, kernel=None):
    """The method that `settings` describe, for a kernel of this size. Raises ValueError where it refuses them."""
    from jbid.methods import METHODS

    factory = METHODS[settings.method]
    return factory(kernel_size, steps=settings.steps, out_channels=out_channels, kernel=kernel, **settings.options)
