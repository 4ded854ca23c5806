"""Errors for a channel, a compressor or a transformation where another kind belongs."""

import optax

from gmc_jax.core import Channel, Compressor
from gmc_jax.utils.call_repr import has_call


def no_channel(name: str, value: object, shown: str) -> TypeError:
    """The error for an argument that should be a channel."""
    remedy = "`exact()`, or `all_gather(top_k(0.01))`"
    if isinstance(value, Compressor):
        remedy = f"`{_through(value)}`"
    elif isinstance(value, optax.GradientTransformation):
        remedy = "its channel alone, such as `all_gather(top_k(0.01))`"
    return _error(name, "a channel", value, shown, remedy)


def no_compressor(name: str, value: object, shown: str) -> TypeError:
    """The error for an argument that should be a compressor."""
    remedy = "`top_k(0.01)`"
    if isinstance(value, Channel | optax.GradientTransformation):
        remedy = "its compressor alone, such as `top_k(0.01)`"
    return _error(name, "a compressor", value, shown, remedy)


def no_transformation(name: str, value: object, shown: str) -> TypeError:
    """The error for an argument that should be an optax transformation."""
    remedy = "`optax.sgd(0.1)`, or another optimizer"
    if isinstance(value, Channel | Compressor):
        channel = _through(value)
        remedy = f"`error_feedback({channel})`, or `averaged({channel})`"
    return _error(name, "an optax transformation", value, shown, remedy)


def _error(name: str, wanted: str, value: object, shown: str, remedy: str) -> TypeError:
    for kind, noun in (
        (Compressor, "compressor"),
        (Channel, "channel"),
        (optax.GradientTransformation, "transformation"),
    ):
        if isinstance(value, kind) and has_call(value):
            shown = f"the {noun} `{shown}`"
    return TypeError(f"`{name}` must be {wanted}, got {shown}; write {remedy}.")


def _through(value: Channel | Compressor) -> str:
    """The call of the channel given, or of a channel through the compressor given."""
    if isinstance(value, Channel):
        return repr(value) if has_call(value) else "channel"
    compressor = repr(value) if has_call(value) else "compressor"
    adds = value.shared and value.additive
    return f"{'all_reduce' if adds else 'all_gather'}({compressor})"
