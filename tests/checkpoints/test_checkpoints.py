"""Tests of checkpoints: what was saved comes back, and nothing else does."""

import functools
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import (
    Checkpoints,
    all_gather,
    all_reduce,
    count_entries,
    exact,
    random_block,
    resize,
    sampled_top_k,
    topologies,
)
from gmc_jax.checkpoints import manifest
from gmc_jax.checkpoints.array_store import ArrayStore
from gmc_jax.core import Tree
from tests.programs.checkpoint_writer import layout as killed_layout
from tests.programs.checkpoint_writer import state_at
from tests.support.runners import RUNNERS, pmap, simulate, start, step_of, targets

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 6
BLOCK = count_entries(all_reduce(random_block(0.2)))
METHODS = {
    "gmc, random_block": gmc_jax.gmc(optax.cosine_decay_schedule(0.1, 20), BLOCK),
    "slowmo": gmc_jax.slowmo(optax.sgd(0.1, momentum=0.5), exact(), period=4),
    "sgp": optax.chain(
        optax.sgd(0.1),
        gmc_jax.push_sum(
            gmc_jax.gossip(topologies.pushing(np.triu(np.ones((8, 8)), k=-1)))
        ),
    ),
    "osgp": gmc_jax.sgp(0.1, topologies.ring(8), delay=1),
    "majority_vote": gmc_jax.signum(0.01, gmc_jax.majority_vote()),
    "cser": gmc_jax.cser(0.1, BLOCK, all_reduce(random_block(0.4), seed=1), period=4),
    "gmc, sampled_top_k": gmc_jax.gmc(0.1, all_gather(sampled_top_k(0.2, 0.5))),
}


def batch_at(t: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[t], targets(start(), 2 * STEPS))


@functools.cache
def made(name: str, runner: Callable) -> tuple[gmc_jax.Layout, Callable, Callable]:
    """The layout, the train function, and what makes its state afresh."""
    tx = METHODS[name]
    step, state = step_of(tx), (start(), tx.init(start()))
    layout = gmc_jax.layout(step, state, batch_at(0), 8)
    train, begun = runner(step, state, batch_at(0))
    values = gmc_jax.fetch(begun)
    places = jax.tree.map(lambda leaf: leaf.sharding, begun)
    committed = jax.tree.leaves(begun)[0].committed

    def fresh():
        if committed:
            return jax.device_put(values, places)
        return jax.tree.map(jnp.array, values)

    return layout, train, fresh


def trained(train: Callable, state: Tree, first: int, last: int) -> Tree:
    for t in range(first, last):
        state, metrics = train(state, batch_at(t))
        jax.block_until_ready(metrics)
    return state


