"""XLA's compilers for devices that are not here, and what they need."""

import importlib.util
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

Target: TypeAlias = Literal["gpu", "tpu"]

# The description of an H100 is that of XLA's own h100_sxm.txtpb (openxla/xla).
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Compiler(NamedTuple):
    """What is needed to compile for a kind of device.

    Attributes:
      module: that the extra installs.
      extra: of this project.
      topology: arguments of `topologies.get_topology_desc`, for 8 devices.
      device: the device in words.
      environment: variables that must be set before JAX is imported.
    """

    module: str
    extra: str
    topology: Mapping[str, str]
    device: str
    environment: Mapping[str, str]


COMPILERS: dict[Target, Compiler] = {
    "gpu": Compiler(
        "jax_plugins.xla_cuda13",
        "aot-gpu",
        {"platform": "cuda", "topology": "1x1x8", "target_config": _H100},
        "8 NVIDIA H100",
        {
            # The plugin would look for a GPU and its libraries.
            "JAX_PLATFORMS": "cpu",
            # To choose among CUB's sorts, XLA would ask a device.
            "XLA_FLAGS": "--xla_gpu_deviceless_cub_mode=DEVICELESS_CUB_DISABLED",
        },
    ),
    "tpu": Compiler(
        "libtpu",
        "aot-tpu",
        {"platform": "tpu", "topology_name": "v5e:2x4"},
        "8 TPU v5e",
        {
            "JAX_PLATFORMS": "cpu",
            # A second process would die of the lock that the first one holds.
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
        },
    ),
}


def check_installed(target: Target) -> None:
    """Raises ValueError if the compiler of a target is not installed."""
    compiler = COMPILERS[target]
    parent = compiler.module.split(".")[0]
    if not importlib.util.find_spec(parent) or not importlib.util.find_spec(
        compiler.module
    ):
        raise ValueError(
            f"`target` is {target!r}, and the compiler for it is not installed. "
            f'Install it by `pip install -e ".[{compiler.extra}]"`; it needs no such '
            "device."
        )


def mesh_of(target: Target) -> Mesh:
    """A mesh of 8 workers on devices that can compile only."""
    topology = topologies.get_topology_desc(**COMPILERS[target].topology)
    return Mesh(np.array(topology.devices), ("workers",))
