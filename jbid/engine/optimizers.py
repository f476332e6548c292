"""Optimizers of the methods: Adam with the decays of the published codes."""

from __future__ import annotations

from collections.abc import Sequence

import optax

from jbid.engine.options import check_choice


def adam(rate: float, *, schedule: str, steps: int, milestones: Sequence[int]) -> optax.GradientTransformation:
    """Adam with a decaying learning rate.

    Args:
        rate: learning rate of step 0.
        schedule: "halve" halves the rate at each of `milestones`, "cosine" decays it to zero over `steps`.
        steps: steps of the run, for "cosine".
        milestones: steps at which the rate halves, for "halve".

    Raises:
        ValueError: for another schedule.
    """
    check_choice("schedule", schedule, ("halve", "cosine"))
    if schedule == "cosine":
        decay = optax.cosine_decay_schedule(rate, steps)
    else:
        decay = optax.piecewise_constant_schedule(rate, {int(m): 0.5 for m in milestones})
    return optax.adam(decay)