def same_bits(ours: Tree, theirs: Tree) -> None:
    """Structure, dtypes, shardings and every bit, of NaN and of zeros as well."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if isinstance(one, jax.Array):
            assert one.sharding == other.sharding
            assert one.committed == other.committed
        one, other = gmc_jax.fetch((one, other))
        assert one.tobytes() == other.tobytes()


def goes_on_as_if_it_had_not_stopped(name, runner, directory):
    layout, train, fresh = made(name, runner)
    with Checkpoints(directory, layout, about={"method": name}) as checkpoints:
        assert checkpoints.latest is None
        state = trained(train, fresh(), 0, STEPS)
        checkpoints.save(STEPS, state, seconds=1.5)
        saved = jax.tree.map(jnp.copy, state)
        expected = gmc_jax.fetch(trained(train, state, STEPS, STEPS + 3))

    like = fresh()
    with Checkpoints(directory, layout, about={"method": name}) as checkpoints:
        assert checkpoints.latest == STEPS
        done, state, extras = checkpoints.restore(like)
    assert (done, extras) == (STEPS, {"seconds": 1.5})
    same_bits(state, saved)
    same_bits(jax.tree.map(jnp.zeros_like, state), jax.tree.map(jnp.zeros_like, like))
    ended = gmc_jax.fetch(trained(train, state, STEPS, STEPS + 3))
    chex.assert_trees_all_equal(ended, expected)


TURNS = [(name, list(RUNNERS)[i % 2]) for i, name in enumerate(list(METHODS)[:-1])]


@pytest.mark.parametrize(("name", "runner"), TURNS)
def test_training_continues_as_if_it_had_not_stopped(tmp_path, name, runner):
    goes_on_as_if_it_had_not_stopped(name, RUNNERS[runner], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", METHODS)
def test_training_continues_with_any_method(tmp_path, name, runner):
    if (name, runner) not in TURNS:
        goes_on_as_if_it_had_not_stopped(name, RUNNERS[runner], tmp_path)


def test_under_pmap_uncommitted_arrays_stay_uncommitted(tmp_path):
    layout, _, _ = made("osgp", simulate)
    tx = METHODS["osgp"]
    train, state = pmap(step_of(tx), (start(), tx.init(start())), batch_at(0))
    like = jax.tree.map(jnp.copy, state)
    state = trained(train, state, 0, 2)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(2, state)
        before = gmc_jax.fetch(state)
        _, state, _ = checkpoints.restore(like)
        assert not any(leaf.committed for leaf in jax.tree.leaves(state))
        chex.assert_trees_all_equal(gmc_jax.fetch(state), before)
        state = trained(train, state, 2, 3)
        checkpoints.save(3, state)
        _, again, _ = checkpoints.restore(state)
        same_bits(again, state)


# States of all kinds, laid out by hand.


def laid_out(workers: int, own: Tree, same: Tree) -> tuple[gmc_jax.Layout, Tree]:
    """A layout and a state as it keeps it; `own` has a leading axis of workers."""
    state = {"own": own, "same": same}
    differs = {
        "own": jax.tree.map(lambda _: True, own),
        "same": jax.tree.map(lambda _: False, same),
    }
    shapes = jax.eval_shape(
        lambda: jax.tree.map(
            lambda leaf, lead: jnp.asarray(leaf)[0] if lead else jnp.asarray(leaf),
            state,
            differs,
        )
    )
    return gmc_jax.Layout(workers, "workers", differs, shapes), state


def small(workers: int = 4, size: int = 3):
    draw = np.random.default_rng(workers)
    own = jnp.asarray(draw.normal(size=(workers, size)), jnp.float32)
    return laid_out(workers, {"residual": own}, {"weights": own[0]})


def test_arrays_of_all_kinds_are_restored(tmp_path):
    values = jnp.array([[1, jnp.nan, -0.0], [jnp.inf, 1e-30, 2]])
    own = {
        "bfloat16": values.astype("bfloat16"),
        "float16": values.astype("float16"),
        "float8": values.astype("float8_e4m3fn"),
        "bool": values > 0,
        "int4": jnp.arange(-8, 8).astype("int4").reshape(2, 8),
        "int8": jnp.arange(2, dtype="int8"),
        "uint32": jnp.array([[1, 2**32 - 1]] * 2, "uint32"),
        "complex": values * (1 + 2j),
        "empty": jnp.zeros((2, 0, 3)),
        "NumPy": np.arange(2.0, dtype="float32"),
        "keys": jax.random.split(jax.random.key(0), 2),
    }
    same = {
        "key": jax.random.key(1, impl="rbg"),
        "raw": jax.random.PRNGKey(3),
        "scalar": jnp.float32(3),
        "empty": jnp.zeros((0,), "int32"),
        "none": None,
        "numbers": np.int32(4),
    }
    layout, state = laid_out(2, own, same)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(0, state)
        _, again, _ = checkpoints.restore(state)
    same["numbers"] = np.asarray(same["numbers"])
    same_bits(again, state)
    chex.assert_trees_all_equal(
        jax.random.split(again["same"]["key"]), jax.random.split(state["same"]["key"])
    )


def test_a_state_without_numbers(tmp_path):
    layout, state = laid_out(2, {}, {"empty": jnp.zeros((0, 2))})
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(0, state)
        step, again, _ = checkpoints.restore(state)
    assert step == 0
    same_bits(again, state)


def placed_on(mesh: Mesh, state: Tree, *inner: str) -> Tree:
    own = NamedSharding(mesh, PartitionSpec("workers", *inner))
    same = NamedSharding(mesh, PartitionSpec(*inner))
    return {
        "own": jax.device_put(state["own"], own),
        "same": jax.device_put(state["same"], same),
    }


def test_arrays_that_are_sharded_inside_workers(tmp_path):
    """Over an axis of the mesh that is not the workers'."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
    layout, state = small(size=4)
    state = placed_on(mesh, state, "model")
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(1, state)
        _, again, _ = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
        same_bits(again, state)
        shards = again["own"]["residual"].addressable_shards
        assert {shard.data.shape for shard in shards} == {(1, 2)}
        # Where arrays are is no part of a checkpoint.
        _, whole, _ = checkpoints.restore(
            jax.tree.map(jnp.zeros_like, small(size=4)[1])
        )
        same_bits(whole, small(size=4)[1])


