"""Checkpoints of training that are whole or are not there."""

import json
import os
import pathlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType

import jax
import numpy as np

from gmc_jax import checks, manifests, resizing
from gmc_jax.core import Tree
from gmc_jax.descriptions import check_about, check_leaves, leaves_of
from gmc_jax.layouts import Layout
from gmc_jax.manifests import Manifest
from gmc_jax.processes import Plain, agree, shared
from gmc_jax.replicas import fetch
from gmc_jax.storing import Files, placed


class Checkpoints:
    """Saves the state of training, and goes on from it, bit for bit.

    A checkpoint is a folder of files, written by orbax, and a manifest beside it, with
    the checksums of all files, that is written last and at once: without it there is no
    checkpoint, and an old one is removed only when a new one is whole. So whenever a
    process is stopped, what was whole stays so.

    Over several processes the directory is one that they share, all of them make every
    call together, and each writes and reads the parts of arrays that it holds.

    Steps ascend. A step is saved once, and later than that which was saved or restored
    before; where training goes on from an older checkpoint than the newest, the later
    ones are removed when the first new one is whole.

    Args:
      directory: where checkpoints are; it is made if it is not there. Leftovers of
        writes that did not end are removed, unless some process is writing just now.
      layout: of the states that are saved and restored, as `train.layout` has it.
      about: what tells this training from others, such as `{"method": "gmc", "ratio":
        0.01}`, in what JSON can say: saved, and compared when a state is restored.
      keep: how many checkpoints are kept, the newest ones; at least 1.

    Raises:
      ImportError: if orbax is not installed.
      TypeError: if `about` is not a mapping of what JSON can say.
      ValueError: if `keep` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, jax.numpy as jnp, optax, tempfile
      >>> tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.5)))
      >>> def step(state, batch):
      ...     params, opt_state = state
      ...     updates, opt_state = tx.update(params - batch, opt_state, params)
      ...     return (optax.apply_updates(params, updates), opt_state), {}
      >>> start, batch = (jnp.zeros(4), tx.init(jnp.zeros(4))), jnp.ones((8, 4))
      >>> train, state = gmc_jax.simulate(step, start, batch, workers=8)
      >>> with gmc_jax.Checkpoints(tempfile.mkdtemp(), train.layout) as checkpoints:
      ...     if checkpoints.latest is not None:
      ...         done, state, extras = checkpoints.restore(state)
      ...     state, _ = train(state, batch)
      ...     checkpoints.save(1, state, seconds=0.5)
      ...     done, state, extras = checkpoints.restore(state)
      >>> done, extras
      (1, {'seconds': 0.5})

    Guarantees:
      What is restored is what was saved, bit for bit, with the shardings of the state
      that it is restored for; so training goes on as if it had not stopped.
      A checkpoint that was whole stays so, or is removed after a newer one became
      whole; whatever else is in the directory is not taken for one.
      Files that are missing, too short or not as they were are found before they are
      used.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        layout: Layout,
        *,
        about: Mapping[str, Plain] | None = None,
        keep: int = 2,
    ) -> None:
        """Makes the directory, and removes leftovers."""
        checks.positive(keep=keep)
        self._about = _plain("about", {} if about is None else about)
        self._directory = pathlib.Path(directory).absolute()
        self._layout, self._keep = layout, keep
        self._at = -1  # The last step saved or restored.
        self._seen: set[int] = set()  # The steps that were here then.
        self._files = Files()

        def open_directory() -> None:
            self._directory.mkdir(parents=True, exist_ok=True)
            with manifests.only_writer(self._directory, wait=False) as nobody_writes:
                if nobody_writes:
                    manifests.clean(self._directory)

        agree(open_directory)

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes what is open; everything was written before."""
        del kind, error, traceback
        self._files.close()

    @property
    def latest(self) -> int | None:
        """The newest step that is whole, to the sizes of all files; None without one.

        Checksums are compared when it is restored.
        """
        return agree(lambda: next(iter(manifests.whole(self._directory)), None))

    def save(self, step: int, state: Tree, **extras: Plain) -> None:
        """Saves a state as it is kept between steps; when it returns, it is saved.

        Args:
          step: of training; later than the last one that was saved or restored.
          state: of the layout.
          **extras: what else to keep, such as `seconds=12.5`, in what JSON can say.

        Raises:
          TypeError: if JSON cannot say the extras.
          ValueError: if `state` is not one of the layout, or `step` not a whole number
            of at least 0, not later than the last one, or not later than a checkpoint
            that training does not come from.
        """
        checks.count(step=step)
        self._layout.check_kept(state)
        said = _plain("extras", extras)
        with ExitStack() as writing:
            name = agree(lambda: self._begin(step, writing))
            folder = self._directory / name
            self._files.write(folder, jax.tree.leaves(state))
            sizes = agree(lambda: manifests.sizes(folder))
            sums = shared(lambda file: manifests.checksum(folder / file), list(sizes))
            files = {
                file: [size, checksum]
                for (file, size), checksum in zip(sizes.items(), sums, strict=True)
            }
            workers, leaves = self._layout.workers, leaves_of(self._layout)
            manifest = Manifest(
                int(step), name, workers, leaves, self._about, said, files
            )

            def end() -> None:
                manifests.write(self._directory, manifest)
                manifests.keep_up_to(self._directory, step, self._keep)

            agree(end)
        self._at = step
        self._seen.add(step)

    def restore(
        self,
        like: Tree,
        step: int | None = None,
        *,
        resize: bool = False,
        params: Callable[[Tree], Tree] = resizing.first,
    ) -> tuple[int, Tree, dict[str, Plain]]:
        """Reads a checkpoint.

        Args:
          like: the state that `simulate` or `distribute` has just made, or
            `layout.lay_out` for `pmap`: what is restored is placed as it is.
          step: which one; None for the newest that is whole.
          resize: whether a checkpoint of another number of workers is read whole, by
            all processes, and passed through `gmc_jax.resize`; else it is refused.
          params: selects the parameters, as `resize` wants it.

        Returns:
          `(step, state, extras)`.

        Raises:
          ValueError: if there is no such checkpoint, or it is not whole, or of another
            training (`about`), method, model or number of workers. The error names what
            differs, or the file that is damaged, and what to do.
        """
        self._layout.check_kept(like)
        manifest = self._whole(step)
        what = f"the checkpoint of step {manifest.step}"
        check_about(what, manifest.about, self._about)
        check_leaves(what, manifest.leaves, leaves_of(self._layout))
        folder = self._directory / manifest.folder
        leaves, treedef = jax.tree.flatten(like)
        ours, theirs = self._layout.workers, manifest.workers
        if ours == theirs:
            new = self._files.read(folder, leaves)
        elif resize:
            before = self._layout._replace(workers=theirs)
            kept = treedef.unflatten(
                self._files.read(folder, jax.tree.leaves(before.kept))
            )
            met = resizing.resize(kept, before, workers=ours, params=params)
            new = list(map(placed, jax.tree.leaves(fetch(met)), leaves))
        else:
            raise ValueError(
                f"{what} is of {theirs} workers, and `layout` of {ours}. Train with "
                f"{theirs}; or pass `resize=True`, and all start from the mean of "
                "those there were."
            )
        self._at = manifest.step
        self._seen = set(agree(lambda: manifests.steps(self._directory)))
        return manifest.step, treedef.unflatten(new), manifest.extras

    def _begin(self, step: int, writing: ExitStack) -> str:
        """Becomes the only writer, checks the step, and names a folder."""
        writing.enter_context(manifests.only_writer(self._directory, wait=True))
        if step <= self._at:
            raise ValueError(
                f"`step` must be later than {self._at}, the last one that was saved or "
                f"restored, but is {step}: a step is saved once."
            )
        found = manifests.whole(self._directory)
        strange = [at for at in found if at >= step and at not in self._seen]
        if strange:
            raise ValueError(
                f"`{self._directory}` holds a checkpoint of step {strange[0]} that "
                f"this training, at step {step}, does not come from. Go on from it "
                "with `restore`, or give another directory."
            )
        return f"{step}-{secrets.token_hex(4)}"

    def _whole(self, step: int | None) -> Manifest:
        """The manifest of a checkpoint that has not changed since it was written."""

        def choose() -> dict:
            found = [step] if step is not None else manifests.whole(self._directory)
            if not found:
                wrong = [
                    f"; of step {at}, {manifests.fault(self._directory, at)}"
                    for at in manifests.steps(self._directory)
                ]
                raise ValueError(
                    f"`{self._directory}` holds no checkpoint that is whole"
                    f"{''.join(wrong)}. Where `latest` is None, start anew."
                )
            if wrong := manifests.fault(self._directory, found[0]):
                raise ValueError(self._not_whole(found[0], wrong))
            return manifests.read(self._directory, found[0])._asdict()

        manifest = manifests.parsed(agree(choose))
        folder = self._directory / manifest.folder
        files = list(manifest.files)
        sums = shared(lambda file: manifests.checksum(folder / file), files)
        if wrong := manifests.changed(manifest, sums):
            raise ValueError(agree(lambda: self._not_whole(manifest.step, wrong)))
        return manifest

    def _not_whole(self, step: int, wrong: str) -> str:
        """What to say of a damaged checkpoint, and which other one is whole."""
        found = manifests.steps(self._directory)
        before = [at for at in found if at < step]
        after = [at for at in reversed(found) if at > step]
        for at in before + after:
            if not manifests.fault(self._directory, at, thorough=True):
                where = "before" if at < step else "after"
                remedy = f"The one {where}, {at}, is whole: `restore(like, step={at})`."
                break
        else:
            remedy = "No other one is whole: start anew, in another directory."
        return f"the checkpoint of step {step} is not whole: {wrong}. {remedy}"


def _plain(name: str, said: Mapping[str, Plain]) -> dict[str, Plain]:
    """What JSON makes of it; numbers of NumPy and JAX are numbers."""

    def number(value: object) -> Plain:
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "biuf":
            raise TypeError(f"{value!r} is none of it")
        return array.item()

    try:
        return json.loads(json.dumps(dict(said), default=number))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must hold what JSON can say, such as numbers and strings, but "
            f"{error}. Arrays belong into the state."
        ) from None
