"""The options of `run`: each field is a command-line option."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.data.datasets import DATA
from experiments.data.partitions import PARTITIONS
from experiments.data.text import TEXTS, WINDOW
from experiments.models.gpt import Gpt
from experiments.models.networks import LANGUAGE, MODELS
from experiments.training.backends import BACKENDS
from experiments.training.compression import COMPRESSORS, Compression
from experiments.training.methods import METHODS
from experiments.utils import units
from gmc_jax.clocks.link import Link
from gmc_jax.utils import checks


@dataclasses.dataclass(frozen=True)
class Config:
    """A comparison of methods on one task; the defaults are the run `digits`."""

    data: str = "digits"
    """The data set: digits, cifar10 or cifar100.
    A text, as characters: text. As bytes: bytes. As a tokenizer writes it: tokens."""
    data_file: Annotated[Path | None, tyro.conf.arg(aliases=["--text-file"])] = None
    """A file to read instead of tensorflow-datasets; for text and bytes, a UTF-8 file;
    for tokens, a file that the command `tokens` wrote.
    Arrays of the .npz: train_images, train_labels, test_images, test_labels."""
    fraction: float = 1.0
    """The share of the training images to use, drawn at random."""
    model: str = "mlp"
    """One of mlp, mlp_1m, mlp_10m, resnet20_bn, resnet20_gn, vit, vit_small.
    Texts need characters or gpt."""
    gpt: Gpt = dataclasses.field(default_factory=Gpt)
    """The size of the model gpt."""
    window: int = WINDOW
    """The tokens of a sample of text."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--method"])] = (
        "dmsgd",
        "ef_sgd",
        "ef_momentum",
        "dgc",
        "gmc_server_momentum",
        "gmc",
    )
    """The methods to compare, in this order."""
    compressor: str = "top_k"
    """The compressor of all methods that are not dense.
    One of top_k, sampled_top_k, chunked_top_k, quantised_top_k, random_k,
    random_block, scaled_sign, integers, dense."""
    ratio: float = 0.01
    """The share of the entries that a message holds; signs hold all of them."""
    workers: int = 8
    """The number of workers."""
    resize: tuple[int, int] | None = None
    """A step, and the number of workers from there on."""
    partition: str = "dirichlet"
    """How samples are divided: dirichlet (drawn by label), by_label (sorted) or iid."""
    alpha: float = 0.1
    """Concentration of the Dirichlet partition; if small, workers have few labels."""
    batch_size: int = 16
    """Samples in the batch of one worker."""
    epochs: int = 60
    """Passes of every worker over its share."""
    steps: int | None = None
    """Steps to train for, instead of epochs."""
    evaluations: int = 30
    """How many times to evaluate the model, and save a checkpoint, in training."""
    judge_on: int = 10_000
    """The most samples of a split to evaluate on before the last step."""
    judge_last_on: int | None = None
    """The most samples of a split to evaluate on after it; by default all."""
    learning_rate: float = 0.05
    """The learning rate at the start."""
    learning_rates: tuple[tuple[str, float], ...] = (("ef_sgd", 0.5),)
    """Learning rates of single methods, instead of the common one.
    EF-SGD lacks the momentum of 0.9 that makes steps ten times as long."""
    schedule: Literal["cosine", "cosine_by_epoch", "constant"] = "cosine"
    """The schedule of the learning rate. A cosine falls to 0, step by step.
    If it falls epoch by epoch, the last epoch is above 0."""
    warmup: int = 0
    """Steps in which the learning rate first rises from 0, on a line."""
    momentum: float = 0.9
    """The momentum of the methods that have one."""
    weight_decay: float = 0.0
    """The multiple of the parameters that is added to gradients, before all else."""
    count: bool = True
    """Whether to count entries for the relative communication cost.
    Counting takes a pass over the parameters at each step."""
    bandwidth: str | None = None
    """The bandwidth of each worker's link, such as 100mbit, to simulate seconds with.
    Units: 100mbit, 1gbit, 12.5mbps (bytes), unshaped."""
    latency: str = "0ms"
    """The latency of a simulated message: 20ms, 500us, 0.1s."""
    step_time: str = "0s"
    """The simulated time of a step's computation, encoding included."""
    backend: str = "simulate"
    """What runs the workers: simulate (all on one device), distribute or pmap."""
    devices_each: int = 1
    """The devices of a worker, over which the model gpt is split.
    More than 1 needs the backend distribute."""
    seed: int = 0
    """The first seed, of the partition, the batches and the parameters.
    Compressors draw from it for all seeds of the training."""
    seeds: int = 1
    """The number of seeds to train every method with, counting up from the first."""
    seeds_at_once: int | None = None
    """How many seeds to train in one program.
    By default all of them on an accelerator, and one on a CPU."""

    def __post_init__(self):
        """Refuses unknown names, and values out of range."""
        _known("data", self.data, DATA)
        _known("model", self.model, (*MODELS, "gpt"))
        _known("compressor", self.compressor, COMPRESSORS)
        _known("backend", self.backend, BACKENDS)
        _known("partition", self.partition, PARTITIONS)
        for method in (*self.methods, *dict(self.learning_rates)):
            _known("methods", method, METHODS)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                "`methods` must name at least one method and no method twice, got "
                f"{self.methods}."
            )
        if len(dict(self.learning_rates)) < len(self.learning_rates):
            raise ValueError(
                "`learning_rates` must name no method twice, got "
                f"{self.learning_rates}."
            )
        for name in (
            "workers",
            "devices_each",
            "batch_size",
            "epochs",
            "evaluations",
            "judge_on",
            "judge_last_on",
            "window",
            "steps",
            "seeds",
            "seeds_at_once",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        checks.fraction(fraction=self.fraction, ratio=self.ratio)
        amounts = {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            **{f"learning_rates {name}": rate for name, rate in self.learning_rates},
        }
        for name, value in amounts.items():
            if not 0 <= value < np.inf:
                raise ValueError(
                    f"`{name}` must be finite and at least 0, got {value}."
                )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be in [0, 2^32), got {self.seed}.")
        if (self.data in TEXTS) != (self.model in LANGUAGE):
            raise ValueError(
                f"`model` {' or '.join(LANGUAGE)} and `data` {', '.join(TEXTS)} must "
                f"be used together, got {self.model!r} with {self.data!r}. Use both, "
                "or neither."
            )
        checks.nonnegative_int(warmup=self.warmup)
        if self.resize is not None:
            where, workers = self.resize
            checks.positive_int(**{"resize step": where, "resize workers": workers})
        if self.link is not None:
            checks.nonnegative(step_time=units.seconds(self.step_time))
        if self.devices_each > 1 and (self.backend, self.model) != (
            "distribute",
            "gpt",
        ):
            raise ValueError(
                "`devices_each` must be 1 unless `backend` is 'distribute' and `model` "
                f"'gpt', got {self.devices_each} with {self.backend!r} and "
                f"{self.model!r}. Leave it out, or use `--backend distribute`."
            )
        if self.backend != "simulate" and (self.seeds_at_once or 1) > 1:
            raise ValueError(
                f"`seeds_at_once` must be 1 for the backend {self.backend!r}, got "
                f"{self.seeds_at_once}. Use 1, or `--backend simulate`."
            )
        for method in self.methods:
            self.optimizer(method, 1, 1)  # It refuses hyper-parameters out of range.

    @property
    def most_workers(self) -> int:
        """The largest number of workers at a time."""
        return max(self.workers, self.resize[1] if self.resize else 0)

    @property
    def link(self) -> Link | None:
        """The link to simulate seconds with; None without a bandwidth."""
        if self.bandwidth is None:
            return None
        return Link(units.seconds(self.latency), units.bytes_per_second(self.bandwidth))

    def compression(self, steps: int) -> Compression:
        """How the methods that are not dense compress, in a training of `steps`."""
        return Compression(
            self.compressor, self.ratio, self.seed, self.workers, steps, self.count
        )

    def optimizer(
        self,
        method: str,
        steps: int,
        steps_per_epoch: int,
        rate: jax.Array | float | None = None,
    ) -> optax.GradientTransformationExtraArgs:
        """Makes a method with the schedule and the weight decay of this comparison.

        Args:
          method: a name in `METHODS`.
          steps: of the whole training.
          steps_per_epoch: in which every worker passes over its share once.
          rate: the learning rate at the start, by default that of the configuration.
            With a schedule that falls, it may be traced.
        """
        rate = self.rate(method) if rate is None else rate
        falling = optax.cosine_decay_schedule(rate, steps)
        schedules: dict[str, optax.ScalarOrSchedule] = {
            "constant": rate,
            "cosine": falling,
            "cosine_by_epoch": lambda step: falling(
                jnp.asarray(step) // steps_per_epoch * steps_per_epoch
            ),
        }
        schedule = schedules[self.schedule]
        if self.warmup:
            schedule = _after_warmup(schedule, self.warmup)
        tx = METHODS[method].build(schedule, self.compression(steps), self.momentum)
        if self.weight_decay:
            tx = optax.chain(optax.add_decayed_weights(self.weight_decay), tx)
        return tx

    def rate(self, method: str) -> float:
        """The learning rate of a method at the start."""
        return dict(self.learning_rates).get(method, self.learning_rate)


def _after_warmup(
    schedule: optax.ScalarOrSchedule, steps: int
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    rising = optax.linear_schedule(0.0, 1.0, steps)

    def rate(step):
        later = schedule(step) if callable(schedule) else schedule
        return jnp.asarray(rising(step + 1) * later)

    return rate


def _known(argument: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ValueError(
            f"`{argument}` must be among {', '.join(names)}, got {name!r}."
        )
