"""jbid.pipeline.report."""

from __future__ import annotations

from typing import Any

from jbid.pipeline.prepare import PreparedImage
from jbid.pipeline.solve import Restoration


def restoration_report(answer: Restoration, task: PreparedImage) -> dict[str, Any]:
    """What a JSON file tells of an answer beside its settings."""
    return {
        "kernel_size": list(task.kernel_shape),
        "region": list(task.region),
        "start": task.edges.told() if task.edges else None,
        "chosen": answer.chosen,
        "candidates": [candidate.told() for candidate in answer.candidates],
        "spread_of_seeds": None if answer.spread is None else float(answer.spread.mean()),
        "warnings": list(answer.warnings),
        "noise": round(answer.noise, 5),
        "finished": answer.finished,
        "steps_done": len(answer.losses),
        "stopped": [int(n) for n in answer.stopped],
        "seconds": round(answer.seconds, 2),
    }
