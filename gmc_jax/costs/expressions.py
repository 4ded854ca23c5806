"""How methods with a pattern are written in Python, over momentum SGD or Adam."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gmc_jax.core import Channel, Compressor
from gmc_jax.utils import checks

Optimizer: TypeAlias = Literal["sgd", "adam"]
"""The optimizer that methods are written over: momentum SGD, or Adam."""

_CALL = re.compile(r"\b([a-z_]\w*)\(")


@dataclass(frozen=True)
class Templates:
    """How methods are written over an optimizer; `{}` stands for the channel.

    Attributes:
      label: how names begin for methods that keep what was not sent.
      inner: the optimizer, as a worker runs it on its own.
      mean: takes steps on the mean of what was sent, which needs no residual.
      remembering: keeps in a residual what was not sent.
      blocks: the same through data-independent blocks.
      low_rank: the same through matrices of low rank.
      votes: steps by the majority's sign.
      votes_label: the name of these.
      local: averages parameters every `{period}` steps.
      local_label: the name of these.
      alone: why methods are never called safe whose workers run the optimizer alone
        for some steps; empty if there is no reason.
      ring: averages with both neighbours; `{}` stands for the topology.
      peer: averages with one worker at a time.
      late_peer: the same with a delay.
    """

    label: str
    inner: str
    mean: str
    remembering: str
    blocks: str
    low_rank: str
    votes: str
    votes_label: str
    local: str
    local_label: str
    alone: str
    ring: str
    peer: str
    late_peer: str

    @property
    def dense(self) -> str:
        """The method without compression."""
        return self.mean.format("gmc_jax.exact()")


def _adam_and(then: str) -> str:
    return f"optax.chain(optax.adam(rate), {then})"


_BEHIND_ADAM = _adam_and("gmc_jax.error_feedback({})")
_BEFORE_ADAM = "optax.chain(gmc_jax.error_feedback({}), optax.adam(rate))"

TEMPLATES: dict[str, Templates] = {
    "sgd": Templates(
        label="GMC",
        inner="optax.sgd(rate, 0.9, nesterov=True)",
        mean="gmc_jax.dmsgd(rate, {})",
        remembering="gmc_jax.gmc(rate, {})",
        blocks="gmc_jax.gmc_plus(rate, {}, detach=0.3)",
        low_rank="gmc_jax.power_sgd(rate, {})",
        votes="gmc_jax.signum(rate, {})",
        votes_label="signSGD, Signum, majority vote",
        local=(
            "gmc_jax.local_sgd(rate, {}, period={period}, momentum=0.9, nesterov=True)"
        ),
        local_label="local SGD, SlowMo",
        alone="",
        ring="gmc_jax.d_psgd(rate, {}, momentum=0.9)",
        peer="gmc_jax.sgp(rate, {}, momentum=0.9)",
        late_peer="gmc_jax.sgp(rate, {}, momentum=0.9, delay=1)",
    ),
    "adam": Templates(
        label="Adam",
        inner="optax.adam(rate)",
        mean="optax.chain(gmc_jax.averaged({}), optax.adam(rate))",
        remembering=_BEHIND_ADAM,
        blocks=_BEHIND_ADAM,
        low_rank=_BEFORE_ADAM,
        votes="gmc_jax.distributed_lion(rate, {})",
        votes_label="Distributed Lion, majority vote",
        local="gmc_jax.slowmo(optax.adam(rate), {}, period={period})",
        local_label="local Adam, SlowMo",
        # `equal_bytes` in `experiments/results`, text: local Adam 0.10, Streaming
        # DiLoCo 0.14, DiLoCo 0.38; on digits 0.16, 0.37 and 0.09.
        alone="local steps of Adam ended 0.1 and more above dense where measured",
        ring=_adam_and("gmc_jax.combine_then_adapt(gmc_jax.gossip({}))"),
        peer=_adam_and("gmc_jax.adapt_then_combine(gmc_jax.gossip({}))"),
        late_peer=_adam_and("gmc_jax.push_sum(gmc_jax.gossip({}, delay=1))"),
    ),
}
"""How methods are written over each optimizer."""


def templates(optimizer: str) -> Templates:
    """Returns how methods are written over an optimizer.

    Raises:
      ValueError: if the optimizer is unknown.
    """
    if not isinstance(optimizer, str) or optimizer not in TEMPLATES:
        raise ValueError(
            f"`optimizer` must be one of {', '.join(map(repr, TEMPLATES))}, got "
            f"{checks.shown(optimizer)}."
        )
    return TEMPLATES[optimizer]


def written(made: Channel | Compressor) -> str:
    """Writes a channel as Python: `gmc_jax.all_gather(gmc_jax.top_k(0.01))`."""
    return _CALL.sub(r"gmc_jax.\1(", repr(made))
