"""Draws the time of a step against bandwidth and against the number of workers."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.training.plot import legend, tidy
from gmc_jax.clocks.link import Link
from gmc_jax.costs.candidates import candidates
from gmc_jax.costs.compression_cost import CompressionCosts
from gmc_jax.costs.patterns import Load
from gmc_jax.costs.planning import shapes

RATIO, PERIOD = 0.001, 12
LOOKS = {
    "dense all-reduce": ("#000000", "-"),
    "GMC, top_k": ("#D55E00", "-"),
    "GMC, random_block": ("#0072B2", "-"),
    "GMC, integers(8) both ways": ("#CC79A7", "-"),
    "PowerSGD, rank 4": ("#009E73", "-"),
    "signSGD, Signum, majority vote": ("#009E73", "-."),
    f"local SGD, SlowMo every {PERIOD}": ("#E69F00", "--"),
    f"local, GMC of random_block every {PERIOD}": ("#56B4E9", "--"),
    "D-PSGD, ring": ("#999999", "--"),
    "SGP, one peer": ("#999999", ":"),
}
BANDWIDTHS = np.geomspace(10e6, 100e9, 33) / 8  # bytes a second
WORKERS = [2**power for power in range(1, 13)]


def draw(
    parameters: int,
    workers: int,
    link: Link,
    step_time: float,
    compression_costs: CompressionCosts,
    title: str,
) -> Figure:
    """Draws two panels with a line for each method; this link's place is dotted."""
    figure = Figure(figsize=(7.2, 3.4), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, load in _loads(parameters, workers, compression_costs).items():
        times = [
            step_time + load.seconds(Link(link.latency, rate), step_time)
            for rate in BANDWIDTHS
        ]
        _line(left, 8 * BANDWIDTHS, times, name)
    by_workers = [_loads(parameters, count, compression_costs) for count in WORKERS]
    for name in LOOKS:
        times = [
            step_time + loads[name].seconds(link, step_time) for loads in by_workers
        ]
        _line(right, WORKERS, times, name)
    left.set(xlabel="bandwidth, bits a second", ylabel="seconds a step")
    left.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x / 1e9:g}G" if x >= 1e9 else f"{x / 1e6:g}M")
    )
    right.set(xlabel="workers")
    right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    left.set_title(f"{workers} workers", fontsize="small")
    right.set_title("this link", fontsize="small")
    for panel, place in ((left, 8 * link.bandwidth), (right, workers)):
        if np.isfinite(place):
            panel.axvline(place, color="0.7", linestyle=":", linewidth=0.8)
        tidy(panel)
    legend(figure, left, title, columns=3, fontsize="small")
    return figure


def _loads(
    parameters: int, workers: int, compression_costs: CompressionCosts
) -> dict[str, Load]:
    params = shapes(parameters)
    patterns = candidates(params, workers, [RATIO], [PERIOD], compression_costs)
    return {
        pattern.name: pattern.loads(params, workers)[0]
        for pattern in patterns
        if pattern.name in LOOKS
    }


def _line(panel: Axes, places, times: list[float], name: str) -> None:
    colour, dashes = LOOKS[name]
    ratio = ", 0.1 %" if "top_k" in name or "block" in name else ""
    panel.loglog(places, times, color=colour, linestyle=dashes, label=name + ratio)
