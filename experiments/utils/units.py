"""Numbers with units, as iproute2's tc reads them: `100mbit`, `20ms`, `1e9`."""

import math
import re

# https://man7.org/linux/man-pages/man8/tc.8.html: rates in SI units, or IEC ones with
# an i; bit for bits, bps for bytes; without a unit bits.
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
_MOST = 1e18  # Of parameters; NumPy counts in 63 bits.
_UNSHAPED = ("inf", "unshaped")


def bytes_per_second(text: str) -> float:
    """A rate: `100mbit`, `1gbit`, `12.5mbps` (bytes, in tc), `inf` or `unshaped`.

    Without a unit it is bits a second, as in tc.

    Raises:
      ValueError: if it is no rate, or not greater than 0.
    """
    if text.strip().lower() in _UNSHAPED:
        return math.inf
    rate = _read(text, _RATES, "a rate such as 100mbit, 1gbit or unshaped")
    if rate <= 0:
        raise ValueError(
            f"a rate must be greater than 0, but is {text!r}. A link that sends "
            "nothing has no plan."
        )
    return rate


def in_bits(rate: float) -> str:
    """Bytes a second in a unit of tc; unshaped if they are infinite."""
    if math.isinf(rate):
        return _UNSHAPED[-1]
    for unit, size in (("gbit", 1e9), ("mbit", 1e6)):
        if 8 * rate >= size:
            return f"{8 * rate / size:.3g} {unit}"
    return f"{8 * rate / 1e3:.3g} kbit"


def seconds(text: str) -> float:
    """A time: `20ms`, `500us`, `0.5s`; without a unit in seconds.

    Raises:
      ValueError: if it is no time.
    """
    return _read(text, _TIMES, "a time such as 20ms, 500us or 0.5s")


def whole(text: str) -> int:
    """A whole number of at least 1, with an exponent if need be: `1e9`, `25_000_000`.

    Raises:
      ValueError: if it is none.
    """
    number = _read(text, {"": 1.0}, "a number such as 1e9")
    if number < 1 or number != round(number) or number > _MOST:
        raise ValueError(
            f"a count must be a whole number of at least 1 and at most {_MOST:.0e}, "
            f"not {text!r}."
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
        raise ValueError(f"{text!r} is not {what}: it is beyond all numbers.")
    return number
