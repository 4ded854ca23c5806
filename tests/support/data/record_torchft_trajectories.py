"""Records what torchft's code of DiLoCo does on small quadratics.

    python tests/support/data/record_torchft_trajectories.py CHECKOUT

CHECKOUT is a checkout of pytorch/torchft, of which one file is imported as it is;
torchft.md beside this file says with which versions that was done, and what is in the
place of the rest. Nothing of the project is imported: the environment needs PyTorch and
NumPy only.
"""

import importlib
import importlib.util
import json
import pathlib
import sys
import types
from typing import Any, NamedTuple

import numpy as np
from _processes import of_each
from _quadratics import Arrays, flat, gradient, quadratics, split

STEPS, WORKERS = 24, 3
LAYERS = [[(4,), (3, 4)], [(4, 2)]]
SHAPES = [shape for layer in LAYERS for shape in layer]
PROBLEM = quadratics(STEPS, WORKERS, 24)


class Run(NamedTuple):
    """The settings, under the code's names but for the optimizers."""

    sync_every: int
    fragment_sync_delay: int
    fragment_update_alpha: float
    fragments: int = 2
    inner: str = "AdamW"
    outer_rate: float = 0.7


RUNS = {
    "diloco": Run(4, 0, 0.0, fragments=1),
    "streaming": Run(6, 1, 0.5, outer_rate=0.4),
    "late": Run(8, 3, 0.25, inner="SGD"),
}
INNER = {
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
}
# The settings of the repository's own recordings: both workers step by -2, the outer
# rate is 2, and 2 layers of one weight synchronise every 6 steps.
FIXTURES = [(delay, alpha) for delay in (0, 1) for alpha in (0.0, 0.5, 1.0)]
PLACE = (
    "test_fixtures/torchft.diloco_regression_test.DiLoCoMockedUpdateTest."
    "test_diloco_mocked_updates_{}.json"
)


class Everyone:
    """In the place of their manager: all workers are always there."""

    _use_async_quorum = False

    def __init__(self, distributed):
        self.distributed, self.step = distributed, 0

    def current_step(self):
        return self.step

    def should_commit(self):
        self.step += 1
        return True

    def allreduce(self, tensor, should_quantize):
        assert not should_quantize
        self.distributed.all_reduce(tensor)
        tensor /= self.distributed.get_world_size()
        return types.SimpleNamespace(wait=lambda: None)

    def nothing(self, *args):
        del args

    start_quorum = register_state_dict_fn = nothing
    allow_state_dict_read = disallow_state_dict_read = nothing


def imported(checkout: str) -> types.ModuleType:
    """Their file by itself: the package around it needs a compiler of Rust."""
    manager: Any = types.ModuleType("torchft.manager")
    manager.Manager = Everyone
    sys.modules |= {"torchft": types.ModuleType("torchft"), "torchft.manager": manager}
    file = pathlib.Path(checkout) / "torchft" / "local_sgd.py"
    spec: Any = importlib.util.spec_from_file_location("local_sgd", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def work(checkout: str, meeting: str, worker: int, workers: int) -> Arrays:
    """One process: the weights of one worker in all runs."""
    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=worker, world_size=workers
    )
    theirs: Any = imported(checkout)

    def train(run, layers, inner, outer, slope) -> np.ndarray:
        """Their loop, from parameters before the first step on."""
        params = [p for layer in layers for p in layer.parameters()]
        shapes = [p.shape for p in params]
        weights = [flat(params)]
        groups = [torch.nn.ModuleList(layers)] if run.fragments == 1 else layers
        with theirs.DiLoCo(
            Everyone(distributed),
            groups,
            inner(params),
            [outer(group.parameters()) for group in groups],
            sync_every=run.sync_every,
            fragment_sync_delay=run.fragment_sync_delay,
            fragment_update_alpha=run.fragment_update_alpha,
        ) as diloco:
            for t in range(STEPS):
                new = split(torch, slope(t, weights[-1]), shapes)
                for p, g in zip(params, new, strict=True):
                    p.grad = g
                diloco._local_optimizer.step()
                weights.append(flat(params))
        return np.stack(weights)

    def layer(values):
        return torch.nn.ParameterList(map(torch.nn.Parameter, values))

    def sgd(rate, **options):
        return lambda params: torch.optim.SGD(params, lr=rate, **options)

    found = {}
    for name, run in RUNS.items():
        start = iter(split(torch, PROBLEM["start"], SHAPES))
        layers = [layer([next(start) for _ in shapes]) for shapes in LAYERS]
        inner = getattr(torch.optim, run.inner)
        found[name] = train(
            run,
            layers,
            lambda params, inner=inner, run=run: inner(params, **INNER[run.inner]),
            sgd(run.outer_rate, momentum=0.9, nesterov=True),
            lambda t, w: gradient(PROBLEM, worker, t, w),
        )
    for index, (delay, alpha) in enumerate(FIXTURES):
        ones = [layer([torch.ones(1)]) for _ in range(2)]
        found[f"fixture {index}"] = train(
            Run(6, delay, alpha), ones, sgd(1.0), sgd(2.0), lambda t, w: np.full(2, 2.0)
        )
    return found


def fixture(checkout: str, index: int) -> np.ndarray:
    """The repository's own recording, of a replica that is like the other."""
    text = (pathlib.Path(checkout) / PLACE.format(index)).read_text()
    ((first,), (second,)) = json.loads(text)
    assert first["history"] == second["history"]
    history = first["history"]
    return np.array(
        [
            [history[str(t)][f"layers.{i}.weight"][0][0] for i in (0, 1)]
            for t in range(len(history))
        ]
    )


def main() -> None:
    checkout = sys.argv[1]
    arrays: dict[str, Any] = dict(PROBLEM)
    parts = of_each(work, WORKERS, checkout)
    for name, run in RUNS.items():
        arrays[f"{name}/weights"] = np.stack([part[name] for part in parts], axis=1)
        for what, value in run._asdict().items():
            arrays[f"{name}/{what}"] = np.array(value)
    for index, setting in enumerate(FIXTURES):
        ours = parts[0][f"fixture {index}"]
        stored = fixture(checkout, index)
        assert (ours[: len(stored)] == stored).all(), index
        arrays[f"fixture {index}/weights"] = stored
        arrays[f"fixture {index}/setting"] = np.array(setting)
    file = pathlib.Path(__file__).with_name("torchft_trajectories.npz")
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
