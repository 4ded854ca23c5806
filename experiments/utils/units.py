"""Parses numbers with units as iproute2's tc does: `100mbit`, `20ms`, `1e9`."""

import math
import re

# https://man7.org/linux/man-pages/man8/tc.8.html: rates in SI units, or in IEC units
# with an i; `bit` is bits a second, `bps` bytes a second; no unit is bits a second.
_PREFIXES = {
    letter + i: base**power
    for power, letter in enumerate(("", "k", "m", "g", "t"))
    for i, base in (("", 1000), ("i", 1024))
    if letter or not i
}
_RATES = {
    prefix + unit: times / bits
    for prefix, times in _PREFIXES.items()
    for unit, bits in (("bit", 8), ("bps", 1))
} | {"": 1 / 8}
_TIMES = {
    name: seconds
    for names, seconds in (
        (("", "s", "sec", "secs"), 1.0),
        (("ms", "msec", "msecs"), 1e-3),
        (("us", "usec", "usecs"), 1e-6),
    )
    for name in names
}
_MOST = 1e18  # NumPy counts in 63 bits.
_UNSHAPED = ("inf", "unshaped")


def bytes_per_second(text: str) -> float:
    """Parses a rate: `100mbit`, `1gbit`, `12.5mbps` (bytes), `inf` or `unshaped`.

    A number without a unit is in bits a second, as in tc.

    Raises:
      ValueError: if the text is no rate, or the rate is not greater than 0.
    """
    if text.strip().lower() in _UNSHAPED:
        return math.inf
    rate = _read(text, _RATES, "a rate such as 100mbit, 1gbit or unshaped")
    if rate <= 0:
        raise ValueError(
            f"a rate must be greater than 0, got {text!r}. Nothing can be planned for "
            "a link that sends nothing."
        )
    return rate


def in_bits(rate: float) -> str:
    """Formats bytes a second in a unit of tc; infinity is `unshaped`."""
    if math.isinf(rate):
        return _UNSHAPED[-1]
    for unit, size in (("gbit", 1e9), ("mbit", 1e6)):
        if 8 * rate >= size:
            return f"{8 * rate / size:.3g} {unit}"
    return f"{8 * rate / 1e3:.3g} kbit"


def seconds(text: str) -> float:
    """Parses a time: `20ms`, `500us`, `0.5s`; a number without a unit is in seconds.

    Raises:
      ValueError: if the text is no time.
    """
    return _read(text, _TIMES, "a time such as 20ms, 500us or 0.5s")


def whole(text: str) -> int:
    """Parses a whole number of at least 1: `64`, `1e9`, `25_000_000`.

    Raises:
      ValueError: if the text is no such number.
    """
    number = _read(text, {"": 1.0}, "a number such as 1e9")
    if number < 1 or number != round(number) or number > _MOST:
        raise ValueError(
            f"a count must be a whole number from 1 to {_MOST:.0e}, got {text!r}."
        )
    return round(number)


def _read(text: str, units: dict[str, float], what: str) -> float:
    found = re.fullmatch(
        r"\s*(\d[\d_]*\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z]*)\s*", text.lower()
    )
    if not found or found[2] not in units:
        known = [unit for unit in units if unit]
        units_known = f" Units are {', '.join(known)}." if known else ""
        raise ValueError(f"{text!r} is not {what}.{units_known}")
    number = float(found[1]) * units[found[2]]
    if math.isinf(number):
        raise ValueError(f"{text!r} is not {what}: it is too large.")
    return number
