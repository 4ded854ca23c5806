"""Records what the deployed code of SparseLoCo does on small quadratics.

    python tests/support/data/record_templar_trajectories.py CHECKOUT

CHECKOUT is a checkout of one-covenant/templar, of which two files are imported as they
are; templar.md beside this file says with which versions that was done, and what is
patched. Nothing of the project is imported: the environment needs PyTorch, einops and
NumPy only.
"""

import importlib
import importlib.util
import math
import pathlib
import sys
import types
from typing import Any

import numpy as np
from _quadratics import flat, gradient, quadratics, split

STEPS, WORKERS, PERIOD = 12, 3, 3
SHAPES = [(12,), (6, 8), (4, 12)]
PROBLEM = quadratics(STEPS, WORKERS, sum(map(math.prod, SHAPES)))
SETTINGS = {
    "outer_learning_rate": 0.8,
    "momentum_decay": 0.95,
    "topk_compression": 4,
    "target_chunk": 4,
}


def imported(checkout: str) -> tuple[Any, Any]:
    """Two files of theirs by themselves, in a package that has a logger at most."""
    package, run = types.ModuleType("tplr"), types.ModuleType("wandb.sdk.wandb_run")
    distributed = types.ModuleType("tplr.distributed")
    vars(run)["Run"] = vars(distributed)["dist_helper"] = object
    sys.modules |= {"tplr": package, "tplr.distributed": distributed}
    sys.modules |= {"wandb": run, "wandb.sdk": run, "wandb.sdk.wandb_run": run}
    for name in ("compress", "neurons"):
        file = pathlib.Path(checkout) / "src" / "tplr" / f"{name}.py"
        spec: Any = importlib.util.spec_from_file_location(f"tplr.{name}", file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = vars(package)[name] = module
        spec.loader.exec_module(module)
    return sys.modules["tplr.compress"], sys.modules["tplr.neurons"]


class Worker:
    """What their functions ask of a miner, and the inner optimizer."""

    def __init__(self, torch, compress, compressor):
        start = split(torch, PROBLEM["start"], SHAPES)
        self.model = torch.nn.ParameterList(map(torch.nn.Parameter, start))
        self.params = list(self.model.parameters())
        self.inner = torch.optim.AdamW(self.params, lr=0.1, weight_decay=0.1)
        rate = SETTINGS["outer_learning_rate"]
        self.outer = torch.optim.SGD(self.params, lr=rate)
        self.hparams = types.SimpleNamespace(**SETTINGS)
        self.owned_params = {name for name, _ in self.model.named_parameters()}
        self.error_feedback = dict.fromkeys(self.owned_params)
        self.transformer = compress.ChunkingTransformer(
            self.model, SETTINGS["target_chunk"]
        )
        self.compressor = compressor

    def residual(self) -> np.ndarray:
        names = [name for name, _ in self.model.named_parameters()]
        return flat([self.error_feedback[name] for name in names])


def synchronise(neurons, workers: list[Worker], anchor: list) -> None:
    """Each worker's message by their first function, its step by their second."""
    messages = []
    for worker in workers:
        for p, before in zip(worker.params, anchor, strict=True):
            p.grad = before - p.data
            p.data.copy_(before)
        messages.append(neurons.prepare_gradient_dict(worker, 0))
    names = [name for name in messages[0][0] if name != "metadata"]
    gathered = {name: [message[0][name] for message in messages] for name in names}
    for worker in workers:
        neurons.outer_step(
            worker.model,
            worker.outer,
            gather_result=types.SimpleNamespace(state_dict=gathered),
            transformer=worker.transformer,
            compressor=worker.compressor,
            xshapes=messages[0][1],
            totalks=messages[0][2],
            device="cpu",
            is_master=True,
            world_size=1,
        )


def main() -> None:
    torch: Any = importlib.import_module("torch")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    compress, neurons = imported(sys.argv[1])

    class Plain(compress.TopKCompressor):
        """Values are sent as they are, and no worker is held to the median norm."""

        def compress(self, x, topk):
            return *super().compress(x, topk), None

        def batch_decompress(self, *args, **options):
            return super().batch_decompress(*args, **{**options, "clip_norm": False})

    compressor = Plain(use_quantization=False)
    workers = [Worker(torch, compress, compressor) for _ in range(WORKERS)]
    weights = [np.stack([flat(worker.params) for worker in workers])]
    anchor: list = []
    for t in range(STEPS):
        if t % PERIOD == 0:
            anchor = [p.data.clone() for p in workers[0].params]
        for k, worker in enumerate(workers):
            new = gradient(PROBLEM, k, t, weights[-1][k])
            for p, g in zip(worker.params, split(torch, new, SHAPES), strict=True):
                p.grad = g
            worker.inner.step()
        if (t + 1) % PERIOD == 0:
            synchronise(neurons, workers, anchor)
        weights.append(np.stack([flat(worker.params) for worker in workers]))
    arrays: dict[str, Any] = {
        **PROBLEM,
        "weights": np.stack(weights),
        "residuals": np.stack([worker.residual() for worker in workers]),
        "period": np.array(PERIOD),
        **{name: np.array(value) for name, value in SETTINGS.items()},
    }
    file = pathlib.Path(__file__).with_name("templar_trajectories.npz")
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
