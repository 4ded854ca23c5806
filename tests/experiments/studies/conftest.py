"""Fixtures for the tests of studies."""

import pytest

from experiments.studies.equal_bytes.any_rate import AnyRate


@pytest.fixture
def count_rates(monkeypatch):
    """Begins to note the rates that are trained from now on, in the list it returns."""

    def begin() -> list[float]:
        rates: list[float] = []
        train = AnyRate.train

        def counted(self, task, rate, stops):
            rates.append(rate)
            return train(self, task, rate, stops)

        monkeypatch.setattr(AnyRate, "train", counted)
        return rates

    return begin
