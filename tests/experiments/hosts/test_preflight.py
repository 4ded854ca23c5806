"""Wrong addresses are found before JAX starts."""

import contextlib
import socket

import pytest

from experiments.hosts import preflight


@pytest.mark.parametrize(
    ("coordinator", "meant"),
    [
        ("localhost:1234", ("localhost", 1234)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[fd00::1]:1", ("fd00::1", 1)),
    ],
)
def test_an_address_is_a_host_and_a_port(coordinator, meant):
    assert preflight.address(coordinator) == meant


@pytest.mark.parametrize(
    "coordinator",
    [
        "localhost",
        "localhost:",
        ":1234",
        "a:0",
        "a:65536",
        "a:http",
        "fd00::1:1",
        "a:٣",
    ],
)
def test_a_bad_address_is_an_error(coordinator):
    """Without a port it was JAX's IndexError, beyond 65535 a C++ stack trace."""
    with pytest.raises(ValueError, match=r"must be an address and a port"):
        preflight.address(coordinator)


@contextlib.contextmanager
def taken_port():
    with socket.create_server(("localhost", 0)) as listener:
        yield listener.getsockname()[1]


def test_process_0_needs_a_free_port():
    """JAX ended in a segmentation fault."""
    with (
        taken_port() as port,
        pytest.raises(ValueError, match=rf"cannot .* port {port}"),
    ):
        preflight.check_coordinator_here(f"localhost:{port}")


def test_process_0_needs_an_address_of_its_own_machine(monkeypatch):
    """JAX waited for `--patience`, and then ended in a C++ stack trace."""
    port = preflight.free_port()
    preflight.check_coordinator_here(f"localhost:{port}")
    with taken_port() as other:
        connect = socket.create_connection
        elsewhere = ("localhost", other)
        monkeypatch.setattr(
            socket, "create_connection", lambda address, timeout: connect(elsewhere)
        )
        with pytest.raises(ValueError, match=r"address of this machine.*\(another ma"):
            preflight.check_coordinator_here(f"localhost:{port}")


def test_other_processes_need_a_listener():
    with taken_port() as port:
        preflight.wait_for_coordinator(f"localhost:{port}", patience=0.2)
    with pytest.raises(ValueError, match=r"did not answer there for 0\.2 seconds"):
        preflight.wait_for_coordinator(f"localhost:{port}", patience=0.2)


def test_an_unknown_host_is_named(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(ValueError, match=r"the host 'node7' is unknown"):
        preflight.wait_for_coordinator("node7:1234", patience=0.2)


def test_a_machine_without_loopback_is_an_error(monkeypatch):
    """`launch` hung where there is no loopback device."""

    def unreachable(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(ValueError, match=r"`localhost` .* \(Network is unreachable\)"):
        preflight.free_port()


def test_a_machine_whose_name_has_no_address_is_an_error(monkeypatch):
    """Gloo ended in a traceback with a line of its C++ source."""
    preflight.check_hostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "nosuchhost.invalid")
    with pytest.raises(ValueError, match=r"'nosuchhost\.invalid', has no address"):
        preflight.check_hostname()


def test_a_long_wait_prints_its_reason(monkeypatch, capfd):
    monkeypatch.setattr(preflight, "_SILENT_FOR", 0)
    with preflight.patient("waiting for the others"):
        printed = ""
        while not printed.endswith("\n"):
            printed += capfd.readouterr().err
    assert printed == "waiting for the others\n"
