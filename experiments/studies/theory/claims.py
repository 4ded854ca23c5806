"""What the theory of GMC and GMC+ claims: the walks that show it, and what they say."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple, TypeAlias

import numpy as np

from experiments.studies.theory.residuals import delta, share
from experiments.studies.theory.trajectories import (
    COMPRESSORS,
    METHODS,
    MOMENTUM,
    Setting,
    Walk,
)

SCALE = 0.05  # The c of the rate c sqrt(K / T).
RATIO = 0.25
RATIOS = (0.1, RATIO, 0.5)  # For the residual, of the compressors that have one.
WITHOUT_RATIO = ("dense", "scaled_sign")
HALVINGS = 5  # Of the steps, for the exponent of T.
RATE_HALVINGS = 5  # For the gap.
COMPARED = {
    "GMC, top_k": ("gmc", "top_k"),
    "GMC, random_block": ("gmc", "random_block"),
    "GMC+, random_block": ("gmc_plus", "random_block"),
}

# What is claimed, as the table says it.
RESIDUAL = "Lemmas 4, 9: sup E|e|^2, of its bound"
GAP = "Lemmas 5, 11: sup |z - w| ~ lr^p, p"
STEPS = "Theorems 6, 12: |grad f|^2 ~ T^p, p"
WORKERS = "Theorems 6, 12: |grad f|^2 ~ K^p, p"
SPEED = "speed-up of all workers over one"
DESCENT = "share of the descent in |grad f|^2"

Lines: TypeAlias = Mapping[str, Sequence[Setting]]
Walks: TypeAlias = Mapping[Setting, Walk]


class Plan(NamedTuple):
    """Which walks to take. Lines are by the names in `COMPARED`; walks may recur.

    Attributes:
      residual: every compressor, with every method and loss.
      gap: lines of rising rates.
      long: lines from few steps to many.
      wide: lines from one worker to many.
      fast: lines of three: one worker, many with as many steps as make the same product
        of both, and many with twice these steps.
    """

    residual: Sequence[Setting]
    gap: Lines
    long: Lines
    wide: Lines
    fast: Lines

    @property
    def lines(self) -> Lines:
        """The last three joined: all at the rate c sqrt(K / T) with one ratio."""
        return {
            name: [*self.long[name], *self.wide[name], *self.fast[name]]
            for name in self.long
        }

    @property
    def settings(self) -> Sequence[Setting]:
        """All walks, each of them once."""
        lines = chain(self.gap.values(), self.lines.values())
        return list(dict.fromkeys(chain(self.residual, *lines)))


class Claim(NamedTuple):
    """A number, and where it must lie.

    Attributes:
      claim: what it is.
      of: of which method, or which compressor.
      measured: the number.
      required: where it must lie, in words.
      least: the least that will do.
      most: the most that will do.
      spread: its standard deviation between seeds, where each of them has one.
    """

    claim: str
    of: str
    measured: float
    required: str
    least: float = -math.inf
    most: float = math.inf
    spread: float | None = None

    @property
    def met(self) -> bool:
        """Whether it lies there."""
        return self.least <= self.measured <= self.most

    @property
    def shown(self) -> str:
        """The number with its spread."""
        spread = "" if self.spread is None else f" ± {self.spread:.2f}"
        return f"{self.measured:.2f}{spread}"


def plan(steps: int, workers: int) -> Plan:
    """The walks of the command.

    Args:
      steps: of the longest walk of several workers.
      workers: the most of them, a power of two of at least 2.

    Raises:
      ValueError: if `workers` is not such a power, or there are too few steps.
    """
    if workers < 2 or workers & (workers - 1):
        raise ValueError(
            "`workers` is halved down to one, so it must be a power of two and at "
            f"least 2, but is {workers}."
        )
    if steps < 2**HALVINGS:
        raise ValueError(
            f"`steps` is halved {HALVINGS} times, so it must be at least "
            f"{2**HALVINGS}, but is {steps}."
        )
    half, short = workers // 2, steps // 8

    def at(method: str, compressor: str, k: int, t: int) -> Setting:
        rate = SCALE * math.sqrt(k / t)
        return Setting(method, compressor, RATIO, "robust", k, rate, t)

    compared = COMPARED.items()
    return Plan(
        residual=[
            at(method, compressor, half, short)._replace(ratio=ratio, loss=loss)
            for compressor in COMPRESSORS
            for ratio in ((RATIO,) if compressor in WITHOUT_RATIO else RATIOS)
            for method in (METHODS if ratio == RATIO else ("gmc",))
            for loss in ("quadratic", "robust")
        ],
        gap={
            name: [
                one._replace(rate=one.rate / 2**halving)
                for one in [at(*made, half, short)]
                for halving in range(RATE_HALVINGS, -1, -1)
            ]
            for name, made in compared
        },
        long={
            name: [
                at(*made, half, steps >> halving) for halving in range(HALVINGS, -1, -1)
            ]
            for name, made in compared
        },
        wide={
            name: [at(*made, 2**k, steps) for k in range(workers.bit_length())]
            for name, made in compared
        },
        fast={
            name: [
                at(*made, 1, 4 * steps),
                at(*made, workers, 4 * steps // workers),
                at(*made, workers, 8 * steps // workers),
            ]
            for name, made in compared
        },
    )


def means(walks: Walks, line: Sequence[Setting]) -> np.ndarray:
    """Of each walk of a line the mean of |grad f(w_t)|^2, [walks, seeds]."""
    return np.stack([walks[setting].gradient for setting in line])


def descent(setting: Setting, walk: Walk) -> np.ndarray:
    """Which share of this mean the descent from the start makes up, [seeds]."""
    effective = setting.rate / (1 - MOMENTUM)
    return walk.fell / (effective * setting.steps) / walk.gradient.mean()


def speed_up(line: Sequence[Setting], gradients: np.ndarray) -> np.ndarray:
    """How many times fewer steps many workers take to where one comes, [...].

    Args:
      line: one of `Plan.fast`.
      gradients: the means of its walks, [3, ...]. Between the steps of the last two,
        and beyond, they are taken for a power of the steps.
    """
    alone, fewer, more = line
    target, first, second = np.log(gradients)
    doublings = (target - first) / (second - first)
    ratio = more.steps / fewer.steps
    return alone.steps / (fewer.steps * ratio**doublings)


def fit(x: Sequence[float], y: np.ndarray) -> np.ndarray:
    """The exponents p of y ~ x^p, least squares of logarithms, for y [points, ...]."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def claims(plan: Plan, walks: Walks) -> list[Claim]:
    """Everything that is claimed, in the order of the lemmas and theorems."""
    found = []
    for compressor in COMPRESSORS:
        those = {s: w for s, w in walks.items() if s.compressor == compressor}
        deltas = sorted({f"{delta(s, w):.2g}" for s, w in those.items()})
        of = f"{compressor}, delta {deltas[0]}"
        of += f" to {deltas[-1]}" if len(deltas) > 1 else ""
        largest = max(share(s, w) for s, w in those.items())
        found.append(Claim(RESIDUAL, of, largest, "at most 1", most=1))
    for name, line in plan.gap.items():
        gaps = np.sqrt([walks[setting].gap for setting in line])
        exponent = fit([setting.rate for setting in line], gaps)
        found.append(_power(GAP, name, exponent, 1))
    for claim, lines in ((STEPS, plan.long), (WORKERS, plan.wide)):
        for name, line in lines.items():
            along = [s.steps if claim is STEPS else s.workers for s in line]
            every = means(walks, line)
            together, each = fit(along, every.mean(axis=1)), fit(along, every)
            found.append(_power(claim, name, together, -0.5, each))
    for name, line in plan.fast.items():
        every, many = means(walks, line), line[-1].workers
        measured, each = speed_up(line, every.mean(axis=1)), speed_up(line, every)
        least = 0.8 * many
        found.append(
            Claim(
                SPEED,
                name,
                float(measured),
                f"at least {least:.3g}",
                least=least,
                spread=float(np.std(each)),
            )
        )
    for name, line in plan.long.items():
        each = descent(line[-1], walks[line[-1]])
        found.append(
            Claim(
                DESCENT,
                name,
                float(np.mean(each)),
                "at most 0.5",
                most=0.5,
                spread=float(np.std(each)),
            )
        )
    return found


def _power(
    claim: str,
    of: str,
    measured: np.ndarray,
    exponent: float,
    each: np.ndarray | None = None,
) -> Claim:
    return Claim(
        claim,
        of,
        measured=float(measured),
        required=f"{exponent} ± 0.1",
        least=exponent - 0.1,
        most=exponent + 0.1,
        spread=None if each is None else float(np.std(each)),
    )
