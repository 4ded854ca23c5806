"""What tests of several commands have in common."""

import pytest

from experiments.studies.plan import figures


@pytest.fixture(scope="module")
def quick_figure():
    """Plans are drawn of two numbers of workers and of as many methods."""
    few = {name: figures.LOOKS[name] for name in ("dense all-reduce", "GMC, top_k")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "WORKERS", [2, 4])
        patch.setattr(figures, "LOOKS", few)
        yield
