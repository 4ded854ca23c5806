"""The benchmark of compiled steps, on this machine's devices or with the rows given."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments.bench import compiled, programs, steps
from experiments.bench.compiled import Compiled
from experiments.training import record

LEAF = 32
PARAMS = {
    name: jax.ShapeDtypeStruct((LEAF, LEAF), jnp.float32) for name in ("one", "two")
}


def measured(name, dump):
    mesh = Mesh(np.array(jax.devices()), ("workers",))
    return programs.measured(
        steps.transformations(0.01)[name], name in steps.AT_QUERY, PARAMS, mesh, dump
    )


def test_a_step_is_measured(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "one.ptx").write_text(
        "// atom. and red. are instructions\n"
        "\tld.global.f32 %f1, [%r1];\n\t@%p1 red.global.add.f32 [%r1], %f1;\n"
        "\tatom.global.cas.b32 %r2, [%r1], %r3, %r4;\n"
    )
    row = measured("random_block", tmp_path)

    entries = 2 * LEAF * LEAF
    sent = math.ceil(0.01 * entries)
    assert row["entries"] == entries
    assert row["message"] == row["wire"] == row["always"] == 4 * sent
    assert [one[:2] for one in row["collectives"]] == [["all-reduce", 4 * sent]]
    # Parameters, momentum and residual; the channel's count of calls.
    assert row["donated"] == row["state"] >= 4 * 3 * entries
    assert row["aliased"] == row["state_leaves"]
    assert compiled.passes(row) >= 7
    assert (row["kernels"], row["atomics"]) == (1, 2)
    assert not list(tmp_path.rglob("*.ptx"))


@pytest.mark.slow
def test_every_step_can_be_traced():
    """What the compilers are given, for each channel and each method."""
    for name, tx in steps.transformations(0.01).items():
        state = PARAMS, jax.eval_shape(tx.init, PARAMS)
        batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((steps.WORKERS, *leaf.shape), leaf.dtype),
            PARAMS,
        )
        step = steps.step_of(tx, name in steps.AT_QUERY)
        new = jax.eval_shape(
            jax.vmap(step, (None, 0), axis_name="workers"), state, batch
        )
        assert jax.tree.structure(new[0]) == jax.tree.structure(state), name


ROW = {
    "entries": 1000,
    "message": 80.0,
    "wire": 96,
    "always": 16,
    "moved": 4 * 12_500,
    "temporary": 4 * 1_500,
    "sorts": [[10, 1, True], [400, 1, True]],
    "scatters": [[1000, 8, True], [10, 1, False]],
    "kernels": 0,
    "atomics": 0,
    "donated": 11_000,
    "state": 12_000,
    "seconds": 2.4,
}


def test_it_prints_draws_and_logs_what_compiles_and_what_does_not(
    tmp_path, capsys, monkeypatch
):
    asked = []

    def rows(request):
        asked.append(list(request.names))
        for name in request.names:
            if name == "top_k":
                raise programs.Stopped("the compiler ended")
            yield {"name": name, **ROW}

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(compiled, "rows", rows)
    monkeypatch.setattr(compiled, "check_installed", lambda target: None)
    chosen = ("exact", "top_k", "DGC")
    compiled.main(Compiled("gpu", steps=chosen, results=tmp_path))

    path = tmp_path / "bench" / "compiled_gpu-001"
    _, *logged = record.read(path)
    assert [row["kind"] for row in logged] == ["program", "failed", "program"]
    assert asked == [list(chosen), ["DGC"]]
    assert (path / "figure.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["exact", "80", "96", "16"] in lines
    assert ["exact", "12.5", "1.50", "0.40", "8", "1", "92%", "2"] in lines
    assert ["top_k", "failed"] in lines


def test_a_compiler_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"aot-tpu"):
        compiled.main(Compiled("tpu", results=tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_unknown_step_is_an_error():
    with pytest.raises(ValueError, match=r"'DGC'.* got 'top'"):
        Compiled("gpu", steps=("top",))


def test_models_have_the_shapes_of_their_parameters():
    assert Compiled("gpu", leaves=2, side=8).shapes == [(8, 8)] * 2
    shapes = Compiled("gpu", model="mlp").shapes
    assert all(isinstance(size, int) for shape in shapes for size in shape)
    assert len(shapes) >= 4


@pytest.mark.slow
def test_a_process_that_ends_says_why():
    """Here the compiler is not there, or what is asked for is no step."""
    request = programs.Request("gpu", [[4, 4]], 0.1, ["no such step"])
    with pytest.raises(programs.Stopped, match="'no such step'"):
        list(programs.rows(request))
