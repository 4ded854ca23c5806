"""Where a result comes from: package versions, the machine and the commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax


def environment() -> dict[str, str | int | None]:
    """Versions, machine and device; the commit if this is a git checkout."""
    device = jax.devices()[0]
    packages = ("gmc_jax", "jax", "jaxlib", "optax", "flax", "numpy")
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "commit": _commit(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": f"{device.platform}: {device.device_kind}",
        "processes": jax.process_count(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None
