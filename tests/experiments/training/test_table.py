"""Tables show the rows."""

from rich.console import Console

from experiments.training import table

ROWS = [
    {
        "kind": "header",
        "name": "digits",
        "steps": 1200,
        "config": {
            "model": "mlp",
            "data": "digits",
            "workers": 8,
            "methods": ["dmsgd", "gmc"],
        },
    },
    {"kind": "evaluation", "method": "gmc", "step": 1200},
    {
        "kind": "summary",
        "method": "gmc",
        "learning_rate": 0.05,
        "loss": 0.01234,
        "accuracy": 0.98765,
        "bytes_per_step": 6800.0,
        "dense_bytes_per_step": 340_000.0,
        "relative_cost": 0.0791,
        "seconds": 2.44,
    },
]


def printed(shown, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_a_method_is_one_line_of_80_columns_with_all_that_was_measured():
    lines = printed(table.comparison(ROWS), width=80).splitlines()

    (line,) = [line for line in lines if "GMC" in line]
    cells = ["GMC", "0.05", "98.77%", "0.0123", "6,800", "50.0", "7.91%", "2.4"]
    assert line.split() == cells
    assert any("8 workers, 1,200 steps" in line for line in lines)


def test_several_seeds_give_the_mean_and_the_spread():
    another = ROWS[-1] | {"accuracy": 0.96765, "loss": 0.02234}
    lines = printed(table.comparison([*ROWS, another]), width=90).splitlines()

    (line,) = [line for line in lines if "GMC" in line]
    assert line.split()[2:5] == ["97.77%", "±1.41", "0.0173"]


def test_a_method_that_sends_nothing_has_no_ratio():
    """A ring of one worker sends nothing, and the ratio divided by zero."""
    silent = ROWS[-1] | {"bytes_per_step": 0.0, "relative_cost": float("nan")}
    shown = printed(table.comparison([ROWS[0], silent]), width=80)
    (line,) = [line for line in shown.splitlines() if "GMC" in line]
    assert line.split() == ["GMC", "0.05", "98.77%", "0.0123", "0", "none", "2.4"]


def test_a_method_of_another_version_has_its_name():
    header = ROWS[0] | {"config": ROWS[0]["config"] | {"methods": ["gmc_3"]}}
    shown = printed(table.comparison([header, ROWS[-1] | {"method": "gmc_3"}]), 80)
    assert "gmc_3" in shown


def test_class_counts_are_a_line_a_worker_with_its_sum():
    shown = printed(table.class_counts([[3, 0, 5], [1, 1, 6]]), width=80)

    lines = [line.split() for line in shown.splitlines()]
    assert ["0", "3", "·", "5", "8"] in lines
    assert ["1", "1", "1", "6", "8"] in lines


def test_large_counts_fit_into_80_columns():
    shown = printed(table.class_counts([[12345] * 10] * 2), width=80)

    cells = shown.split()
    assert (cells.count("12345"), cells.count("123450")) == (20, 2)


def test_many_classes_are_summarised():
    counts = [[0] * 100, [1] * 100]
    counts[0][17] = 30
    lines = [
        line.split()
        for line in printed(table.class_counts(counts), width=80).splitlines()
    ]

    assert ["0", "1", "30", "17", "30"] in lines
    assert ["1", "100", "1", "0", "100"] in lines
