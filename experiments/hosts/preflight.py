"""What must hold before processes can find each other, looked at before JAX starts.

JAX itself waits for minutes, and then ends the process from C++.
"""

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator

from experiments.utils import signals, terminal

_NAME_KNOWN_WITHIN = 10  # Seconds; a name server may be late, a typing error stays.
_SILENT_FOR = 5  # Seconds, before a process says what it waits for.


def address(coordinator: str) -> tuple[str, int]:
    """The host and the port that a coordinator's address names.

    Raises:
      ValueError: if it names none.
    """
    match = re.fullmatch(r"(\[[^\[\]]+\]|[^:\s]+):([0-9]{1,5})", coordinator)
    if not match or not 0 < int(match[2]) < 2**16:
        raise ValueError(
            f"`coordinator` is {coordinator!r}, and must be an address and a port from "
            "1 to 65535, such as 10.0.0.1:1234, node7:1234 or [fd00::1]:1234."
        )
    return match[1].strip("[]"), int(match[2])


def check_here(coordinator: str) -> None:
    """For process 0: that it can listen at this address, which leads to itself.

    Raises:
      ValueError: if another process listens there, or the address leads elsewhere.
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
        f"`coordinator` is {coordinator!r}, which does not lead to this machine "
        f"({problem}), and process 0 must listen there. Give an address of process 0's "
        f"own machine, or start the process of `--host 0` on {host}."
    )


def check_there(coordinator: str, patience: float) -> None:
    """For the others: that something listens at this address, or comes to.

    Raises:
      ValueError: if nothing does within `patience` seconds, or nobody knows the name.
    """
    try:
        _connection(coordinator, patience).close()
    except socket.gaierror as error:
        host, _ = address(coordinator)
        raise ValueError(
            f"`coordinator` is {coordinator!r}, and nobody here knows the host "
            f"{host!r} ({_reason(error)}). Name the machine of process 0."
        ) from None
    except OSError as error:
        raise ValueError(
            f"`coordinator` is {coordinator!r}, where process 0 could not be reached "
            f"for {patience:g} seconds ({_reason(error)}). Start process 0 there, or "
            "wait longer: `--patience SECONDS`."
        ) from None


def check_own_name() -> None:
    """That the name of this machine leads to an address, on which Gloo listens.

    Raises:
      ValueError: if it does not.
    """
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        raise ValueError(
            f"this machine is called {name!r}, which leads to no address "
            f"({_reason(error)}), and processes listen on that of their machine. Add "
            "the name to /etc/hosts."
        ) from None


@contextlib.contextmanager
def patient(words: str) -> Iterator[None]:
    """Says what is waited for, once it has taken some seconds."""
    timer = threading.Timer(_SILENT_FOR, terminal.note, [words])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def free_port() -> int:
    """A port of this machine that nobody listens on.

    Raises:
      ValueError: if this machine cannot reach itself.
    """
    try:
        with socket.create_server(("localhost", 0)) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("localhost", port), timeout=5):
                return port
    except OSError as error:
        raise ValueError(
            "the processes of one machine meet over its loopback device, and "
            f"`localhost` cannot be reached ({_reason(error)}). On Linux, "
            "`ip link set lo up` starts the device."
        ) from None


def _listener(coordinator: str, port: int) -> socket.socket:
    """Where JAX is going to listen: on all addresses of this machine."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ValueError(
            f"`coordinator` is {coordinator!r}, and process 0 cannot listen on port "
            f"{port} of this machine ({_reason(error)}). Choose another port, the same "
            "for all processes."
        ) from None


def _connection(coordinator: str, seconds: float) -> socket.socket:
    """Tries until it is there; the last error is raised."""
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
    """Whether a connection carries these bytes; others may knock already."""
    listener.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while True:
            visitor, _ = listener.accept()
            with visitor, contextlib.suppress(OSError):
                visitor.settimeout(1)
                if visitor.recv(len(token)) == token:
                    return True
    return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
