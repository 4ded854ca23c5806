"""Links: how many seconds a message takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gmc_jax.utils import checks


@dataclass(frozen=True)
class Link:
    """The link of one worker, or of a server: its latency and its bandwidth.

    Attributes:
      latency: seconds before the first byte of a message arrives, at least 0.
      bandwidth: bytes a second, greater than 0; infinite by default.

    Raises:
      TypeError: if `latency` or `bandwidth` is no number.
      ValueError: if `latency` or `bandwidth` is out of its range.
    """

    latency: float = 0.0
    bandwidth: float = np.inf

    def __post_init__(self):
        """Checks both numbers."""
        checks.known(latency=self.latency, bandwidth=self.bandwidth)
        checks.nonnegative(latency=self.latency)
        if not (isinstance(self.bandwidth, float) and self.bandwidth == np.inf):
            checks.positive(bandwidth=self.bandwidth)

    def seconds(self, size: float) -> float:
        """How long a message of `size` bytes takes: latency + size / bandwidth."""
        return self.latency + size / self.bandwidth


def check_link(link: Link) -> None:
    """Raises TypeError unless `link` is a `Link`."""
    if not isinstance(link, Link):
        raise TypeError(
            f"`link` must be a `Link`, got {checks.shown(link)}. Write "
            "`gmc_jax.Link(latency=0.02, bandwidth=125e6)`, in seconds and bytes a "
            "second."
        )