def test_extras_are_restored(tmp_path):
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        numbers: list[Any] = [jnp.float32(0.5), np.int64(3), jnp.ones(2)]
        checkpoints.save(1, state, seconds=numbers[0], at=numbers[1], names=["a"])
        assert checkpoints.restore(state)[2] == {
            "seconds": 0.5,
            "at": 3,
            "names": ["a"],
        }
        with pytest.raises(
            TypeError, match=r"`extras` must hold values that JSON can.*Keep arrays"
        ):
            checkpoints.save(2, state, seconds=numbers[2])
        assert checkpoints.latest == 1


# Another number of workers.


def test_another_number_of_workers_is_resized_when_asked(tmp_path):
    layout, state = small(8)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(5, state)
    four, like = small(4)
    expected = resize(state, layout, 4)
    mesh = Mesh(np.array(jax.devices()[:4]), ("workers",))
    with Checkpoints(tmp_path, four) as checkpoints:
        with pytest.raises(
            ValueError, match=r"is of 8 workers, and `layout` of 4\. T.*e=T.* 4 w"
        ):
            checkpoints.restore(like)
        for target in (like, placed_on(mesh, like)):
            _, ours, _ = checkpoints.restore(target, resize=True)
            chex.assert_trees_all_equal(gmc_jax.fetch(ours), gmc_jax.fetch(expected))
            same_bits(
                jax.tree.map(jnp.zeros_like, ours), jax.tree.map(jnp.zeros_like, target)
            )


def test_keys_are_resized_too(tmp_path):
    keys = jax.random.split(jax.random.key(0), 6)
    layout, state = laid_out(6, keys, ())
    four, like = laid_out(4, jax.random.split(jax.random.key(1), 4), ())
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(5, state)
    with Checkpoints(tmp_path, four) as checkpoints:
        _, ours, _ = checkpoints.restore(like, resize=True, params=lambda state: ())
    np.testing.assert_array_equal(gmc_jax.fetch(ours["own"]), gmc_jax.fetch(keys[:4]))


# What is of another training.


def test_another_training_is_refused(tmp_path):
    layout, state = small()
    about = {"method": "gmc", "ratio": 0.01, "seeds": (1, 2)}
    with Checkpoints(tmp_path, layout, about=about) as checkpoints:
        checkpoints.save(3, state)
        assert checkpoints.restore(state)[0] == 3
    for other, expected in (
        ({**about, "ratio": 0.1}, r".*ratio'\]` is 0.01 in the checkpoint, 0.1 here"),
        ({"method": "gmc"}, r"`about\['ratio'\]` is 0.01 in .*, missing here"),
        ({**about, "new": None}, r"`about\['new'\]` is missing in .*, null here"),
    ):
        checkpoints = Checkpoints(tmp_path, layout, about=other)
        with pytest.raises(
            ValueError, match=f"step 3 is of another training: {expected}"
        ):
            checkpoints.restore(state)
    method: Any = optax.identity()
    with pytest.raises(TypeError, match="`about` must hold values that JSON"):
        Checkpoints(tmp_path, layout, about={"tx": method})


def test_another_model_or_method_is_refused(tmp_path):
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(3, state)
    larger = small(size=5)
    other = laid_out(4, {"momentum": state["own"]["residual"]}, state["same"])
    alike = laid_out(4, {}, {"weights": state["same"]["weights"]})
    for (layout, like), expected in (
        (
            larger,
            r"`state\['own'\]\['residual'\]` is float32\[3\], .*own, in the .* and fl",
        ),
        (
            other,
            r"checkpoint has `state\['own'\]\['residual'\]`; .* `state\['own'\]\['mo",
        ),
        (
            alike,
            r"the checkpoint has .*residual'\]`; .* here has nothing\. Use the met",
        ),
    ):
        checkpoints = Checkpoints(tmp_path, layout)
        with pytest.raises(ValueError, match=f"step 3 is of another .*{expected}"):
            checkpoints.restore(like, resize=True)


