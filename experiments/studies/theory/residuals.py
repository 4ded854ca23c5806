"""The residual of GMC and GMC+: what is owed, and the bound that the theory gives."""

import math

import numpy as np

from experiments.studies.theory.trajectories import D, Setting, Walk


def residual_bound(delta: float) -> float:
    """How often sup E|a_t|^2 goes into sup E|e_t|^2 at most: 4 (1 - delta) / delta^2.

    What enters the error feedback is a_t = g_t + momentum, and e_{t+1} = (I - C)(e_t +
    a_t). The compressor keeps delta, E|x - C(x)|^2 <= (1 - delta) |x|^2, by draws that
    are independent of e_t + a_t. By Young's inequality with eta = delta / (2 - 2 delta)

        E|e_{t+1}|^2 <= (1 - delta) ((1 + eta) E|e_t|^2 + (1 + 1 / eta) E|a_t|^2)
                     <= (1 - delta / 2) E|e_t|^2 + 2 (1 - delta) / delta E|a_t|^2

    and the geometric sum from e_0 = 0 on has the factor 2 / delta. No less than 4 will
    do for all delta: a compressor that always loses as much as it may, with every a_t
    along e_t, comes to owe (1 - delta) (1 + sqrt(1 - delta))^2 / delta^2 |a|^2.
    """
    return 4 * (1 - delta) / delta**2


def delta(setting: Setting, walk: Walk) -> float:
    """What the compressor is known to keep; of scaled signs, the least that it did.

    For these delta depends on the vector.
    """
    if setting.compressor == "dense":
        return 1.0
    if setting.compressor == "scaled_sign":
        return float(walk.kept)
    return math.ceil(setting.ratio * D) / D


def owed(walk: Walk) -> float:
    """How often sup E|a_t|^2 goes into sup E|e_t|^2, for the worker that owes most."""
    return float(np.max(walk.owed / walk.entered))


def share(setting: Setting, walk: Walk) -> float:
    """What is owed, as a share of the bound; 0 if nothing is."""
    bound = residual_bound(delta(setting, walk))
    if not owed(walk):
        return 0.0
    return owed(walk) / bound if bound else math.inf
