"""The benchmarks on small sizes; times are not checked."""

import dataclasses
import math

import chex
import numpy as np
import pytest

from experiments.bench import compile_time, compress, simulate, timing
from experiments.bench.timing import Bar
from experiments.training import record

EXACT = ("top_k", compress.PLAIN, compress.TORCH)
SMALL = simulate.Simulate(
    workers=2, batch_size=4, image_size=4, model="mlp", ratio=0.1, repeats=1
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    monkeypatch.setenv("COLUMNS", "100")


def test_candidates_that_select_exactly_send_what_numpy_sends_round_after_round():
    d, ratio = 1000, 0.013
    g = np.random.default_rng(0).standard_normal(d, dtype=np.float32)
    chosen = compress.candidates(d, ratio)
    exact = [chosen[name] for name in EXACT if name in chosen]
    u = np.zeros_like(g)

    for _ in range(4):
        u = u + g
        places = np.sort(np.argsort(-np.abs(u))[: math.ceil(ratio * d)])
        for candidate in exact:
            values, found = (np.asarray(x) for x in candidate())
            np.testing.assert_array_equal(np.sort(found), places)
            np.testing.assert_array_equal(values, u[found])
        u[places] = 0


def test_every_candidate_sends_as_much_as_its_ratio_says():
    chosen = compress.candidates(1000, 0.01)

    assert chosen["u + g"]() is None
    assert chosen["random_k"]().shape == chosen["random_block"]().shape == (10,)
    assert chosen["sampled_top_k"]().values.shape == (13,)
    assert chosen["chunked_top_k"]().values[0].shape == (1, 10)
    assert chosen[compress.QUANTISED]().values.signs.shape == (1,)


def test_candidates_take_turns():
    turns = []
    candidates = {name: lambda name=name: turns.append(name) for name in "abc"}

    medians = timing.take_turns(candidates, repeats=3)

    assert turns == list("abc") * (timing.WARM_UP + 3)
    assert medians.keys() == candidates.keys()


def test_the_rounds_that_warm_up_do_not_count(monkeypatch):
    clock = iter([0, 50, 50, 90, 90, 91, 91, 93, 93, 96])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))

    assert timing.take_turns({"a": lambda: None}, repeats=3) == {"a": 2}


def test_a_bar_is_met_up_to_the_number_itself():
    medians = {"one": 1.0, "two": 2.0}

    assert Bar("two", "one", most=2).met(medians)
    assert not Bar("two", "one", most=1.9).met(medians)
    assert Bar("two", "one", least=2).met(medians)
    assert not Bar("two", "one", least=2.1).met(medians)


@pytest.mark.slow
def test_compress_prints_and_logs_every_row_and_every_bar(tmp_path, capsys):
    config = compress.Compress(d=1000, repeats=1, results=tmp_path)

    compress.main(config)
    compress.main(config)

    printed = capsys.readouterr().out
    names = list(compress.candidates(10, 0.1))
    for name in names:
        assert f"│ {name} " in printed
    absent = "Left out: PyTorch" in printed
    assert absent == (compress.TORCH not in names)
    header, *rows = record.read(tmp_path / "bench" / "compress-001")
    assert header["environment"]["processors"]
    assert [row["method"] for row in rows if row["kind"] == "summary"] == names
    bars = [row for row in rows if row["kind"] == "bar"]
    assert len(bars) == len(compress.BARS) - absent
    for bar in bars:
        assert f"│ {bar['ratio']} " in printed
        assert bar["required"] in printed
    assert len(record.read(tmp_path / "bench" / "compress-002")) == len(rows) + 1


@pytest.mark.slow
def test_simulated_candidates_start_equal_and_those_of_gmc_stay_equal():
    chosen = simulate.candidates(SMALL)

    together = chosen[simulate.SGD]()
    for step in range(5):
        unrolled, batched = chosen[simulate.UNROLLED](), chosen[simulate.BATCHED]()
        np.testing.assert_allclose(unrolled, batched, rtol=1e-5)
        assert unrolled.shape == (SMALL.workers,)
        if step == 0:
            np.testing.assert_allclose(unrolled.mean(), together, rtol=1e-5)


@pytest.mark.slow
def test_the_simulated_candidates_train():
    chosen = simulate.candidates(SMALL)
    for name in (simulate.SGD, simulate.UNROLLED, simulate.BATCHED):
        losses = [np.mean(chosen[name]()) for _ in range(20)]
        assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_gradients_alone_are_those_of_the_first_step():
    chosen = simulate.candidates(SMALL)
    losses, grads = chosen[simulate.GRADIENTS]()
    batched_losses, batched = chosen[simulate.GRADIENTS_BATCHED]()

    np.testing.assert_allclose(losses, chosen[simulate.UNROLLED](), rtol=1e-5)
    np.testing.assert_allclose(losses, batched_losses, rtol=1e-5)
    chex.assert_trees_all_close(grads, batched, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_simulate_prints_every_row_and_its_bar(tmp_path, capsys):
    simulate.main(dataclasses.replace(SMALL, results=tmp_path))

    printed = capsys.readouterr().out
    for name in simulate.candidates(SMALL):
        assert f"│ {name} " in printed
    assert "at most 2" in printed
    assert len(record.read(tmp_path / "bench" / "simulate-001")) == 7


def test_compiling_is_measured_with_the_leaves_asked_for(tmp_path, monkeypatch):
    """With two methods, since each is compiled."""
    made = compile_time.methods()
    chosen = {name: made[name] for name in (compile_time.EXACT, compile_time.SGD)}
    monkeypatch.setattr(compile_time, "methods", lambda: chosen)
    config = compile_time.Compile(
        leaves=14, width=4, workers=2, repeats=1, results=tmp_path
    )

    compile_time.main(config)

    (run,) = tmp_path.glob("bench/compile-*")
    rows = [row for row in record.read(run) if row["kind"] == "summary"]
    assert [row["method"] for row in rows] == list(chosen)
    assert all(row["milliseconds"] > 0 for row in rows)
    shapes = [leaf.shape for leaf in compile_time.model(14, 4)]
    assert shapes[:3] == [(16, 4), (8, 4), (4,)]
    assert len(shapes) == 14
    names = {name for bar in compile_time.BARS for name in (bar.above, bar.below)}
    assert names <= made.keys()
