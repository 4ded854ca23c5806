"""Times an encoding, in units of one pass `u + g` over the vector.

Every candidate repeats one worker's part of a step on its own vector: it adds the
gradient g to the residual u, encodes the sum, and keeps what is lost as the next u. The
residual thus evolves as in training; the gradient is fixed, with normal entries. All
candidates are compiled, u is donated and g is shared. They take turns as in `timing`.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import gmc_jax
from experiments.bench.timing import Bar, Candidate, report, take_turns
from experiments.training import record
from gmc_jax.utils import checks

PASS = "u + g"
PLAIN = "plain lax.top_k"
TORCH = "PyTorch"
QUANTISED = "quantised top_k"

BARS = (
    Bar("top_k", PASS, most=5),
    Bar("top_k", PLAIN, most=0.85),
    Bar("random_block", PASS, most=2),
    Bar("integers(8)", PASS, most=4),
    Bar("float8", PASS, most=4),
    Bar("powers_of_two", PASS, most=4),
    Bar("scaled_sign", PASS, most=4),
    Bar(QUANTISED, "top_k", most=1.2),
    Bar("chunked_top_k", "top_k", most=1),
    Bar(TORCH, "top_k", least=2),
)


@dataclass(frozen=True)
class Compress:
    """Time one worker's encoding, relative to one pass over its vector."""

    d: int = 11_000_000
    """The number of entries of the vector."""
    ratio: float = 0.001
    """The share of the entries that a message holds."""
    repeats: int = 21
    """The number of rounds that are timed."""
    results: Path = Path("results")
    """The directory of results; this run's is `bench/compress-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(d=self.d, repeats=self.repeats)
        checks.fraction(ratio=self.ratio)


def main(config: Compress) -> None:
    """Times all candidates; prints and logs the medians, their ratios and the bars."""
    record.prepare(config.results / "bench")
    chosen = candidates(config.d, config.ratio)
    if TORCH not in chosen:
        print("Left out: PyTorch, which is not installed for this device.")
    medians = take_turns(chosen, config.repeats)
    torch = importlib.metadata.version("torch") if TORCH in chosen else None
    settings = asdict(config) | {"results": str(config.results), "torch": torch}
    report(config.results, "compress", settings, medians, BARS)


def candidates(d: int, ratio: float) -> dict[str, Candidate]:
    """Makes the candidates; each returns its message once that and u are computed."""
    g = np.random.default_rng(0).standard_normal(d, dtype=np.float32)
    s = max(1, math.ceil(ratio * d))
    encoders = {
        PASS: lambda key, x: (None, x),
        "top_k": gmc_jax.top_k(ratio).encode,
        PLAIN: functools.partial(_plain_top_k, s),
        "sampled_top_k": gmc_jax.sampled_top_k(ratio).encode,
        QUANTISED: gmc_jax.quantised(
            gmc_jax.top_k(ratio), gmc_jax.scaled_sign()
        ).encode,
        "chunked_top_k": gmc_jax.chunked_top_k(ratio).encode,
        "random_k": gmc_jax.random_k(ratio).encode,
        "random_block": gmc_jax.random_block(ratio).encode,
        "scaled_sign": gmc_jax.scaled_sign().encode,
        "scaled_sign(512)": gmc_jax.scaled_sign(512).encode,
        "integers(8)": gmc_jax.integers(8).encode,
        "integers(4)": gmc_jax.integers(4).encode,
        "integers(8), stochastic": gmc_jax.integers(8, stochastic=True).encode,
        "float8": gmc_jax.float8().encode,
        "powers_of_two": gmc_jax.powers_of_two().encode,
        "qsgd(7)": gmc_jax.qsgd(7).encode,
        "terngrad": gmc_jax.terngrad().encode,
        "centroids": gmc_jax.centroids().encode,
    }
    chosen = {name: _jax(encode, g) for name, encode in encoders.items()}
    if importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
        on_gpu = jax.default_backend() == "gpu"
        if torch.cuda.is_available() or not on_gpu:
            chosen[TORCH] = _torch(torch, "cuda" if on_gpu else "cpu", s, g)
    return chosen


def _jax(encode: Callable, g: np.ndarray) -> Candidate:
    def update(u, g, step):
        message, lost = encode(jax.random.fold_in(jax.random.key(0), step), u + g)
        return lost, message

    compiled = jax.jit(update, donate_argnums=0)
    gradient = jnp.asarray(g)
    u, step = jnp.zeros_like(gradient), 0

    def once():
        nonlocal u, step
        u, message = jax.block_until_ready(compiled(u, gradient, step))
        step += 1
        return message

    return once


def _plain_top_k(s: int, key: jax.Array, x: jax.Array):
    del key
    _, places = lax.top_k(jnp.abs(x), s)
    values = x[places]
    # Subtracting the values that were read works in place; setting 0 would copy x.
    return (values, places), x.at[places].add(-values, unique_indices=True)


def _torch(torch: ModuleType, device: str, s: int, g: np.ndarray) -> Candidate:
    gradient = torch.from_numpy(g).to(device)
    u = torch.zeros_like(gradient)

    def once():
        u.add_(gradient)
        _, places = torch.topk(u.abs(), s, sorted=False)
        values = u[places]
        u[places] = 0
        if device == "cuda":
            torch.cuda.synchronize()
        return values, places

    return once
