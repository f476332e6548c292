"""Set-up that the scripts share: arguments with errors on one line, names of reports, exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors take one line."""

    def __init__(self, program: str, description: str | None) -> None:
        super().__init__(program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"jbid: error: {message} (see {self.prog} --help)\n")


def json_file(text: str) -> Path:
    """Argument that names a report; other outputs take its name without the suffix."""
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"must be a name that ends in .json, got {text}")
    return Path(text)


def run_script(main: Callable[[], int | None]) -> int:
    """Exit code of a script, run with the compilation cache; errors of the user take one line."""
    from jbid.runtime.commandline import guard
    from jbid.runtime.compile import enable_compilation_cache

    enable_compilation_cache()
    return guard(main)
