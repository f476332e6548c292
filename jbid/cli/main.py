"""The command line `jbid`: its commands and their dispatch.

Commands import what they need when they run, so that help texts appear at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import jbid
from jbid.cli.augment import augment
from jbid.cli.blur import blur
from jbid.cli.deblur import deblur
from jbid.cli.demo import demo
from jbid.cli.kernels import kernels
from jbid.cli.train import pretrain
from jbid.cli.transfer import transfer
from jbid.runtime.commandline import create_app, run

app = create_app("jbid", (jbid.__doc__ or "").splitlines()[0])
for _command in (deblur, blur, demo, kernels, pretrain, transfer, augment):
    app.command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0; 2 for bad input, after one line on stderr; 130 after Ctrl-C."""
    return run(app, arguments)