def test_a_state_that_does_not_fit_is_neither_saved_nor_restored(tmp_path):
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        with pytest.raises(ValueError, match=r"layout for 4 workers .*residual"):
            checkpoints.save(1, small(8)[1])
        with pytest.raises(ValueError, match=r"`state\['own'\]` must be a"):
            checkpoints.restore(state["own"])
        assert checkpoints.latest is None


# A part of a state.


def perturbed(state: Tree) -> Tree:
    """A state no leaf of which, but for keys, is as it was."""
    return jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else leaf + 1, state)


@pytest.mark.parametrize(
    "runner", ["simulate", pytest.param("distribute", marks=pytest.mark.slow)]
)
def test_parameters_are_restored_for_another_method(tmp_path, runner, caplog):
    """Checkpoints were all or nothing."""
    before, _, begun = made("gmc, random_block", simulate)
    saved = perturbed(begun())
    with Checkpoints(tmp_path, before, about={"method": "gmc"}) as checkpoints:
        checkpoints.save(3, saved)
    layout, train, fresh = made("majority_vote", RUNNERS[runner])
    like = fresh()
    with Checkpoints(tmp_path, layout, about={"method": "signum"}) as checkpoints:
        with pytest.raises(ValueError, match=r"another training.*restore by `only` wh"):
            checkpoints.restore(like)
        step, state, _ = checkpoints.restore(like, only=lambda state: state[0])
        kept = checkpoints.not_restored
        assert kept == tuple(
            f"state[1][0].{name}" for name in ("count", "ema['bias']", "ema['kernel']")
        )
        (said,) = caplog.messages
        assert "Not restored: `state[1][0].step`, " in said
        assert f"Kept as they were: `{kept[0]}`, `{kept[1]}`" in said
        assert '`about[\'method\']` is "gmc" in the checkpoint, "signum" here' in said
        assert step == 3
        chex.assert_trees_all_equal(*gmc_jax.fetch((state[0], saved[0])))
        same_bits(*jax.tree.map(jnp.zeros_like, (state[0], like[0])))
        same_bits(state[1], like[1])
        state = trained(train, state, 3, 4)
        same_bits(like, fresh())  # Nothing of it was donated.
        checkpoints.save(4, state)
        checkpoints.restore(state)
        assert checkpoints.not_restored == ()


def test_a_constant_rate_becomes_a_schedule(tmp_path):
    layout, _, fresh = made("gmc, random_block", simulate)
    tx = gmc_jax.gmc(0.1, BLOCK)
    state = start(), tx.init(start())
    constant = gmc_jax.layout(step_of(tx), state, batch_at(0), 8)
    saved = perturbed(constant.lay_out(state))
    with Checkpoints(tmp_path, constant) as checkpoints:
        checkpoints.save(3, saved)
    like = fresh()
    with Checkpoints(tmp_path, layout) as checkpoints:
        with pytest.raises(ValueError, match=r"here has `state\[1\]\[1\]\.count`"):
            checkpoints.restore(like)
        with pytest.raises(ValueError, match=r"here has `state\[1\]\[1\]\.count`"):
            checkpoints.restore(like, only=lambda state: state)
        _, (params, opt_state), _ = checkpoints.restore(
            like, only=lambda state: (state[0], state[1][0])
        )
        assert checkpoints.not_restored == ("state[1][1].count",)
    same_bits((params, opt_state[0]), (saved[0], saved[1][0]))
    same_bits(opt_state[1], like[1][1])


def test_selected_leaves_must_be_alike(tmp_path):
    """In its shape, its dtype, and in whether workers differ in it."""
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(3, state)
    weights = state["same"]["weights"]
    for (layout, like), expected in (
        (
            small(size=5),
            r"is float32\[3\], the same on all workers, in the .* and float32\[5",
        ),
        (laid_out(4, {}, {"weights": weights.astype(int)}), r"and int32\[3\]"),
        (
            laid_out(4, {}, {"other": weights}),
            r"state here has `state\['same'\]\['other'\]`",
        ),
        (laid_out(4, {}, {"weights": jax.random.key(0)}), r"in .* and key<fry>\[\]"),
    ):
        with (
            Checkpoints(tmp_path, layout) as checkpoints,
            pytest.raises(ValueError, match=expected),
        ):
            checkpoints.restore(like, only=lambda state: state["same"])
    (layout, like) = small()
    layout = layout._replace(
        differs={"own": {"residual": True}, "same": {"weights": True}}
    )
    like["same"] = {"weights": jnp.zeros((4, 3))}
    with (
        Checkpoints(tmp_path, layout) as checkpoints,
        pytest.raises(ValueError, match=r"the same on .*in the .*each worker's own"),
    ):
        checkpoints.restore(like, only=lambda state: state["same"])


