"""Tests of numbers with units."""

import math

import pytest

from experiments.utils.units import bytes_per_second, in_bits, seconds, whole


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("8", 1),
        ("8bit", 1),
        ("100mbit", 12.5e6),
        ("100 MBit", 12.5e6),
        ("1gbit", 125e6),
        ("0.5kbit", 62.5),
        ("1e3kbit", 125e3),
        ("8kibit", 1024),
        ("2tbit", 250e9),
        ("1mbps", 1e6),
        ("3bps", 3),
        ("1Gibps", 2**30),
        ("inf", math.inf),
        (" Unshaped", math.inf),
    ],
)
def test_rates_are_those_of_tc(text, rate):
    assert bytes_per_second(text) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "time"),
    [("20ms", 0.02), ("500us", 5e-4), ("0.5s", 0.5), ("0.5", 0.5), ("0", 0.0)],
)
def test_times(text, time):
    assert seconds(text) == pytest.approx(time, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e9", 10**9), ("1e12", 10**12), ("25_000_000", 25_000_000), ("1.5e3", 1500)],
)
def test_counts(text, number):
    assert whole(text) == number
    assert isinstance(whole(text), int)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (bytes_per_second, "fast", "'fast' is not a rate such as 100mbit.* kbit"),
        (bytes_per_second, "1mb", "'1mb' is not a rate"),
        (bytes_per_second, "-1mbit", "'-1mbit' is not a rate"),
        (bytes_per_second, "0mbit", "greater than 0"),
        (bytes_per_second, "", "is not a rate"),
        (bytes_per_second, "nan", "'nan' is not a rate"),
        (bytes_per_second, "1e400gbit", "'1e400gbit' is not a rate.* too large"),
        (seconds, "1e400s", "'1e400s' is not a time.* too large"),
        (seconds, "-20ms", "'-20ms' is not a time"),
        (seconds, "nan", "'nan' is not a time"),
        (whole, "1e400", "'1e400' is not a number.* too large"),
        (seconds, "20 minutes", "is not a time such as 20ms.*msec"),
        (seconds, "inf", "'inf' is not a time"),
        (whole, "1.5", r"from 1 to 1e\+18, got '1.5'"),
        (whole, "0", "from 1 to .*, got '0'"),
        (whole, "1e9 parameters", "is not a number such as 1e9"),
    ],
)
def test_errors_show_the_text_and_an_example(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (125e6, "1 gbit"),
        (12.5e6, "100 mbit"),
        (100, "0.8 kbit"),
        (math.inf, "unshaped"),
    ],
)
def test_rates_in_words(rate, words):
    assert in_bits(rate) == words
