"""What compression costs: `python -m experiments bench compress`, and `simulate`."""

from experiments.bench.compress import Compress, main_compress
from experiments.bench.simulate import Simulate, main_simulate

__all__ = ["Compress", "Simulate", "main_compress", "main_simulate"]
