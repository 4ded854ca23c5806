"""Simulated seconds: what steps would take over a link."""

import numpy as np
from numpy.typing import NDArray

from experiments.training.compression import Compression, Method
from gmc_jax.clocks.link import Link
from gmc_jax.core import Tree
from gmc_jax.costs.sent_per_step import traffic_of_steps


def seconds_at(
    method: Method, compression: Compression, params: Tree, link: Link, step_time: float
) -> NDArray[np.float64]:
    """The simulated seconds after each number of steps, [steps + 1].

    A step computes, then communicates: step_time + hops * latency + bytes / bandwidth.
    Messages that travel beside the computation take the longer of the two.
    """
    tx = method.build(0.1, compression._replace(counts=False), 0.9)
    sent = traffic_of_steps(tx, params, compression.steps, compression.workers)
    size, hops = sent.T
    network = hops * link.latency + size / link.bandwidth
    waited = np.maximum(network - step_time, 0) if method.beside else network
    return np.concatenate([[0.0], np.cumsum(step_time + waited)])
