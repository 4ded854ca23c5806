"""Rates."""


def bytes_per_second(text: str) -> float:
    if text == "unshaped":
        return float("inf")
    for u, f in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if text.endswith(u):
            return float(text[:-4]) * f / 8
    raise ValueError(text)
