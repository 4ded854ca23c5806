"""One program for all workers and seeds: loops, scans and seeds agree."""

import dataclasses

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.models.gpt import Gpt
from experiments.models.networks import MODELS
from experiments.training import tasks
from experiments.training.config import Config
from experiments.training.trainer import Trainer
from tests.support.small_gpt import small_gpt, written

CONFIG = Config(
    methods=("cser",), compressor="random_block", ratio=0.05, workers=2, steps=6
)
close = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def seeds():
    return [tasks.build(CONFIG, seed) for seed in (0, 1)]


def trained(trainer, *stops):
    first = 0
    for stop in stops:
        trainer.run(first, stop)
        first = stop
    return trainer.models()


@pytest.fixture(scope="module")
def alone(seeds):
    return [trained(Trainer("cser", [task], CONFIG), 4)[0] for task in seeds]


@pytest.mark.slow
def test_seeds_that_are_trained_together_end_like_each_alone(seeds, alone):
    trainer = Trainer("cser", seeds, CONFIG)

    together = trained(trainer, 1, 4)

    chex.assert_trees_all_close(together, alone, **close)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(together[0], together[1], **close)


@pytest.mark.slow
def test_counters_are_kept_once_for_all_seeds(seeds):
    """A batched counter would turn the conditional of the resets into a select."""
    trainer = Trainer("cser", seeds, CONFIG)
    counters = [
        leaf
        for leaf in jax.tree.leaves(trainer.state[1])
        if leaf.dtype == np.int32 and leaf.size < 4
    ]

    assert counters
    assert all(leaf.ndim == 0 for leaf in counters)


@pytest.mark.slow
def test_a_scan_ends_like_the_loop(seeds, alone, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "an accelerator")
    done = []
    trainer = Trainer("cser", seeds[:1], CONFIG)
    trainer.run(0, 3, done.append)
    trainer.run(3, 4, done.append)

    chex.assert_trees_all_close(trainer.models(), alone[:1], **close)
    assert done == [3, 4]


@pytest.mark.slow
def test_a_scan_of_several_seeds_ends_like_each_alone(seeds, alone, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "an accelerator")
    trainer = Trainer("cser", seeds, CONFIG)

    chex.assert_trees_all_close(trained(trainer, 4), alone, **close)


def test_steps_are_counted_as_they_are_taken(seeds):
    done = []
    Trainer("cser", seeds[:1], CONFIG).run(2, 5, done.append)

    assert done == [3, 4, 5]


class Normed(nn.Module):
    """Keeps batch statistics and compiles fast."""

    classes: int

    @nn.compact
    def __call__(self, images, train):
        flat = images.reshape(len(images), -1)
        flat = nn.BatchNorm(use_running_average=not train)(flat)
        return nn.Dense(self.classes)(flat)


def test_batch_statistics_differ_between_workers_and_are_averaged(monkeypatch):
    monkeypatch.setitem(MODELS, "normed", Normed)
    config = dataclasses.replace(CONFIG, methods=("gmc",), model="normed")
    task = tasks.build(config, 0)
    trainer = Trainer("gmc", [task], config)

    ((_, stats),) = trained(trainer, 1)

    kept = trainer.state[2]
    chex.assert_trees_all_equal_shapes(stats, task.stats)
    jax.tree.map(
        lambda leaf, one: np.testing.assert_allclose(
            np.mean(leaf, axis=0), one, rtol=1e-5, atol=1e-6
        ),
        kept,
        stats,
    )
    first = jax.tree.leaves(kept)[0]
    assert not np.allclose(first[0], first[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adamw", "adamw_behind"])
def test_workers_of_two_devices_each_end_like_simulated_ones(tmp_path, method):
    simulated = small_gpt(
        written(tmp_path),
        gpt=Gpt(blocks=1, width=16, heads=2),
        methods=(method,),
        ratio=0.1,
        steps=12,
    )
    split = dataclasses.replace(simulated, backend="distribute", devices_each=2)
    task = tasks.build(simulated, 0)

    ended, other = (
        trained(Trainer(method, [task], config), 12)[0] for config in (simulated, split)
    )

    kernel = Trainer(method, [task], split).state[0]["blocks"][0]["queries"]["kernel"]
    assert kernel.sharding.spec[-1] == "model"
    assert len(kernel.sharding.device_set) == 4
    chex.assert_trees_all_close(ended, other, rtol=1e-3, atol=1e-4)
