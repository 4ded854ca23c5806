"""What the kernel counted on the interfaces of this host."""

from pathlib import Path
from typing import NamedTuple

LOOPBACK = "lo"
_COUNTERS = Path("/proc/self/net/dev")


class Traffic(NamedTuple):
    """Bytes, with the headers of packets from Ethernet on.

    Attributes:
      out: sent.
      into: received.
    """

    out: int
    into: int


def read(interface: str | None = None) -> Traffic | None:
    """The counters of an interface, or of all but the loopback together.

    Returns:
      None where the kernel does not tell (it is not Linux).

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
            f"`interface` is {interface!r}, which is none of this host's: "
            f"{', '.join(counted)}."
        )
    return counted[interface]


def since(earlier: Traffic | None, interface: str | None = None) -> Traffic | None:
    """What came on top of what was read earlier of the same interface."""
    now = read(interface)
    if now is None or earlier is None:
        return None
    return Traffic(now.out - earlier.out, now.into - earlier.into)
