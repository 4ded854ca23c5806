"""The bits of floats: sign, exponent and mantissa."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class FloatBits(NamedTuple):
    """How a floating dtype of 32 or 64 bits is made.

    Attributes:
      integers: the unsigned integers of its width.
      mantissa: the number of bits of the mantissa.
      bias: what is added to an exponent.
      sign: the place of the sign.
    """

    integers: jnp.dtype
    mantissa: int
    bias: int
    sign: int


def float_bits(dtype: jnp.dtype) -> FloatBits:
    """Describes a dtype of 32 or 64 bits."""
    limits = jnp.finfo(dtype)
    integers = jnp.dtype(f"uint{limits.bits}")
    return FloatBits(integers, limits.nmant, 1 - int(limits.minexp), limits.bits - 1)


def to_bits(x: jax.Array) -> jax.Array:
    """The bits of floats, as unsigned integers."""
    return lax.bitcast_convert_type(x, float_bits(x.dtype).integers)


def power_of_two(exponent: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """2 ** exponent, of integers within the range of normal numbers."""
    made = float_bits(dtype)
    bits = (exponent + made.bias).astype(made.integers) << made.mantissa
    return lax.bitcast_convert_type(bits, dtype)


def power_above(x: jax.Array) -> jax.Array:
    """The smallest power of two that is at least x, of positive normal numbers.

    Zero, infinity and NaN stay as they are.
    """
    made = float_bits(x.dtype)
    ones = made.integers.type(2**made.mantissa - 1)
    bits = (to_bits(x) + ones) & ~ones
    power = lax.bitcast_convert_type(bits, x.dtype)
    return jnp.where(jnp.isfinite(x), power, x)
