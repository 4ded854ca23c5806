"""What tests of several commands have in common."""

import pytest

from experiments import plan_figures


@pytest.fixture(scope="module")
def quick_figure():
    """Plans are drawn of two numbers of workers and of as many methods."""
    few = {
        name: plan_figures.LOOKS[name] for name in ("dense all-reduce", "GMC, top_k")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_figures, "WORKERS", [2, 4])
        patch.setattr(plan_figures, "LOOKS", few)
        yield
