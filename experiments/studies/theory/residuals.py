"""The residual of GMC and GMC+, and its bound in theory."""

import math

import numpy as np

from experiments.studies.theory.trajectories import D, Setting, Trajectory


def residual_bound(delta: float) -> float:
    """The upper bound of sup E|e_t|^2 / sup E|a_t|^2, which is 4 (1 - delta) / delta^2.

    The input of the error feedback is a_t = g_t + momentum, and e_{t+1} = (I - C)(e_t +
    a_t). The compressor is a contraction, E|x - C(x)|^2 <= (1 - delta) |x|^2, and its
    draws are independent of e_t + a_t. By Young's inequality with eta = delta / (2 - 2
    delta),

        E|e_{t+1}|^2 <= (1 - delta) ((1 + eta) E|e_t|^2 + (1 + 1 / eta) E|a_t|^2)
                     <= (1 - delta / 2) E|e_t|^2 + 2 (1 - delta) / delta E|a_t|^2

    and the geometric sum from e_0 = 0 on adds the factor 2 / delta. No constant below 4
    holds for all delta: if every a_t is along e_t and the compressor always loses as
    much as it may, |e_t|^2 tends to (1 - delta) (1 + sqrt(1 - delta))^2 / delta^2
    |a|^2.
    """
    return 4 * (1 - delta) / delta**2


def delta(setting: Setting, trajectory: Trajectory) -> float:
    """The delta of the compressor; for scaled signs, the smallest on the trajectory.

    The delta of scaled signs depends on the vector.
    """
    if setting.compressor == "dense":
        return 1.0
    if setting.compressor == "scaled_sign":
        return float(trajectory.kept)
    return math.ceil(setting.ratio * D) / D


def relative_residual(trajectory: Trajectory) -> float:
    """The largest sup E|e_t|^2 / sup E|a_t|^2 of all workers."""
    return float(np.max(trajectory.owed / trajectory.entered))


def share(setting: Setting, trajectory: Trajectory) -> float:
    """The relative residual as a share of its bound; 0 if there is no residual."""
    bound = residual_bound(delta(setting, trajectory))
    residual = relative_residual(trajectory)
    if not residual:
        return 0.0
    return residual / bound if bound else math.inf