def test_reordered_fields_are_found_by_name(tmp_path):
    """Once what was the residual came back as the momentum, without a word."""

    class Before(NamedTuple):
        momentum: Tree
        residual: Tree

    class After(NamedTuple):
        residual: Tree
        momentum: Tree

    layout, state = laid_out(4, (), Before(jnp.zeros(3), jnp.ones(3)))
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(1, state)
    for workers, how in ((4, {}), (2, {"resize": True, "params": lambda state: ()})):
        layout, like = laid_out(workers, (), After(jnp.full(3, 2.0), jnp.full(3, 3.0)))
        with Checkpoints(tmp_path, layout) as checkpoints:
            state = checkpoints.restore(like, **how)[1]
            assert (state["same"].residual == 1).all()
            assert (state["same"].momentum == 0).all()
            state = checkpoints.restore(
                like, only=lambda state: state["same"].momentum, **how
            )[1]
            assert (state["same"].residual == 2).all()
            assert (state["same"].momentum == 0).all()


@pytest.mark.parametrize("workers", [4, 8])
def test_a_part_is_placed_and_resized_like_the_whole(tmp_path, workers):
    """Over the devices of a worker too; the rest is what `like` has."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
    layout, state = small(workers, size=4)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(1, state)
    four, like = small(4, size=4)
    like = placed_on(mesh, jax.tree.map(jnp.ones_like, like), "model")
    expected = resize(state, layout, 4)
    with Checkpoints(tmp_path, four) as checkpoints:
        for part, rest in (("own", "same"), ("same", "own")):
            _, ours, _ = checkpoints.restore(
                like, only=lambda state, part=part: state[part], resize=True
            )
            chex.assert_trees_all_equal(gmc_jax.fetch(ours[part]), expected[part])
            same_bits(ours[rest], like[rest])
            same_bits(jax.tree.map(jnp.ones_like, ours), like)


# ArrayStore that are not as they were.


@pytest.fixture
def two(tmp_path):
    """Checkpoints of the steps 40 and 60."""
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        for step in (40, 60):
            checkpoints.save(step, jax.tree.map(lambda leaf, s=step: leaf + s, state))
    return tmp_path, layout, state


def files_of(directory: pathlib.Path, step: int) -> list[pathlib.Path]:
    """The files of a checkpoint, those with arrays in them first."""
    folder = manifest.arrays(directory, manifest.read(directory, step).folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: "d" not in path.relative_to(folder).parts)


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[pathlib.Path], object]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "missing": pathlib.Path.unlink,
    "flipped": flip,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_found_and_an_intact_checkpoint_named(two, damage):
    """Whichever file it is."""
    directory, layout, state = two
    checkpoints = Checkpoints(directory, layout)
    for path in files_of(directory, 60):
        before = path.read_bytes()
        if not before:
            continue
        DAMAGES[damage](path)
        remedy = r"`restore\(like, step=40\)`"
        with pytest.raises(
            ValueError, match=rf"step 60 is damaged.*{path.name}.*{remedy}"
        ):
            checkpoints.restore(state, step=60)
        # Only checksums tell what kept its size.
        assert checkpoints.latest == (60 if damage == "flipped" else 40)
        assert checkpoints.restore(state, step=40)[0] == 40
        path.write_bytes(before)
    assert checkpoints.restore(state)[0] == 60


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_an_intact_manifest_there_is_no_checkpoint(two, damage):
    directory, layout, state = two
    DAMAGES[damage](directory / "60.json")
    checkpoints = Checkpoints(directory, layout)
    assert checkpoints.latest == 40
    step, ours, _ = checkpoints.restore(state)
    assert step == 40
    chex.assert_trees_all_equal(ours, jax.tree.map(lambda leaf: leaf + 40, state))
    with pytest.raises(ValueError, match=r"step 60 is damaged: its manifest.*step=40"):
        checkpoints.restore(state, step=60)


def test_without_a_complete_checkpoint_the_error_says_why(two):
    directory, layout, state = two
    for step in (40, 60):
        files_of(directory, step)[0].unlink()
    checkpoints = Checkpoints(directory, layout)
    assert checkpoints.latest is None
    with pytest.raises(ValueError, match=r"no complete checkpoint; step 60: its file"):
        checkpoints.restore(state)
    with pytest.raises(ValueError, match=r"step 40 is damaged.*No other one is"):
        checkpoints.restore(state, step=40)
    empty = Checkpoints(directory / "empty", layout)
    with pytest.raises(ValueError, match=r"holds no complete checkpoint\. If"):
        empty.restore(state)


def test_a_damaged_checkpoint_can_be_saved_anew(two):
    directory, layout, state = two
    flip(files_of(directory, 60)[0])
    with Checkpoints(directory, layout) as checkpoints:
        checkpoints.restore(state, step=40)
        checkpoints.save(60, state)
        chex.assert_trees_all_equal(checkpoints.restore(state)[1], state)


# Which checkpoints there are.


def test_a_step_is_saved_once_and_steps_ascend(two):
    directory, layout, state = two
    with Checkpoints(directory, layout) as checkpoints:
        for step in (50, 60):
            with pytest.raises(
                ValueError, match=rf"of step {step} or later .* holds one of step 60"
            ):
                checkpoints.save(step, state)
        checkpoints.restore(state)
        for step in (50, 60):
            with pytest.raises(ValueError, match="`step` must be later than 60"):
                checkpoints.save(step, state)
        checkpoints.save(61, state)
        with pytest.raises(ValueError, match="`step` must be later than 61"):
            checkpoints.save(61, state)
        with pytest.raises(ValueError, match="`step` must be a whole number"):
            checkpoints.save(-1, state)
        assert checkpoints.latest == 61


def test_later_checkpoints_are_removed_after_going_back(two):
    directory, layout, state = two
    with Checkpoints(directory, layout, keep=3) as checkpoints:
        checkpoints.restore(state, step=40)
        assert checkpoints.latest == 60
        checkpoints.save(50, state)
        assert manifest.steps(directory) == [50, 40]
        chex.assert_trees_all_equal(checkpoints.restore(state)[1], state)


def test_checkpoints_of_another_process_are_not_replaced(two):
    directory, layout, state = two
    ours, theirs = Checkpoints(directory, layout), Checkpoints(directory, layout)
    for checkpoints in (ours, theirs):
        checkpoints.restore(state)
    theirs.save(80, state)
    with pytest.raises(
        ValueError, match=r"of step 70 or later .* holds one of step 80"
    ):
        ours.save(70, state)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept_and_nothing_else_is_left(tmp_path, keep):
    layout, state = small()
    with Checkpoints(tmp_path, layout, keep=keep) as checkpoints:
        for step in range(5):
            checkpoints.save(step, state)
    assert manifest.steps(tmp_path) == list(range(4, 4 - keep, -1))
    assert len(list(tmp_path.iterdir())) == 2 * keep + 1  # And the lock.


@pytest.mark.parametrize("keep", [0, 1.5])
def test_at_least_one_is_kept(tmp_path, keep):
    with pytest.raises(ValueError, match="`keep` must be a whole number"):
        Checkpoints(tmp_path, small()[0], keep=keep)


@pytest.mark.parametrize(
    ("where", "name", "error"),
    [
        (pathlib.Path, "touch", OSError),
        (ArrayStore, "write", OSError),
        (ArrayStore, "write", KeyboardInterrupt),
        (ArrayStore, "check", OSError),
        (manifest, "sizes", KeyboardInterrupt),
        (manifest, "checksum", OSError),
        (manifest, "write", OSError),
        (manifest, "write", KeyboardInterrupt),
    ],
)
def test_a_save_that_fails_leaves_nothing_and_can_be_repeated(
    two, monkeypatch, where, name, error
):
    """Wherever it fails: leftovers of failed saves once piled up on a full disk."""
    directory, layout, state = two
    before = set(directory.rglob("*"))

    def fail(*_):
        raise error("no space left on device")

    with Checkpoints(directory, layout) as checkpoints:
        checkpoints.restore(state)
        with monkeypatch.context() as patched:
            patched.setattr(where, name, fail)
            with pytest.raises(error, match="no space left"):
                checkpoints.save(70, state)
        assert set(directory.rglob("*")) == before
        assert checkpoints.latest == 60
        if error is KeyboardInterrupt:
            checkpoints.save(70, state)
            assert manifest.complete_steps(directory) == [70, 60]


def test_a_checkpoint_survives_an_interrupt_after_its_manifest(tmp_path, monkeypatch):
    layout, state = small()
    with Checkpoints(tmp_path, layout, keep=1) as checkpoints:

        def fail(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(manifest, "prune", fail)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(1, state)
        assert checkpoints.restore(state)[0] == 1
        checkpoints.save(2, state)
    assert manifest.steps(tmp_path) == [2]


@pytest.mark.parametrize("lost", ["array", "file"])
def test_files_are_checked_before_the_manifest_is_written(tmp_path, monkeypatch, lost):
    """A save that loses something is no checkpoint; once it was, and the latest.

    Orbax takes no offence where it finds no parts to join; and of what could not be
    read, -1 was written as the checksum, and found again.
    """
    layout, state = small()
    write = ArrayStore.write
    with Checkpoints(tmp_path, layout) as checkpoints:
        with monkeypatch.context() as patched:
            if lost == "file":
                patched.setattr(manifest, "checksum", lambda _: -1)
            else:
                patched.setattr(
                    ArrayStore,
                    "write",
                    lambda self, folder, leaves: write(self, folder, leaves[1:]),
                )
            with pytest.raises(OSError, match="was written without an error, but"):
                checkpoints.save(1, state)
        assert checkpoints.latest is None
        checkpoints.save(1, state)
        same_bits(checkpoints.restore(state)[1], state)


def test_leftovers_are_removed_and_foreign_files_are_not(two):
    """Opening once removed others' folders named alike, and saving their 5.json."""
    directory, layout, state = two
    for name in ("70-0123abcd", "55-0123abcd"):
        (directory / name / "arrays.orbax-checkpoint-tmp").mkdir(parents=True)
        (directory / name / "gmc_jax").touch()
    ours = {directory / "70-0123abcd", directory / "55-0123abcd"}
    for name in ("12-3f2a9c1d", "20251129-20231145", "70-0123abcd.backup", "8.json"):
        (directory / name).mkdir()
        (directory / name / "precious").touch()
    (directory / "70-0123abcd.backup" / "gmc_jax").touch()
    (directory / "5-0123abcd").symlink_to(directory / "70-0123abcd.backup")
    names = ("000100.json", "٣.json", "².json", "-5.json", "5.json", "notes.txt")
    for name in (*names, "60-0123abcd.draft"):
        (directory / name).write_text('{"loss": 0.5}')
    (directory / "9.json").symlink_to("nowhere")
    os.mkfifo(directory / "11.json")
    before = set(directory.rglob("*"))
    with Checkpoints(directory, layout, keep=1) as checkpoints:
        assert checkpoints.latest == 60
        assert set(directory.rglob("*")) == before
        checkpoints.restore(state)
        for step in (61, 62):
            checkpoints.save(step, state)
        assert checkpoints.latest == 62
    gone = before - set(directory.rglob("*"))
    theirs = {path for path in gone if path not in ours and path.parent not in ours}
    assert ours < gone
    assert {path.name[:3] for path in theirs if path.parent == directory} == {
        "40-",
        "40.",
        "60-",
        "60.",
    }
    assert not any("precious" in path.name for path in gone)
    assert manifest.steps(directory) == [62]


