"""Update schedules: which of image and kernel moves in each step of the engine."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Updates(NamedTuple):
    """Schedule of the updates of image and kernel, made by `joint`, `alternate`, `turns` or `warm_up`.

    Attributes:
        kind: "joint", "alternate" or "turns".
        warm_up: first steps, in which the image alone moves.
        warm_optimizer: the kernel's optimizer follows the gradients during the warm-up.
        kernel: steps of a kernel turn, for "turns".
        image: steps of an image turn, for "turns".
        image_first: begin with an image turn, for "turns".
        reset_kernel: initialize the kernel anew in each of its turns but the first, for "turns".
    """

    kind: Literal["joint", "alternate", "turns"] = "joint"
    warm_up: int = 0
    warm_optimizer: bool = False
    kernel: int = 0
    image: int = 0
    image_first: bool = False
    reset_kernel: bool = False


def joint() -> Updates:
    """One gradient at the current pair moves image and kernel in every step (Ren et al. 2020, Algorithm 2)."""
    return Updates()


def alternate() -> Updates:
    """Each step moves the kernel, then the image with the new kernel (Ren et al. 2020, Algorithm 1).

    The step reports the loss before both updates.
    """
    return Updates("alternate")


def turns(kernel: int = 20, image: int = 1, *, reset_kernel: bool = True, image_first: bool = False) -> Updates:
    """`kernel` steps move the kernel alone, then `image` steps the image alone, and so on (Tran et al. 2021, Alg. 1).

    Args:
        kernel: steps of a kernel turn, at least 1.
        image: steps of an image turn, at least 1.
        reset_kernel: parameters, code and optimizer of the kernel begin anew in each kernel turn but the first.
        image_first: begin with an image turn.

    Raises:
        ValueError: if a turn has no step.
    """
    if min(kernel, image) < 1:
        raise ValueError(f"`kernel` and `image` must be at least 1, got {kernel} and {image}")
    return Updates("turns", 0, False, kernel, image, image_first, reset_kernel)


def warm_up(steps: int, then: Updates | None = None, *, optimizer: bool = False) -> Updates:
    """In the first `steps` steps the image alone moves; the schedule `then` (default: `joint`) follows.

    Args:
        steps: length of the warm-up.
        then: schedule of the other steps.
        optimizer: True: the kernel's optimizer follows the gradients meanwhile, so its moments and its learning rate
            are those of step `steps` when the kernel begins to move. False: it stays as it is.

    Raises:
        ValueError: if `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"`steps` of the warm-up must be at least 0, got {steps}")
    return (then or joint())._replace(warm_up=steps, warm_optimizer=optimizer)
