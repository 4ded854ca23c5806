"""Reads the kernel's byte counters of this host's network interfaces."""

from pathlib import Path
from typing import NamedTuple

LOOPBACK = "lo"
_COUNTERS = Path("/proc/self/net/dev")


class Traffic(NamedTuple):
    """Bytes, including the headers of packets from Ethernet up.

    Attributes:
      out: sent.
      into: received.
    """

    out: int
    into: int


def read(interface: str | None = None) -> Traffic | None:
    """Reads the counters of an interface, or the sum of all but the loopback.

    Returns:
      The counters; None if the kernel has none (it is not Linux).

    Raises:
      ValueError: if there is no such interface.
    """
    if not _COUNTERS.exists():
        return None
    counted = {}
    for line in _COUNTERS.read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        received, sent = (int(numbers.split()[place]) for place in (0, 8))
        counted[name.strip()] = Traffic(sent, received)
    if interface is None:
        counted.pop(LOOPBACK, None)
        return Traffic(*map(sum, zip(*counted.values(), strict=True)))
    if interface not in counted:
        raise ValueError(
            "`interface` must be one of this host's interfaces, "
            f"{', '.join(counted)}, got {interface!r}."
        )
    return counted[interface]


def since(earlier: Traffic | None, interface: str | None = None) -> Traffic | None:
    """The traffic of an interface since an earlier reading."""
    now = read(interface)
    if now is None or earlier is None:
        return None
    return Traffic(now.out - earlier.out, now.into - earlier.into)
