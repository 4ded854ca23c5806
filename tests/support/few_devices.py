"""A plugin of pytest: where there are few devices, tests that need more are skipped.

With `-p tests.support.few_devices` a test, or a module, that asks for devices is
skipped where fewer than eight are. So tests also run on one accelerator.
"""

import jax
import pytest

NEEDED = 8

_devices, _make_mesh = jax.devices, jax.make_mesh


def devices(*args, **kwargs):
    found = _devices(*args, **kwargs)
    if len(found) < NEEDED:
        pytest.skip(f"it needs {NEEDED} devices", allow_module_level=True)
    return found


def make_mesh(*args, **kwargs):
    devices()
    return _make_mesh(*args, **kwargs)


jax.devices, jax.make_mesh = devices, make_mesh
