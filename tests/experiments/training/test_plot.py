"""The figure shows the rows."""

import itertools

import numpy as np
import pytest

from experiments.training import plot
from experiments.training.methods import METHODS


def rows(*methods, seeds=(0,)):
    config = {"methods": methods, "model": "mlp", "data": "digits", "workers": 2}
    yield {"kind": "header", "name": "run", "steps": 20, "config": config}
    for method in methods:
        for seed, step in itertools.product(seeds, (0, 10, 20)):
            yield {
                "kind": "evaluation",
                "method": method,
                "seed": seed,
                "step": step,
                "epoch": step / 5,
                "bytes": 8.0 * step,
                "loss": 1 / (1 + step),
                "accuracy": (step + seed) / 20,
            }


@pytest.mark.parametrize(
    ("panel", "along", "quantity"),
    [
        (0, [2, 4], [1 / 11, 1 / 21]),
        (1, [80, 160], [1 / 11, 1 / 21]),
        (2, [2, 4], [0.5, 1]),
        (3, [80, 160], [0.5, 1]),
    ],
)
def test_a_panel_holds_each_method_after_the_start(panel, along, quantity):
    figure = plot.draw(list(rows("dmsgd", "gmc")))

    axes = figure.axes[panel]
    assert [line.get_label() for line in axes.lines] == ["DMSGD, dense", "GMC"]
    for line in axes.lines:
        np.testing.assert_allclose(line.get_xdata(), along)
        np.testing.assert_allclose(line.get_ydata(), quantity)


def test_seeds_are_a_mean_and_a_band():
    figure = plot.draw(list(rows("gmc", seeds=(0, 1, 3))))

    accuracy = figure.axes[2]
    (line,) = accuracy.lines
    np.testing.assert_allclose(np.asarray(line.get_ydata()), [34 / 60, 64 / 60])
    (band,) = accuracy.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [0.5, 1.15])


def test_bytes_and_losses_are_on_logarithmic_axes():
    loss, loss_by_bytes, accuracy, accuracy_by_bytes = plot.draw(list(rows("gmc"))).axes

    assert loss.get_yscale() == loss_by_bytes.get_yscale() == "log"
    assert loss_by_bytes.get_xscale() == accuracy_by_bytes.get_xscale() == "log"
    assert loss.get_xscale() == accuracy.get_yscale() == "linear"


@pytest.mark.parametrize("loss", [np.nan, 0.0])
def test_a_figure_is_drawn_of_losses_without_a_logarithm(loss, tmp_path):
    measured = [row | {"loss": loss} for row in rows("gmc")]

    plot.draw(measured).savefig(tmp_path / "figure.png")

    assert (tmp_path / "figure.png").stat().st_size


def test_before_the_second_evaluation_there_is_nothing_to_draw():
    """A run that has only begun: matplotlib had no positive values."""
    first = [row for row in rows("gmc") if not row.get("step")]
    with pytest.raises(ValueError, match="nothing to draw yet: no method was eval"):
        plot.draw(first)
    begun = [*rows("dmsgd"), *first[1:]]
    begun[0]["config"]["methods"] = ("dmsgd", "gmc")
    assert [line.get_label() for line in plot.draw(begun).axes[0].lines] == [
        "DMSGD, dense"
    ]


def test_a_method_that_sends_nothing_is_drawn():
    """One worker on a ring: zero bytes have no logarithm."""
    silent = [row | {"bytes": 0.0} if "bytes" in row else row for row in rows("d2")]
    assert plot.draw(silent).axes[3].get_xscale() == "linear"


def test_a_method_of_another_version_has_its_name_and_a_look():
    (line,) = plot.draw(list(rows("gmc_3"))).axes[0].lines
    assert line.get_label() == "gmc_3"


def test_every_method_has_a_look_of_its_own():
    assert plot.LOOKS.keys() == METHODS.keys()
    assert len(set(plot.LOOKS.values())) == len(METHODS)
