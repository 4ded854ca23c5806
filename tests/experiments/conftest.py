"""Fixtures for the tests of several commands."""

import pytest

from experiments.studies.plan import figures


@pytest.fixture(scope="module")
def quick_figure():
    """Draws plans for two numbers of workers and two methods only."""
    few = {name: figures.LOOKS[name] for name in ("dense all-reduce", "GMC, top_k")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "WORKERS", [2, 4])
        patch.setattr(figures, "LOOKS", few)
        yield
