"""Methods over AdamW."""

import chex
import jax.numpy as jnp
import optax
import pytest

from experiments.training.adam_methods import ADAM_METHODS, adamw
from experiments.training.compression import Compression
from experiments.training.local_methods import PERIOD

PARAMS = {
    "0": {"kernel": jnp.zeros((256, 256))},
    "1": {"kernel": jnp.zeros((256, 256)), "scale": jnp.zeros(256)},
}
ENTRIES = 2 * 256**2 + 256
COMPRESSION = Compression("top_k", 0.01, workers=2, steps=60, counts=False)


def test_only_matrices_decay():
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    tx = adamw(0.5, 0.9)

    updates, _ = tx.update(optax.tree.zeros_like(params), tx.init(params), params)

    chex.assert_trees_all_close(
        updates, {"kernel": jnp.full((2, 2), -0.05), "scale": jnp.zeros(2)}, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("adamw", 1.0),
        ("adamw_in_front", 0.02),
        ("adamw_behind", 0.02),
        # 4 % of the entries: two bits a value, about seven a place.
        ("adamw_detached", 0.011),
        ("adamw_diloco", 1 / PERIOD),
        # Two fragments; the last message of one comes after the training.
        ("adamw_streaming", 0.9 / PERIOD),
        # Twelve bits a place, two a value, and the centroids.
        ("adamw_sparse_loco", 0.0055 / PERIOD),
        ("adamw_gmc", 0.02 / PERIOD),
        ("muon_muloco", 1 / PERIOD),
        # The first fifth of the steps is dense, the others send signs.
        ("adamw_one_bit", 0.2 + 0.8 / 32),
        # Two matrices of rank 4, and the norm.
        ("adamw_power_sgd", (2 * 4 * 512 + 256) / ENTRIES),
    ],
)
def test_what_is_sent_relative_to_dense(name, share):
    bits = ADAM_METHODS[name].bits_of_steps(COMPRESSION, PARAMS).sum()

    assert bits / (60 * 32 * ENTRIES) == pytest.approx(share, rel=0.02)


def test_all_methods_are_compared():
    assert {"adamw", "adamw_detached", "muon_muloco"} <= ADAM_METHODS.keys()
    assert [name for name in ADAM_METHODS if ADAM_METHODS[name].dense] == ["adamw"]
    assert [name for name in ADAM_METHODS if ADAM_METHODS[name].beside] == [
        "adamw_streaming"
    ]
