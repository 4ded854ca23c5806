"""What a measurement is: how many steps, what each host saw, and all of them."""

from collections.abc import Sequence

from experiments.network.counters import Traffic
from experiments.training.record import Row

FEWEST = 3
"""Steps, or periods, that are timed at least."""
MOST = 600
"""Steps that are timed at most."""


def steps_for(seconds: float, budget: float, period: int = 1) -> int:
    """Steps that fit into a budget, in whole periods.

    Args:
      seconds: that one period takes.
      budget: seconds that there are.
      period: in steps.

    Returns:
      At least `FEWEST` periods; beyond them at most `MOST` steps.
    """
    return max(FEWEST, min(round(budget / seconds), MOST // period)) * period


def of_one(
    traffic: Traffic | None,
    ends: Sequence[float],
    losses: Sequence[float],
    **sizes: float,
) -> Row:
    """What one host saw.

    Args:
      traffic: bytes of all steps, where the kernel counts them.
      ends: seconds since the start at which each step was done.
      losses: of this host's workers, at each step.
      **sizes: bytes a worker and step, by other counts.
    """
    steps = len(ends)
    return {
        "steps": steps,
        "seconds": ends[-1] / steps,
        "out": None if traffic is None else traffic.out / steps,
        "into": None if traffic is None else traffic.into / steps,
        **sizes,
        "ends": [_short(end) for end in ends],
        "losses": [_short(loss) for loss in losses],
    }


def of_all(rows: Sequence[Row], shared_interface: bool) -> Row:
    """One row of those of all hosts: the mean of their bytes and of their losses.

    Args:
      rows: one a host.
      shared_interface: whether each counted what all of them sent.
    """
    parts = len(rows) ** 2 if shared_interface else len(rows)
    row = dict(rows[0])
    for way in ("out", "into"):
        if row[way] is not None:
            row[way] = sum(other[way] for other in rows) / parts
    losses = zip(*(other["losses"] for other in rows), strict=True)
    row["losses"] = [_short(sum(each) / len(each)) for each in losses]
    return row


def _short(number: float) -> float:
    return float(f"{number:.4g}")
