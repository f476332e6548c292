"""Statistics of the variance benchmark: what random seeds give, and what is selected among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jbid.kernel_estimation.ranking import NO_TERMS, ScoreTerms
from jbid.metrics import pairwise_similarity

SAMPLES = 300  # random sets of seeds in a mean regret
COLUMNS = (
    *("image", "method", "init", "seeds", "mean psnr", "deviation, dB", "worst psnr", "median psnr", "best psnr"),
    *("failed", "failed, 95 %", "agreement", "loss to psnr", "score to psnr"),
    *("regret of the score, dB", "regret of the loss, dB", "regret of the rank, dB", "regret of a random seed, dB"),
)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # seeds to select from
Row = Mapping[str, Any]


def select_seed(row: Row, similarity: NDArray, rule: str, indices: NDArray[np.int64]) -> int:
    """Index of the seed that a rule without the ground truth selects.

    Args:
        row: of the cell.
        similarity: of all pairs of kernels, for the score's term of disagreement.
        rule: "score", "loss" or "rank".
        indices: of the seeds to select from.
    """

    def rank(i):
        seed = row["seeds"][i]
        if rule == "rank":
            return -seed["rank"]
        if rule == "loss":
            return seed["loss"] is None, seed["loss"] or 0.0
        others = [j for j in indices if j != i]
        agreement = float(np.mean(similarity[i, others])) if others else 0.0
        terms = ScoreTerms(**seed["terms"]) if seed["failure"] != "not a number" else NO_TERMS
        return seed["failure"] is not None, terms._replace(disagreement=-agreement).score

    return min(indices, key=rank)


def compare_kernels(kernels: NDArray) -> NDArray[np.float64]:
    """Similarity of each pair of seeds' kernels (seeds, kh, kw); zero for those that are not finite."""
    return pairwise_similarity(list(np.where(np.isfinite(kernels), kernels, 0)))


def own_rule(row: Row) -> str:
    """Rule that selects among the seeds of a cell."""
    return "rank" if "rank" in row["seeds"][0] else "score"


def has_rule(row: Row, rule: str) -> bool:
    """True if the seeds of a cell can be selected by a rule."""
    return rule in ("score", "any") or any(seed.get(rule) is not None for seed in row["seeds"])


def selected_psnr(row: Row, similarity: NDArray, rule: str, count: int) -> tuple[NDArray, NDArray]:
    """PSNR of the best of `count` seeds, and of the selected one, in each of several random sets of seeds.

    Args:
        row: of the cell.
        similarity: of all pairs of kernels.
        rule: "score", "loss", "rank", or "any" for the mean of a seed at random.
        count: number of seeds to select from.
    """
    psnr = np.array([seed["psnr"] for seed in row["seeds"]])
    rng = np.random.default_rng(0)
    sets = [rng.choice(len(psnr), count, replace=False) for _ in range(SAMPLES if count < len(psnr) else 1)]
    if rule == "any":
        selected = [psnr[indices].mean() for indices in sets]
    else:
        selected = [psnr[select_seed(row, similarity, rule, indices)] for indices in sets]
    return np.array([psnr[indices].max() for indices in sets]), np.array(selected)


def mean_regret(row: Row, similarity: NDArray, rule: str, count: int) -> float | None:
    """PSNR of the best seed minus that of the selected one, mean over `selected_psnr`; None without such a rule."""
    if not has_rule(row, rule):
        return None
    best, selected = selected_psnr(row, similarity, rule, count)
    return float(np.mean(best - selected))


def gains_by_count(rows: Sequence[Row], similarities: Mapping[str, NDArray]) -> dict[str, dict[int, NDArray]]:
    """For each method and initial kernel, by number of seeds: gain of best and selected, and their deviations, in dB.

    Means over the images. The deviation is that over the random sets of `selected_psnr`: what chance does.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row['method']}, {row['init']}", []).append(row)
    gains: dict[str, dict[int, NDArray]] = {}
    for name, part in groups.items():
        largest = min(len(row["seeds"]) for row in part)
        gains[name] = {}
        for count in (*(n for n in COUNTS if n < largest), largest):
            values = []
            for row in part:
                pair = selected_psnr(row, similarities[row["name"]], own_rule(row), count)
                values.append([f(v) for f in (np.mean, np.std) for v in pair])
            gains[name][count] = np.mean(values, 0) - np.array([1, 1, 0, 0]) * np.mean(
                [r["psnr_blurred"] for r in part]
            )
    return gains


def summarize_cell(row: Row, similarity: NDArray) -> dict[str, Any]:
    """Statistics over the seeds of one cell, by `COLUMNS`."""
    from scipy.stats import binomtest

    seeds = row["seeds"]
    psnr = np.array([seed["psnr"] for seed in seeds])
    count = len(seeds)
    failed = sum(seed["failed"] for seed in seeds)
    interval = binomtest(failed, count).proportion_ci(method="wilson")
    values = [row["image"], row["method"], row["init"], count, psnr.mean(), psnr.std(), psnr.min(), np.median(psnr)]
    values += [psnr.max(), failed / count, f"{interval.low:.0%} to {interval.high:.0%}"]
    pairs = count * (count - 1)
    values += [float((similarity.sum() - np.trace(similarity)) / pairs) if pairs else None]
    values += [_rank_correlation(seeds, "loss"), _rank_correlation(seeds, "score")]
    values += [mean_regret(row, similarity, rule, count) for rule in ("score", "loss", "rank", "any")]
    return dict(zip(COLUMNS, (value.item() if isinstance(value, np.generic) else value for value in values)))


def _rank_correlation(seeds: Sequence[Row], key: str) -> float | None:
    """Rank correlation of a value with PSNR; None for less than three different values."""
    from scipy.stats import spearmanr

    pairs = [(seed[key], seed["psnr"]) for seed in seeds if seed[key] is not None]
    if len(pairs) < 3 or any(len(set(column)) < 3 for column in zip(*pairs)):
        return None
    return float(spearmanr(*zip(*pairs)).statistic)