@pytest.mark.parametrize("name", ["5.json", "8.json", "9.json"])
def test_a_foreign_file_is_not_replaced(tmp_path, name):
    layout, state = small()
    made = {
        "5.json": lambda path: path.write_text('{"loss": 0.5}'),
        "8.json": pathlib.Path.mkdir,
        "9.json": lambda path: path.symlink_to("nowhere"),
    }
    made[name](tmp_path / name)
    with Checkpoints(tmp_path, layout) as checkpoints:
        with pytest.raises(
            ValueError, match=rf"{name}` must be free for the manifest of step"
        ):
            checkpoints.save(int(name[0]), state)
        checkpoints.save(10, state)
        assert checkpoints.restore(state)[0] == 10
    assert os.path.lexists(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 4  # And nothing of what failed.


@pytest.mark.parametrize(
    "step", [True, 1.0, "3", None, np.float32(2), np.True_, np.arange(1), -1]
)
def test_nothing_is_written_unless_the_step_is_a_whole_number(tmp_path, step):
    """Once some were saved first, and failed then."""
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        for value in (np.int64(3), jnp.int32(4), np.array(5)):
            checkpoints.save(value, state)
            assert checkpoints.restore(state, step=value)[0] == int(value)
        before = set(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match="`step` must be a whole number"):
            checkpoints.save(step, state)
        assert set(tmp_path.rglob("*")) == before
        if step is not None:
            with pytest.raises(ValueError, match="`step` must be a whole number"):
                checkpoints.restore(state, step=step)


def test_checkpoints_can_be_moved_and_read_only(tmp_path):
    """Restoring once needed to write a lock, and so a directory of its own."""
    layout, state = small()
    with Checkpoints(tmp_path / "a", layout) as checkpoints:
        assert checkpoints.latest is None
        assert not (tmp_path / "a").exists()
        checkpoints.save(1, state)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b" / "lock").unlink()
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with Checkpoints(tmp_path / "b", layout) as checkpoints:
        assert checkpoints.latest == 1
        same_bits(checkpoints.restore(state)[1], state)
    assert before.keys() == set(tmp_path.rglob("*"))
    for path, was in before.items():
        assert path.stat().st_mtime_ns == was.st_mtime_ns
        path.chmod(was.st_mode)


def test_an_unusable_directory_is_refused_at_once():
    """And not when the first state is saved."""
    for directory in ("gs://bucket/run", "~no-such-user", "run[lr=0.1]", "a\\b"):
        with pytest.raises(ValueError, match="`directory` "):
            Checkpoints(directory, small()[0])


# Orbax drops futures that failed, and nobody has asked them why.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_on_a_disk_that_is_full_and_on_one_that_is_read_only(tmp_path):
    """On real ones, which only root may have made."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    layout, state = small(size=30_000)
    directory, filler = tmp_path / "run", tmp_path / "filler"
    try:
        with Checkpoints(directory, layout, keep=1) as checkpoints:
            checkpoints.save(1, state)
            room = os.statvfs(tmp_path)
            filler.write_bytes(bytes(room.f_bavail * room.f_bsize - 200_000))
            before = set(directory.rglob("*"))
            for _ in range(5):
                with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"):
                    checkpoints.save(2, state)
                assert set(directory.rglob("*")) == before
            filler.unlink()
            checkpoints.save(2, state)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with Checkpoints(directory, layout) as checkpoints:
            same_bits(checkpoints.restore(state)[1], state)
            with pytest.raises(OSError, match="Read-only file system"):
                checkpoints.save(3, state)
        with pytest.raises(ValueError, match="cannot be made in"):
            Checkpoints(tmp_path / "other", layout)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_without_orbax_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install .gmc_jax\[checkpoints\]"):
        Checkpoints(tmp_path, small()[0])


# Processes that are killed.


def killed_after(directory: pathlib.Path, seconds: float) -> int:
    """Kills a process that saves, so long after its first; the last it told of."""
    command = [sys.executable, "-m", "tests.programs.checkpoint_writer", str(directory)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as saving:
        assert saving.stdout is not None
        first = saving.stdout.readline()
        time.sleep(seconds)
        saving.kill()
        told = [first, *saving.stdout.read().splitlines(keepends=True)]
    assert first, "it ended by itself"
    return int([line for line in told if line.endswith("\n")][-1])


def survives(directory: pathlib.Path, times: int) -> None:
    draw = random.Random(0)
    for _ in range(times):
        told = killed_after(directory, draw.uniform(0, 0.5))
        with Checkpoints(directory, killed_layout()) as checkpoints:
            step, state, _ = checkpoints.restore(state_at(0))
            checkpoints.save(step + 1, state_at(step + 1))
        assert told <= step <= told + 1
        folders = {path.name for path in directory.glob("*-*") if any(path.iterdir())}
        left = manifest.complete_steps(directory)
        assert folders == {manifest.read(directory, at).folder for at in left}
        chex.assert_trees_all_equal(state, jax.tree.map(np.asarray, state_at(step)))


def test_saved_checkpoints_survive_whenever_a_process_is_killed(tmp_path):
    survives(tmp_path, times=3)


@pytest.mark.slow
def test_whenever_a_process_is_killed_ten_times_over(tmp_path):
    survives(tmp_path, times=10)
