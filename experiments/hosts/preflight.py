"""Checks, before JAX starts, that the processes can find each other.

JAX itself would wait for minutes, and then end the process from C++.
"""

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator

from experiments.utils import signals, terminal

_NAME_KNOWN_WITHIN = 10  # Seconds; a name server may be late.
_SILENT_FOR = 5  # Seconds, before a process prints what it waits for.


def address(coordinator: str) -> tuple[str, int]:
    """Parses a coordinator's address into a host and a port.

    Raises:
      ValueError: if the text is no address with a port.
    """
    match = re.fullmatch(r"(\[[^\[\]]+\]|[^:\s]+):([0-9]{1,5})", coordinator)
    if not match or not 0 < int(match[2]) < 2**16:
        raise ValueError(
            "`coordinator` must be an address and a port from 1 to 65535, such as "
            "10.0.0.1:1234, node7:1234 or [fd00::1]:1234, got "
            f"{coordinator!r}."
        )
    return match[1].strip("[]"), int(match[2])


def check_coordinator_here(coordinator: str) -> None:
    """Checks for process 0 that it can listen at the coordinator's address.

    Raises:
      ValueError: if another process listens there, or the address is that of another
        machine.
    """
    host, port = address(coordinator)
    with _listener(coordinator, port) as listener:
        token = secrets.token_bytes(8)
        try:
            with _connection(coordinator, _NAME_KNOWN_WITHIN) as own:
                own.sendall(token)
                if _arrives(token, listener):
                    return
                problem = "another machine answers there"
        except OSError as error:
            problem = _reason(error)
    raise ValueError(
        "`coordinator` must be an address of this machine, since process 0 listens "
        f"there, got {coordinator!r} ({problem}). Give an address of this machine, or "
        f"start `--host 0` on {host}."
    )


def wait_for_coordinator(coordinator: str, patience: float) -> None:
    """Waits, in the other processes, until process 0 listens at the address.

    Raises:
      ValueError: if nothing listens there within `patience` seconds, or the host's name
        is unknown.
    """
    try:
        _connection(coordinator, patience).close()
    except socket.gaierror as error:
        host, _ = address(coordinator)
        raise ValueError(
            f"`coordinator` is {coordinator!r}, but the host {host!r} is unknown on "
            f"this machine ({_reason(error)}). Name the machine of process 0."
        ) from None
    except OSError as error:
        raise ValueError(
            f"`coordinator` is {coordinator!r}, but process 0 did not answer there for "
            f"{patience:g} seconds ({_reason(error)}). Start process 0 there, or wait "
            "longer: `--patience SECONDS`."
        ) from None


def check_hostname() -> None:
    """Checks that the name of this machine has an address, where Gloo listens.

    Raises:
      ValueError: if it has none.
    """
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        raise ValueError(
            f"the name of this machine, {name!r}, has no address ({_reason(error)}), "
            "and processes listen at that address. Add the name to /etc/hosts."
        ) from None


@contextlib.contextmanager
def patient(words: str) -> Iterator[None]:
    """Prints what a block waits for, if the block takes longer than some seconds."""
    timer = threading.Timer(_SILENT_FOR, terminal.note, [words])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def free_port() -> int:
    """Finds a free port of this machine.

    Raises:
      ValueError: if this machine cannot connect to itself.
    """
    try:
        with socket.create_server(("localhost", 0)) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("localhost", port), timeout=5):
                return port
    except OSError as error:
        raise ValueError(
            "the processes of one machine connect over its loopback device, but "
            f"`localhost` cannot be reached ({_reason(error)}). On Linux, start the "
            "device with `ip link set lo up`."
        ) from None


def _listener(coordinator: str, port: int) -> socket.socket:
    """A socket that listens as JAX will: on all addresses of this machine."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ValueError(
            f"`coordinator` is {coordinator!r}, but process 0 cannot listen on port "
            f"{port} of this machine ({_reason(error)}). Choose another port, the same "
            "for all processes."
        ) from None


def _connection(coordinator: str, seconds: float) -> socket.socket:
    """Connects, with retries for some seconds; then raises the last error."""
    began = time.monotonic()
    while True:
        try:
            return socket.create_connection(address(coordinator), timeout=5)
        except OSError as error:
            unknown = isinstance(error, socket.gaierror)
            most = min(seconds, _NAME_KNOWN_WITHIN) if unknown else seconds
            if time.monotonic() - began >= most:
                raise
        signals.raise_again()
        time.sleep(0.1)


def _arrives(token: bytes, listener: socket.socket) -> bool:
    """Whether some connection carries these bytes; other processes may connect too."""
    listener.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1)
                if connection.recv(len(token)) == token:
                    return True
    return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
