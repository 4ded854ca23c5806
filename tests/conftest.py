"""Eight CPU devices for every test: nothing here needs an accelerator."""

import os

import jax
import pytest

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def float64():
    """Runs the test with 64-bit numbers, as `problems.run` does by itself."""
    with jax.enable_x64(True):
        yield
