"""The paper's tables, and ours beside them."""

import dataclasses

import pytest
from rich.console import Console

from experiments.paper import tables
from experiments.paper.published import TABLES
from experiments.training import named_runs as runs
from experiments.training import record
from experiments.training.methods import METHODS


def printed(number, results):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables.beside_ours(number, results))
    return capture.get().splitlines()


def ours_after(label, lines):
    """The cells of our line below that of the paper."""
    (index,) = [i for i, line in enumerate(lines) if line.strip().startswith(label)]
    return [cell.strip() for cell in lines[index + 1].split("  ") if cell.strip()]


def keep(results, run, rows, **changes):
    config = dataclasses.replace(runs.find(run).config, **changes)
    with record.create(results, run, dataclasses.asdict(config)) as log:
        for row in rows:
            log.append(kind="summary", **row)


def summary(method, seed, accuracy, cost=0.0064, loss=0.5):
    return {
        "method": method,
        "seed": seed,
        "accuracy": accuracy,
        "relative_cost": cost,
        "loss": loss,
    }


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "KEPT", tmp_path / "kept")


@pytest.mark.parametrize("number", TABLES)
def test_every_line_is_of_a_named_run_that_trains_its_methods(number):
    table = TABLES[number]
    for line in table.lines:
        assert len(line.published) == len(table.columns)
        assert set(line.published) <= set(runs.find(line.run).config.methods)
        assert set(line.published) <= METHODS.keys()


@pytest.mark.parametrize("number", TABLES)
def test_methods_that_were_not_run_are_marked(number, tmp_path):
    lines = printed(number, tmp_path)
    for line in TABLES[number].lines:
        assert ours_after(line.label, lines) == ["ours"] + ["not run"] * len(
            line.published
        )


def test_our_seeds_are_averaged_over_all_directories(tmp_path):
    run = "table2_cifar10_resnet20"
    keep(tmp_path, run, [summary("gmc", 0, 0.86), summary("gmc", 1, 0.87)])
    keep(tmp_path / "kept", run, [summary("gmc", 2, 0.88)], methods=("gmc",), seed=2)

    cells = ours_after("CIFAR-10 ResNet-20 (GN)", printed("2", tmp_path))

    assert cells == ["ours"] + ["not run"] * 4 + ["87.00 (0.64) ±1.00 [3]"]


@pytest.mark.parametrize(
    "changes", [{"epochs": 10}, {"fraction": 0.5}, {"ratio": 0.01}, {"model": "vit"}]
)
def test_another_experiment_is_not_ours(tmp_path, changes):
    run = "table2_cifar10_resnet20"
    keep(tmp_path, run, [summary("gmc", 0, 0.86)], **changes)

    cells = ours_after("CIFAR-10 ResNet-20 (GN)", printed("2", tmp_path))

    assert cells == ["ours"] + ["not run"] * 5


def test_losses_are_shown_where_the_paper_prints_them(tmp_path):
    keep(tmp_path, "table3", [summary("gmc_plus_0.5", 0, 0.67, loss=0.41)])

    lines = printed("3", tmp_path)

    assert any("66.36, loss 0.56" in line for line in lines)
    assert "67.00, loss 0.41 [1]" in ours_after("GMC+", lines)
