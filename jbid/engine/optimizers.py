"""jbid.engine.optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import optax


def adam(
    rate: float, *, schedule: str, steps: int, milestones: Sequence[int], hold: int = 0
) -> optax.GradientTransformation:
    """Adam whose rate is halved at each of `milestones` ("halve") or decays to zero over `steps` ("cosine").

    In the first `hold` steps nothing moves. Raises ValueError for another schedule.
    """
    if schedule == "cosine":
        decayed = optax.cosine_decay_schedule(rate, steps)
    elif schedule == "halve":
        decayed = optax.piecewise_constant_schedule(rate, {int(m): 0.5 for m in milestones})
    else:
        raise ValueError(f"got schedule {schedule!r}, expected 'halve' or 'cosine'")
    return optax.adam((lambda t: jnp.where(t < hold, 0.0, decayed(t))) if hold else decayed)
