"""Eight CPU devices for every test: nothing here needs an accelerator.

Most of the time goes into compiling. LLVM optimises little here, and gets fusions
without a detour through MLIR, unless `XLA_FLAGS` is set to anything else, an empty
string included; what XLA makes of a program (fusions, collectives) is the same.
"""

import os

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters=true",
)

import jax
import pytest

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def float64():
    """Runs the test with 64-bit numbers, as `harness.run` does by itself."""
    with jax.enable_x64(True):
        yield
