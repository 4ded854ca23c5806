"""The claims of the theory of GMC and GMC+, and the sweep of settings to check them."""

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
    Trajectory,
)

SCALE = 0.05  # The c of the rate c sqrt(K / T).
RATIO = 0.25
RATIOS = (0.1, RATIO, 0.5)  # For the residual, with compressors that have a ratio.
WITHOUT_RATIO = ("dense", "scaled_sign")
HALVINGS = 5  # Of the steps, to fit the exponent of T.
RATE_HALVINGS = 5  # Of the rate, to fit the exponent of the gap.
COMPARED = {
    "GMC, top_k": ("gmc", "top_k"),
    "GMC, random_block": ("gmc", "random_block"),
    "GMC+, random_block": ("gmc_plus", "random_block"),
}

# The claims, in the words of the table.
RESIDUAL = "Lemmas 4, 9: sup E|e|^2 over its bound"
GAP = "Lemmas 5, 11: sup |z - w| ~ lr^p, p"
STEPS = "Theorems 6, 12: |grad f|^2 ~ T^p, p"
WORKERS = "Theorems 6, 12: |grad f|^2 ~ K^p, p"
SPEED = "speed-up of all workers over one"
DESCENT = "share of the descent in |grad f|^2"

Lines: TypeAlias = Mapping[str, Sequence[Setting]]
Trajectories: TypeAlias = Mapping[Setting, Trajectory]


class Sweep(NamedTuple):
    """The settings to compute; a line is a sequence of them, named as in `COMPARED`.

    Attributes:
      residual: every compressor, with every method and loss.
      gap: lines of rising learning rates, for the gap of the virtual iterate.
      long: lines of rising numbers of steps, for the exponent of T.
      wide: lines of rising numbers of workers, for the exponent of K.
      fast: lines for the speed-up, of three settings: one worker; many workers with the
        same product of workers and steps; many workers with twice these steps.
    """

    residual: Sequence[Setting]
    gap: Lines
    long: Lines
    wide: Lines
    fast: Lines

    @property
    def lines(self) -> Lines:
        """`long`, `wide` and `fast` joined; the rate of all is c sqrt(K / T)."""
        return {
            name: [*self.long[name], *self.wide[name], *self.fast[name]]
            for name in self.long
        }

    @property
    def settings(self) -> Sequence[Setting]:
        """All settings, each of them once."""
        lines = chain(self.gap.values(), self.lines.values())
        return list(dict.fromkeys(chain(self.residual, *lines)))


class Claim(NamedTuple):
    """A measured number, and the interval that it must lie in.

    Attributes:
      claim: what is measured.
      of: the method or the compressor.
      measured: the number.
      required: the interval, in words.
      least: the lower end of the interval.
      most: the upper end of the interval.
      spread: the standard deviation between seeds, if each seed has a number.
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
        """Whether the number lies in the interval."""
        return self.least <= self.measured <= self.most

    @property
    def shown(self) -> str:
        """The number with its spread."""
        spread = "" if self.spread is None else f" ± {self.spread:.2f}"
        return f"{self.measured:.2f}{spread}"


def sweep(steps: int, workers: int) -> Sweep:
    """Makes the settings of the command.

    Args:
      steps: of the longest trajectory of several workers.
      workers: the most workers, a power of two of at least 2.

    Raises:
      ValueError: if `workers` is no such power, or there are too few steps.
    """
    if workers < 2 or workers & (workers - 1):
        raise ValueError(
            "`workers` must be a power of two and at least 2, since it is halved down "
            f"to one, got {workers}."
        )
    if steps < 2**HALVINGS:
        raise ValueError(
            f"`steps` must be at least {2**HALVINGS}, since it is halved {HALVINGS} "
            f"times, got {steps}."
        )
    half, short = workers // 2, steps // 8

    def at(method: str, compressor: str, k: int, t: int) -> Setting:
        rate = SCALE * math.sqrt(k / t)
        return Setting(method, compressor, RATIO, "robust", k, rate, t)

    compared = COMPARED.items()
    return Sweep(
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


def means(trajectories: Trajectories, line: Sequence[Setting]) -> np.ndarray:
    """The mean of |grad f(w_t)|^2 for each setting of a line, [settings, seeds]."""
    return np.stack([trajectories[setting].gradient for setting in line])


def descent(setting: Setting, trajectory: Trajectory) -> np.ndarray:
    """The share of the descent from the start in the mean of |grad f|^2, [seeds]."""
    effective = setting.rate / (1 - MOMENTUM)
    return trajectory.fell / (effective * setting.steps) / trajectory.gradient.mean()


def speed_up(line: Sequence[Setting], gradients: np.ndarray) -> np.ndarray:
    """One worker's steps over many workers' steps to the same mean gradient, [...].

    The mean gradient of many workers is interpolated and extrapolated between the last
    two settings as a power of the steps.

    Args:
      line: one of `Sweep.fast`.
      gradients: the mean of |grad f|^2 for its three settings, [3, ...].
    """
    alone, fewer, more = line
    target, first, second = np.log(gradients)
    doublings = (target - first) / (second - first)
    ratio = more.steps / fewer.steps
    return alone.steps / (fewer.steps * ratio**doublings)


def fit(x: Sequence[float], y: np.ndarray) -> np.ndarray:
    """Fits the exponents p of y ~ x^p, by least squares of logarithms.

    Args:
      x: [points].
      y: [points, ...].
    """
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def claims(sweep: Sweep, trajectories: Trajectories) -> list[Claim]:
    """Measures all claims, in the order of the lemmas and theorems."""
    found = []
    for compressor in COMPRESSORS:
        those = {s: w for s, w in trajectories.items() if s.compressor == compressor}
        deltas = sorted({f"{delta(s, w):.2g}" for s, w in those.items()})
        of = f"{compressor}, delta {deltas[0]}"
        of += f" to {deltas[-1]}" if len(deltas) > 1 else ""
        largest = max(share(s, w) for s, w in those.items())
        found.append(Claim(RESIDUAL, of, largest, "at most 1", most=1))
    for name, line in sweep.gap.items():
        gaps = np.sqrt([trajectories[setting].gap for setting in line])
        exponent = fit([setting.rate for setting in line], gaps)
        found.append(_power(GAP, name, exponent, 1))
    for claim, lines in ((STEPS, sweep.long), (WORKERS, sweep.wide)):
        for name, line in lines.items():
            along = [s.steps if claim is STEPS else s.workers for s in line]
            every = means(trajectories, line)
            together, each = fit(along, every.mean(axis=1)), fit(along, every)
            found.append(_power(claim, name, together, -0.5, each))
    for name, line in sweep.fast.items():
        every, many = means(trajectories, line), line[-1].workers
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
    for name, line in sweep.long.items():
        each = descent(line[-1], trajectories[line[-1]])
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
