"""Hosts as network namespaces of Linux, on a bridge, with shaped links."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gmc_jax.utils import checks

INTERFACE = "eth0"
"""The name of a host's interface inside its namespace."""
SLOWEST, FASTEST = 1e3 / 8, 80e9 / 8
"""The rates that tc can set, in bytes a second; a queue's length has 32 bits there."""
_NAMES = Path("/etc/netns")
_SECONDS_TO_WAIT = 0.4  # The longest wait of a packet in the queue of a link.


class Hosts:
    """Namespaces with an address each; their links have the same rate both ways."""

    def __init__(self, count: int):
        """Chooses names that contain the id of this process; makes nothing yet."""
        self._bridge = f"gmc{os.getpid()}"
        self._names = [f"{self._bridge}h{host}" for host in range(count)]

    def address(self, host: int) -> str:
        """The IPv4 address of a host; its host name resolves to it inside."""
        return f"10.77.{(host + 1) // 256}.{(host + 1) % 256}"

    def inside(self, host: int) -> list[str]:
        """The words in front of a command that runs on a host."""
        return ["ip", "netns", "exec", self._names[host]]

    def shape(self, bytes_per_second: float) -> None:
        """Sets the rate of every link in each direction; infinity is unshaped."""
        shaped = bytes_per_second != float("inf")
        if shaped:
            checks.positive(bytes_per_second=bytes_per_second)
        for host, name in enumerate(self._names):
            for where, interface in ((self.inside(host), INTERFACE), ([], name)):
                with contextlib.suppress(OSError):  # There may be no rate yet.
                    _ip(*where, "tc", "qdisc", "del", "dev", interface, "root")
                if shaped:
                    # A millisecond's worth of bytes may leave at once, or two packets.
                    burst = max(3_028, round(bytes_per_second / 1000))
                    limit = burst + round(bytes_per_second * _SECONDS_TO_WAIT)
                    _ip(
                        *(*where, "tc", "qdisc", "add", "dev", interface, "root"),
                        *("tbf", "rate", f"{round(8 * bytes_per_second)}bit"),
                        *("burst", str(burst), "limit", str(limit)),
                    )

    def make(self) -> None:
        """Makes the bridge and the hosts.

        Raises:
          OSError: if the kernel refuses, with its message.
        """
        _ip("ip", "link", "add", self._bridge, "type", "bridge")
        _ip("ip", "link", "set", self._bridge, "up")
        for host, name in enumerate(self._names):
            folder = _NAMES / name
            folder.mkdir(parents=True)
            # Gloo listens at the address of the machine's name.
            folder.joinpath("hosts").write_text(
                f"127.0.0.1 localhost\n{self.address(host)} {socket.gethostname()}\n"
            )
            _ip("ip", "netns", "add", name)
            peer = ("peer", "name", INTERFACE, "netns", name)
            _ip("ip", "link", "add", name, "type", "veth", *peer)
            _ip("ip", "link", "set", name, "master", self._bridge, "up")
            inside = self.inside(host)
            address = f"{self.address(host)}/16"
            _ip(*inside, "ip", "address", "add", address, "dev", INTERFACE)
            _ip(*inside, "ip", "link", "set", INTERFACE, "up")
            _ip(*inside, "ip", "link", "set", "lo", "up")

    def remove(self) -> None:
        """Removes the hosts and the bridge, as far as they exist."""
        for name in self._names:
            _forget(name)
        with contextlib.suppress(OSError):
            _ip("ip", "link", "delete", self._bridge)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """Makes hosts for the length of a block, and removes them when it ends.

    Hosts of earlier processes that were killed are removed too.

    Raises:
      OSError: if hosts cannot be made on this machine, with the reason.
    """
    if not shutil.which("ip") or not shutil.which("tc"):
        raise OSError("`ip` and `tc` are missing (iproute2, on Linux)")
    if os.geteuid():
        raise OSError("only root can make network namespaces")
    _remove_leftovers()
    made = Hosts(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _remove_leftovers() -> None:
    """Removes hosts of laboratories whose process has ended."""
    names = {*_words("ip", "netns", "list"), *_words("ip", "-brief", "link", "show")}
    names |= {path.name for path in _NAMES.glob("gmc*")}
    for name in sorted(names):
        match = re.fullmatch(r"gmc(\d+)(h\d+)?", name)
        if match and not Path("/proc", match[1]).exists():
            if match[2]:
                _forget(name)
            else:
                _ip("ip", "link", "delete", name)


def _forget(name: str) -> None:
    """Deletes a namespace and its link, which the kernel would delete only later."""
    for kind in ("link", "netns"):
        with contextlib.suppress(OSError):
            _ip("ip", kind, "delete", name)
    shutil.rmtree(_NAMES / name, ignore_errors=True)


def _words(*command: str) -> set[str]:
    """The first word of each line, up to an `@`."""
    lines = _ip(*command).splitlines()
    return {line.split()[0].partition("@")[0] for line in lines if line}


def _ip(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
