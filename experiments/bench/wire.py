"""Compares the bytes of compiled programs with the sizes of messages.

Each program is one step of a method on all devices, compiled for them. The bytes that a
worker puts into its collectives are those of `wire_bytes`, those of a message are
`message_bits`. Two phases and votes send the result for a slice, too, and are padded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from rich.table import Table

import gmc_jax
from experiments.training import record
from experiments.training.study import Study, say
from gmc_jax.utils import checks

MATRIX, SHARES = 0.6, (0.3, 0.0999)
"""The leaves of the tree but the last: their shares of its entries.

The first is a square matrix, or as large a one as there can be.
"""


@dataclass(frozen=True)
class Wire:
    """Compare the bytes of compiled programs with the sizes of messages."""

    d: int = 1_000_000
    """The number of entries of the tree."""
    ratio: float = 0.01
    """The share of the entries that a sparse message holds."""
    results: Path = Path("results")
    """The directory of results; this run's is `bench/wire-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(d=self.d)
        checks.fraction(ratio=self.ratio)


def main(config: Wire) -> None:
    """Compiles and runs a step of every method; prints and logs the bytes.

    Raises:
      ValueError: if there is one device only.
    """
    if jax.device_count() < 2:
        raise ValueError(
            "`bench wire` needs at least two devices, since a single one sends "
            f"nothing, got {jax.devices()}. On a CPU set JAX_NUM_CPU_DEVICES=8."
        )
    record.prepare(config.results / "bench")
    settings = asdict(config) | {"results": str(config.results)}
    with record.create(config.results / "bench", "wire", settings) as log:
        for name, (tx, message) in methods(config.ratio, jax.device_count()).items():
            log.append(kind="bytes", method=name, **compared(tx, message, config.d))
    STUDY.print(record.read(log.path))
    say(f"Log: {log.path}")


def methods(
    ratio: float, workers: int
) -> Mapping[str, tuple[optax.GradientTransformation, gmc_jax.Channel]]:
    """Methods, and the channel of each."""
    ring = gmc_jax.topologies.ring(workers)
    channels = {
        "exact": gmc_jax.exact(),
        "top_k": gmc_jax.all_gather(gmc_jax.top_k(ratio)),
        "top_k per leaf": gmc_jax.all_gather(gmc_jax.top_k(ratio), per_leaf=True),
        "random_block": gmc_jax.all_reduce(gmc_jax.random_block(ratio)),
        "quantised": gmc_jax.all_gather(
            gmc_jax.quantised(gmc_jax.top_k(ratio), gmc_jax.centroids(2))
        ),
        "quantised, by chunks": gmc_jax.all_gather(
            gmc_jax.quantised(gmc_jax.chunked_top_k(ratio), gmc_jax.centroids(2))
        ),
        "mean_of_senders": gmc_jax.mean_of_senders(gmc_jax.chunked_top_k(ratio)),
        "scaled_sign": gmc_jax.all_gather(gmc_jax.scaled_sign()),
        "scaled_sign, late": gmc_jax.all_gather(gmc_jax.scaled_sign(), delay=1),
        "integers(8)": gmc_jax.all_gather(gmc_jax.integers(8)),
        "powers_of_two": gmc_jax.all_gather(gmc_jax.powers_of_two()),
        "centroids": gmc_jax.all_gather(gmc_jax.centroids()),
        "qsgd(7)": gmc_jax.all_gather(gmc_jax.qsgd(7)),
        "terngrad": gmc_jax.all_gather(gmc_jax.terngrad()),
        "two_phase, integers(8)": gmc_jax.two_phase(gmc_jax.integers(8)),
        "two_phase, scaled_sign": gmc_jax.two_phase(gmc_jax.scaled_sign()),
        "low_rank(4)": gmc_jax.low_rank(4),
        "alternating_low_rank(4)": gmc_jax.alternating_low_rank(4),
        "majority_vote": gmc_jax.majority_vote(),
    }
    compressed_ring = gmc_jax.compressed_gossip(ring, gmc_jax.integers(8))
    differences = gmc_jax.gossip_differences(ring, gmc_jax.top_k(ratio), 0.5)
    return {
        **{name: (gmc_jax.gmc(0.1, each), each) for name, each in channels.items()},
        "ring": (gmc_jax.d_psgd(0.1, ring), gmc_jax.gossip(ring)),
        "ring, integers(8)": (
            gmc_jax.dcd_psgd(0.1, compressed_ring),
            compressed_ring,
        ),
        "ring, differences": (gmc_jax.choco_sgd(0.1, differences), differences),
    }


def compared(
    tx: optax.GradientTransformation, channel: gmc_jax.Channel, d: int
) -> record.Row:
    """Compiles a step, runs it, and counts its bytes and those of a message."""
    side = math.isqrt(int(MATRIX * d))
    sizes = [int(share * d) for share in SHARES]
    rest = d - side**2 - sum(sizes)
    params = [jnp.zeros((side, side)), *map(jnp.zeros, (*sizes, rest))]

    def loss(params: Sequence[jax.Array], batch: jax.Array) -> jax.Array:
        return sum((jnp.sum((leaf - batch) ** 2) for leaf in params), jnp.zeros(()))

    def step(state, batch):
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    batch = jnp.arange(jax.device_count(), dtype=jnp.float32)
    train, state = gmc_jax.distribute(step, (params, tx.init(params)), batch)
    sent = gmc_jax.wire_bytes(train, state, batch)
    _, losses = train(state, batch)
    return {
        "sent": int(sent),
        "message": gmc_jax.message_bits(channel, params) / 8,
        "loss": float(jnp.mean(losses)),
    }


def _tables(rows: Sequence[record.Row]) -> list[Table]:
    shown = Table("method", title="Bytes of a worker in one step")
    for column in ("in the program", "in the message", "over"):
        shown.add_column(column, justify="right")
    for row in rows:
        if row["kind"] == "bytes":
            over = row["sent"] - row["message"]
            numbers = (row["sent"], row["message"], over)
            shown.add_row(row["method"], *(f"{number:,.0f}" for number in numbers))
    return [shown]


STUDY = Study("bytes", "message", _tables)
