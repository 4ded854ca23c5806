"""Tables and figures of runs on text, from rows made by hand."""

import io

import numpy as np
import pytest
from rich.console import Console

from experiments.training import language

METHODS = ("adamw", "adamw_detached", "adamw_gmc")
# The test loss of each seed at steps 10, 20 and 30; the dense run ends at 2.0.
LOSSES = {
    "adamw": [[3.0, 2.5, 2.1], [3.0, 2.5, 1.9]],
    "adamw_detached": [[2.9, 1.9, 1.8], [2.9, 2.0, 1.8]],
    "adamw_gmc": [[3.5, 3.0, 2.5]],
}
SECONDS = {"adamw": 4.0, "adamw_detached": 0.5, "adamw_gmc": 0.25}
SENT = {"adamw": 1000.0, "adamw_detached": 10.0, "adamw_gmc": 0.0}


def rows(bandwidth: str | None = "100mbit"):
    config = {
        "data": "text",
        "model": "gpt",
        "workers": 4,
        "methods": METHODS,
        "bandwidth": bandwidth,
        "latency": "20ms",
        "step_time": "0.2s",
    }
    found = [{"kind": "header", "name": "gpt_text", "steps": 30, "config": config}]
    for method, seeds in LOSSES.items():
        for seed, losses in enumerate(seeds):
            row = {}
            for step, loss in zip((10, 20, 30), losses, strict=True):
                row = {
                    "kind": "evaluation",
                    "method": method,
                    "seed": seed,
                    "step": step,
                    "bytes": step * SENT[method],
                    "test_loss": loss,
                }
                if bandwidth:
                    row["simulated_seconds"] = step * SECONDS[method]
                found.append(row)
            found.append(
                row
                | {
                    "kind": "summary",
                    "learning_rate": 0.003,
                    "bytes_per_step": SENT[method],
                    "dense_bytes_per_step": 1000.0,
                    "sample": f"{method} {seed}",
                }
            )
    return found


def printed(shown):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(shown)
    return console.export_text()


def line(text, label):
    (found,) = (line for line in text.splitlines() if label in line)
    return found.split()


def test_the_table_says_how_much_sooner_the_loss_of_dense_was_reached():
    table, *samples = language.comparison(rows())
    text = printed(table)

    # The dense run takes 120 seconds; the mean of the others is at 2.0 after 10.
    assert line(text, " AdamW, dense")[-3:] == ["1", "120", "1.0"]
    detached = line(text, "NAdamW, detached")
    assert detached[-3:] == ["100", "15", "12.0"]
    assert detached[-6:-3] == ["±.000", f"{np.exp(1.8):.2f}", "0.0003"]
    assert line(text, "local AdamW, GMC")[-3:] == ["none", "8", "never"]
    assert samples[0] == "AdamW, dense writes:\nadamw 0\n"
    assert len(samples) == 3


def test_without_a_dense_run_nothing_is_sooner():
    header, *others = rows()
    header = header | {"config": header["config"] | {"methods": METHODS[1:]}}

    table, *_ = language.comparison([header, *others])

    assert line(printed(table), "NAdamW, detached")[-1] == "15"  # The seconds.


def test_without_a_link_there_are_no_seconds():
    table, *_ = language.comparison(rows(bandwidth=None))
    assert "sooner" not in printed(table)
    assert len(language.draw(rows(bandwidth=None)).axes) == 2


def test_the_figure_shows_loss_along_steps_bytes_and_seconds():
    panels = language.draw(rows()).axes

    names = [panel.get_xlabel() for panel in panels]
    assert names == ["steps", "bytes sent by a worker", "simulated seconds"]
    dense, detached, _, mark = panels[2].lines
    np.testing.assert_allclose(np.asarray(dense.get_xdata()), [40, 80, 120])
    np.testing.assert_allclose(np.asarray(dense.get_ydata()), [3.0, 2.5, 2.0])
    np.testing.assert_allclose(np.asarray(detached.get_ydata()), [2.9, 1.95, 1.8])
    np.testing.assert_allclose(np.asarray(mark.get_ydata()), 2.0)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw yet"):
        language.draw(rows()[:1])


def test_only_runs_on_text_have_these_tables():
    assert language.has_test_losses(rows())
    assert not language.has_test_losses(rows()[:4])
