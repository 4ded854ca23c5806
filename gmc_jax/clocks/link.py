"""What a message costs on a link."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gmc_jax.utils import checks


@dataclass(frozen=True)
class Link:
    """What a message costs.

    Attributes:
      latency: seconds before the first byte arrives, at least 0.
      bandwidth: bytes a second of one worker's, or the server's, link; greater than 0.

    Raises:
      TypeError: if one of them is no number.
      ValueError: if one of them is out of its range.
    """

    latency: float = 0.0
    bandwidth: float = np.inf

    def __post_init__(self):
        """Refuses what is no link."""
        checks.known(latency=self.latency, bandwidth=self.bandwidth)
        checks.nonnegative(latency=self.latency)
        if not (isinstance(self.bandwidth, float) and self.bandwidth == np.inf):
            checks.positive(bandwidth=self.bandwidth)

    def seconds(self, size: float) -> float:
        """How long a message of so many bytes takes."""
        return self.latency + size / self.bandwidth


def check_link(link: Link) -> None:
    """Raises TypeError unless it is a link."""
    if not isinstance(link, Link):
        raise TypeError(
            "`link` must be a link, such as `timelines.Link(latency=0.02, "
            "bandwidth=125e6)` in seconds and bytes a second, but is "
            f"{checks.shown(link)}."
        )
