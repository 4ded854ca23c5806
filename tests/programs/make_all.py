"""Makes what every public factory makes, and then asks for more CPU devices.

JAX refuses once it has started them, as it refuses `jax.distributed.initialize`.
"""

import jax

import gmc_jax
from tests.support.factories import RIGHT


def main() -> None:
    for name, arguments in RIGHT.items():
        if callable(factory := getattr(gmc_jax, name, None)):
            factory(**arguments)
    gmc_jax.quantised(gmc_jax.top_k(0.1), gmc_jax.centroids(2))
    gmc_jax.quantised(gmc_jax.chunked_top_k(0.1), gmc_jax.integers(8))
    jax.config.update("jax_num_cpu_devices", 3)
    assert len(jax.devices("cpu")) == 3


if __name__ == "__main__":
    main()
