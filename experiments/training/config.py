"""What a comparison of methods is made of; its fields are the command-line options."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.data.datasets import DATA
from experiments.data.partitions import PARTITIONS
from experiments.models import MODELS
from experiments.training.backends import BACKENDS
from experiments.training.compression import COMPRESSORS, Messages
from experiments.training.methods import METHODS
from gmc_jax.utils import checks


@dataclasses.dataclass(frozen=True)
class Config:
    """A comparison of methods on one task; the defaults are the main job."""

    data: str = "digits"
    """The data set: digits, cifar10, cifar100 or text."""
    data_file: Annotated[Path | None, tyro.conf.arg(aliases=["--text-file"])] = None
    """A file to read the images from in place of tensorflow-datasets: an .npz with
    train_images, train_labels, test_images and test_labels. Or the text."""
    fraction: float = 1.0
    """The share of the training images that is used, drawn at random."""
    model: str = "mlp"
    """The network: mlp, mlp_1m, mlp_10m, resnet20_bn, resnet20_gn, vit, vit_small or
    characters."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--method"])] = (
        "dmsgd",
        "ef_sgd",
        "ef_momentum",
        "dgc",
        "gmc_server_momentum",
        "gmc",
    )
    """What to compare, in this order."""
    compressor: str = "top_k"
    """What the methods send that are not dense: top_k, sampled_top_k, random_k,
    random_block, scaled_sign or dense."""
    ratio: float = 0.01
    """The share of the entries that a message holds; signs hold all of them."""
    workers: int = 8
    """How many workers there are."""
    partition: str = "dirichlet"
    """How samples are shared out: dirichlet (drawn by label), by_label or iid."""
    alpha: float = 0.1
    """Concentration of the Dirichlet partition; the smaller, the fewer labels each."""
    batch_size: int = 16
    """Samples a worker and step."""
    epochs: int = 60
    """Passes of every worker over its share."""
    steps: int | None = None
    """Steps to train for, in place of epochs."""
    evaluations: int = 30
    """How often to judge the model on the way; each time is a point to resume from."""
    judge_on: int = 10_000
    """How many images of each split judge the model on the way, at most; the last time
    it is all of them."""
    learning_rate: float = 0.05
    """The rate at the start."""
    learning_rates: tuple[tuple[str, float], ...] = (("ef_sgd", 0.5),)
    """Other rates for single methods. EF-SGD has no momentum, and a momentum of 0.9
    makes steps ten times as long in the long run."""
    schedule: Literal["cosine", "cosine_by_epoch", "constant"] = "cosine"
    """How the rate goes on: down to 0 along a cosine, step by step or (not quite to 0)
    epoch by epoch, or constant."""
    momentum: float = 0.9
    """The momentum of the methods that have one."""
    weight_decay: float = 0.0
    """Added to the gradients before anything else, times the parameters."""
    count: bool = True
    """Whether to count entries for the relative communication cost, in a pass over the
    parameters at each step."""
    backend: str = "simulate"
    """Where the workers live: simulate (all on one device), distribute or pmap."""
    seed: int = 0
    """The first seed: of the partition, the batches and the parameters. Compressors
    draw from this one whatever the seed of the training."""
    seeds: int = 1
    """How many seeds every method is trained with, counting up from the first."""
    seeds_at_once: int | None = None
    """How many of them in one program; all on an accelerator and one on a CPU, unless
    told."""

    def __post_init__(self):
        """Refuses names that nothing goes by, and numbers that make no run."""
        _known("data", self.data, DATA)
        _known("model", self.model, MODELS)
        _known("compressor", self.compressor, COMPRESSORS)
        _known("backend", self.backend, BACKENDS)
        _known("partition", self.partition, PARTITIONS)
        for method in (*self.methods, *dict(self.learning_rates)):
            _known("methods", method, METHODS)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                "`methods` must name at least one method and none of them twice, but "
                f"is {self.methods}."
            )
        if len(dict(self.learning_rates)) < len(self.learning_rates):
            raise ValueError(
                "`learning_rates` must name no method twice, but is "
                f"{self.learning_rates}."
            )
        for name in (
            "workers",
            "batch_size",
            "epochs",
            "evaluations",
            "judge_on",
            "steps",
            "seeds",
            "seeds_at_once",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {value}.")
        checks.fraction(fraction=self.fraction, ratio=self.ratio)
        amounts = {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            **{f"learning_rates {name}": rate for name, rate in self.learning_rates},
        }
        for name, value in amounts.items():
            if not 0 <= value < np.inf:
                raise ValueError(
                    f"`{name}` must be finite and at least 0, but is {value}."
                )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be in [0, 2^32), but is {self.seed}.")
        if (self.data == "text") != (self.model == "characters"):
            raise ValueError(
                f"`model` {self.model!r} cannot learn the data set {self.data!r}: "
                "`characters` reads text, and nothing else does. Use both, or neither."
            )
        if self.backend != "simulate" and (self.seeds_at_once or 1) > 1:
            raise ValueError(
                f"`seeds_at_once` is {self.seeds_at_once}, but the backend "
                f"{self.backend!r} trains one seed at a time. Use 1, or "
                "`--backend simulate`."
            )
        for method in self.methods:
            self.optimizer(method, 1, 1)  # Which refuses what it cannot use.

    def messages(self, steps: int) -> Messages:
        """What the methods send that are not dense, in so many steps."""
        return Messages(
            self.compressor, self.ratio, self.seed, self.workers, steps, self.count
        )

    def optimizer(
        self, method: str, steps: int, steps_per_epoch: int
    ) -> optax.GradientTransformationExtraArgs:
        """`method` with the schedule and the weight decay of this comparison."""
        rate = self.rate(method)
        falling = optax.cosine_decay_schedule(rate, steps)
        schedules: dict[str, optax.ScalarOrSchedule] = {
            "constant": rate,
            "cosine": falling,
            "cosine_by_epoch": lambda step: falling(
                jnp.asarray(step) // steps_per_epoch * steps_per_epoch
            ),
        }
        tx = METHODS[method].build(
            schedules[self.schedule], self.messages(steps), self.momentum
        )
        if self.weight_decay:
            tx = optax.chain(optax.add_decayed_weights(self.weight_decay), tx)
        return tx

    def rate(self, method: str) -> float:
        """The learning rate of `method` at the start."""
        return dict(self.learning_rates).get(method, self.learning_rate)


def _known(argument: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ValueError(
            f"`{argument}` names {name!r}, which is none of {', '.join(names)}."
        )
