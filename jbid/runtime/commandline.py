"""Command line: shared set-up on cyclopts, types of arguments, old spellings, errors on one line.

Nothing here imports JAX, so that help texts appear at once.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Group, Parameter

import jbid
from jbid.runtime.console import RESUME_HINT, print_error, print_note
from jbid.runtime.memory import parse_memory

INTERRUPTED = 130

MAIN = Group("Options", sort_key=1)
MORE = Group("More options", sort_key=2)
RESEARCH = Group("Research options", sort_key=3)

# flags of earlier versions, accepted for one version
RENAMED = {
    "--start": "--init",
    "--finish": "--deconvolve",
    "--no-finish": "--no-deconvolve",
    "--colour": "--color",
}
# parameters whose flag is not their name
_FLAGS = {"n_seeds": "--seeds", "size": "--kernel-size"}


def create_app(name: str, description: str, **options: Any) -> App:
    """A cyclopts application with our defaults."""
    return App(
        name=name,
        help=description,
        version=jbid.__version__,
        help_format="markdown",
        default_parameter=Parameter(negative=(), show_env_var=False),
        group_parameters=MORE,
        # otherwise cyclopts exits at Ctrl-C, and `run` could not return the exit code
        suppress_keyboard_interrupt=False,
        **options,
    )


def _convert(function: Callable[[str], Any]) -> Callable[..., Any]:
    """Converter of cyclopts from a function of the argument's text."""

    def convert(kind, tokens):
        return function(tokens[0].value)

    return convert


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"must be a number of seconds of at least 0, got {text}")
    return seconds


def _kernel_size(*words: str) -> Callable[[str], int | str]:
    def parse(text):
        if text in words:
            return text
        if not text.lstrip("-").isdecimal():
            raise ValueError(f"must be an odd number of pixels, {' or '.join(words)}, got {text}")
        return int(text)

    return parse


def _region(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().lstrip("-").isdecimal() for part in parts):
        raise ValueError(f"must be x,y,width,height in pixels, got {text}")
    return tuple(int(part) for part in parts)


def _memory(text: str) -> int:
    try:
        return parse_memory(text)
    except ValueError:
        raise ValueError(f"must be a size such as 6GiB or 800MB, got {text}") from None


def _name(suffix: str) -> Callable[[str], Path]:
    def parse(text):
        if not text.lower().endswith(suffix):
            raise ValueError(f"must be a name that ends in {suffix}, got {text}")
        return Path(text)

    return parse


# The types below are optional, so that a parameter may be None unless it is given
Positive = Annotated[int | None, Parameter(converter=_convert(_positive))]
Count = Annotated[int, Parameter(converter=_convert(_positive))]
Seconds = Annotated[float, Parameter(converter=_convert(_seconds))]
KernelSize = Annotated[int | str | None, Parameter(converter=_convert(_kernel_size("auto", "half")), n_tokens=1)]
SetKernelSize = Annotated[
    int | str | None, Parameter(converter=_convert(_kernel_size("auto", "half", "published")), n_tokens=1)
]
Region = Annotated[tuple[int, ...] | None, Parameter(converter=_convert(_region), n_tokens=1)]
Memory = Annotated[int | None, Parameter(converter=_convert(_memory))]
JsonFile = Annotated[Path, Parameter(converter=_convert(_name(".json")))]
PngFile = Annotated[Path, Parameter(converter=_convert(_name(".png")))]
Deconvolve = Annotated[
    bool | Literal["auto", "sparse", "learned"] | None,
    Parameter(
        group=RESEARCH,
        negative="--no-deconvolve",
        help="Deconvolve with the kernel at the end, by this method (default: auto; no if noise is very high).",
    ),
]
Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, show_default=False)]
Assignments = Annotated[tuple[str, ...], Parameter(show_default=False)]


def _modernize(arguments: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Arguments with the present spelling of flags; --distributed without a value gets an empty one."""
    new: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return [*new, *arguments[i:]]
        flag, sign, value = argument.partition("=")
        if flag in renamed:
            print_note(f"{flag} is now {renamed[flag]}; the old name will be removed in the next version")
            argument = renamed[flag] + sign + value
        if argument == "--distributed" and (i + 1 == len(arguments) or ":" not in arguments[i + 1]):
            argument = "--distributed="
        new.append(argument)
    return new


_app: list[Any] = []  # the running application and its arguments, for messages


def with_flags(message: str) -> str:
    """The message with flags instead of the names of parameters in backticks."""
    known: set[str] = set()
    if _app:
        app, arguments = _app
        try:
            _, apps, _ = app.parse_commands(arguments)
            known = {name for argument in apps[-1].assemble_argument_collection() for name in argument.names}
        except cyclopts.CycloptsError:
            pass

    def replace(match):
        name = match[1]
        own = f"--{name.replace('_', '-')}"
        alias = _FLAGS.get(name, own)
        if not known:
            return alias
        # a command may have a parameter of this very name
        return next((flag for flag in (own, alias) if flag in known), f"--set {name}")

    text = re.sub(r"`(\w+)`", replace, message)
    # the source of an option is not repeated before it, and its value follows without spaces
    return re.sub(r"(--set \w+) = ", r"\1=", text.replace("--set: --set ", "--set "))


def _report(error: BaseException) -> int:
    """Print an error of the user's on one line and return the exit code; raise any other error again."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, cyclopts.CycloptsError):
        command = " ".join([_app[0].name[0], *_app[0].parse_commands(_app[1])[0]])
        print_error(f"{error} (see {command} --help)")
        return 2
    if isinstance(error, (ValueError, OSError)):
        print_error(with_flags(str(error)))
        return 2
    raise error


def execute(command: Callable[[], int], distributed: str | None = None, hint: str = RESUME_HINT) -> int:
    """Run a command with the compilation cache, as one of several processes if `distributed` is not None.

    Args:
        command: returns the exit code.
        distributed: address of the coordinator, see `jbid.runtime.distributed.initialize_distributed`.
        hint: printed after Ctrl-C.
    """
    from jbid.runtime.compile import enable_compilation_cache

    enable_compilation_cache()
    if distributed is not None:
        from jbid.runtime.distributed import initialize_distributed, leave_early

        initialize_distributed(distributed)
    try:
        return command()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and hint:
            print(hint)
        if distributed is None:
            raise
        return leave_early(_report(error))


def guard(command: Callable[[], int | None]) -> int:
    """Exit code of a command, or of its error, which prints one line; for commands without an application, too."""
    try:
        return command() or 0
    except (Exception, KeyboardInterrupt) as error:
        return _report(error)


def run(app: App, arguments: Sequence[str] | None = None, renamed: Mapping[str, str] = RENAMED) -> int:
    """Run an application: 0; 2 for bad input, after one line on stderr; 130 after Ctrl-C.

    Args:
        app: from `create_app`.
        arguments: default: those of the process.
        renamed: old flags and their present spelling.
    """
    tokens = _modernize(sys.argv[1:] if arguments is None else arguments, renamed)
    _app[:] = app, tokens
    with warnings.catch_warnings():
        warnings.simplefilter("always", FutureWarning)
        show = warnings.showwarning

        def show_note(message, category, *rest, **options):
            if issubclass(category, FutureWarning) and "old name" in str(message):
                print_note(str(message))
            else:
                show(message, category, *rest, **options)

        warnings.showwarning = show_note
        return guard(lambda: app(tokens, exit_on_error=False, print_error=False, result_action="return_value"))
