"""Saves and restores the state of training."""

import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import SupportsIndex

import jax

from gmc_jax.checkpoints import manifest
from gmc_jax.checkpoints._directories import path_of, usable_path
from gmc_jax.checkpoints._subset import repeat_workers, replace_leaves, selected_places
from gmc_jax.checkpoints.array_store import ArrayStore, place_like
from gmc_jax.checkpoints.compatibility import (
    about_differences,
    check_about,
    check_leaves,
    find_leaves,
    first_names,
    leaves_of,
    step_number,
    to_json,
)
from gmc_jax.checkpoints.manifest import Manifest
from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.execution.resize import first
from gmc_jax.execution.resize import resize as resize_state
from gmc_jax.utils import checks
from gmc_jax.utils.multihost import Json, fetch, map_over_processes, on_first_process

_log = logging.getLogger(__name__)


class Checkpoints:
    """Saves and restores the state of training, bit for bit.

    A checkpoint is a folder of files, written by orbax, with a manifest beside it. The
    manifest holds the checksums of all files. It is written last and atomically, and
    without it there is no checkpoint. An old checkpoint is removed only when a new one
    is complete. So a complete checkpoint survives, whenever a process is stopped.

    Several processes must share the directory and make every call together. Each
    writes and reads its own shards of arrays.

    Each step is saved once, and must be later than the last step that was saved or
    restored. If training continues from an older checkpoint than the newest, the later
    ones are removed when the first new one is complete.

    Args:
      directory: the directory of the checkpoints, on a file system; a leading `~` is
        the user's home. Nothing is written before the first `save`, so the directory
        may be read-only if states are only restored. `save` makes it if it is missing,
        and removes what interrupted writes have left. Foreign files stay.
      layout: the layout of the states, such as `train.layout`.
      about: what distinguishes this training from others, such as `{"method": "gmc",
        "ratio": 0.01}`, in values that JSON can represent. It is saved, and compared by
        value when a state is restored.
      keep: how many checkpoints are kept, the newest ones; at least 1.

    Attributes:
      not_restored: the names of the leaves that the last `restore` did not restore,
        such as `state[1].count`; empty unless `only` selected what to restore.

    Raises:
      ImportError: if orbax is not installed.
      TypeError: if `layout` is not a `Layout`, or `about` not a mapping of values that
        JSON can represent.
      ValueError: if `keep` is not a whole number of at least 1, or if `directory` is a
        URL, a file, cannot be read or made, or has a name that orbax cannot use.

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
      A restored state equals the saved one bit for bit, and has the shardings of the
      state that it is restored for; so training continues as if it had not stopped.
      A complete checkpoint stays complete, or is removed after a newer one is complete.
      Nothing else in the directory is mistaken for a checkpoint.
      Missing, truncated and changed files are detected before they are used.
      A `save` that fails leaves nothing behind. One that is interrupted finishes
      writing, removes what it wrote, and then raises.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        layout: Layout,
        *,
        about: Mapping[str, Json] | None = None,
        keep: int = 2,
    ) -> None:
        """Checks the arguments, and writes nothing."""
        check_layout(layout)
        checks.positive_int(keep=keep)
        self._about = to_json("about", {} if about is None else about)
        path = path_of(directory)
        on_first_process(lambda: usable_path(path))
        # On each process, since hosts may have mounted the directory differently.
        self._directory = pathlib.Path(usable_path(path))
        self._layout, self._keep = layout, keep
        self._last = -1  # The last step saved or restored.
        self._known: set[int] = set()  # The steps in the directory then.
        self._arrays = ArrayStore()
        self.not_restored: tuple[str, ...] = ()

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes open files; nothing is left to write."""
        del kind, error, traceback
        self._arrays.close()

    @property
    def latest(self) -> int | None:
        """The newest complete step, or None.

        A step is complete if all its files exist in full length. Checksums are compared
        when it is restored.

        Raises:
          OSError: if the directory exists and cannot be read.
        """
        return on_first_process(
            lambda: next(iter(manifest.complete_steps(self._directory)), None)
        )

    def save(self, step: SupportsIndex, state: Tree, **extras: Json) -> None:
        """Saves a state, and returns when the checkpoint is complete.

        Args:
          step: the step of training, later than the last one that was saved or
            restored.
          state: the state as it is kept between steps.
          **extras: further values to save, such as `seconds=12.5`, that JSON can
            represent.

        Raises:
          TypeError: if JSON cannot represent the extras.
          ValueError: if `state` does not fit the layout; if `step` is not a whole
            number of at least 0, or not later than the last one; if the directory holds
            a checkpoint of this step or a later one that this training has neither
            saved nor restored; if a foreign file has the name of the manifest.
          OSError: if the files cannot be written, or are missing after they were
            written.
        """
        step = step_number(step)
        self._layout.check_kept(state)
        values = to_json("extras", extras)
        leaves = jax.tree.leaves(state)
        with ExitStack() as writing:
            name = on_first_process(lambda: self._begin(step, writing))
            folder = manifest.arrays(self._directory, name)
            self._arrays.write(folder, leaves)
            on_first_process(lambda: self._arrays.check(folder, leaves))
            sizes = on_first_process(lambda: manifest.sizes(folder))
            sums = self._checksums(folder, list(sizes))
            if unreadable := [
                file for file, checksum in zip(sizes, sums, strict=True) if checksum < 0
            ]:
                raise OSError(
                    f"`{folder}` was written without an error, but "
                    f"{first_names(unreadable)} in it cannot be read, perhaps by "
                    "another process than the one that wrote it. All processes must "
                    "share the directory."
                )
            saved = Manifest(
                step,
                name,
                self._layout.workers,
                leaves_of(self._layout),
                self._about,
                values,
                {
                    file: [size, checksum]
                    for (file, size), checksum in zip(sizes.items(), sums, strict=True)
                },
            )
            on_first_process(lambda: manifest.write(self._directory, saved))
            self._last = step
            self._known.add(step)
            on_first_process(lambda: manifest.prune(self._directory, step, self._keep))

    def restore(
        self,
        like: Tree,
        step: SupportsIndex | None = None,
        *,
        only: Callable[[Tree], Tree] | None = None,
        resize: bool = False,
        params: Callable[[Tree], Tree] = first,
    ) -> tuple[int, Tree, dict[str, Json]]:
        """Reads a checkpoint, or a part of one.

        Args:
          like: the state that `simulate` or `distribute` (for `pmap`, `layout.lay_out`)
            has just made. The restored state is placed on devices as this one is.
          step: the step to restore; the newest complete one if None.
          only: selects the leaves that are restored; the others are those of `like`.
            `lambda state: state[0]` restores the parameters for another method, and
            `lambda state: (state[0], state[1]._replace(count=None))` all but the count
            of a new schedule. The checkpoint must hold each selected leaf under the
            same name, such as `state[0]['bias']`, with the same shape and dtype. The
            leaf must differ between workers in both, or in neither. Apart from these
            leaves the checkpoint may be of another training (`about`), method or model.
            The leaves that are not restored are logged, and named by `not_restored`. If
            None, all leaves are restored, and `about` and all leaves must be the same.
          resize: whether a checkpoint of another number of workers is resized by
            `gmc_jax.resize`; every process then reads all of it. If False, such a
            checkpoint is an error. Where `only` does not select a leaf, the hooks that
            `resize` calls get that of `like`.
          params: selects the parameters, as in `gmc_jax.resize`.

        Returns:
          `(step, state, extras)`.

        Raises:
          ValueError: if there is no such checkpoint; if it is damaged, or of another
            training (`about`), method, model or number of workers; if `only` selects
            nothing, or something that is not in the state. The error names what
            differs, or the damaged file, and what to do.
        """
        checks.flag(resize=resize)
        checks.function(params=params)
        self._layout.check_kept(like)
        here, leaves = leaves_of(self._layout), jax.tree.leaves(like)
        everything = range(len(leaves))
        part = everything if only is None else selected_places(only, self._layout)
        saved = self._read_manifest(None if step is None else step_number(step))
        what = f"the checkpoint of step {saved.step}"
        if only is None:
            check_about(what, saved.about, self._about)
            check_leaves(what, saved.leaves, here)
        wanted = [here[place] for place in part]
        places = find_leaves(what, saved.leaves, wanted)
        folder = manifest.arrays(self._directory, saved.folder)
        likes = [leaves[place] for place in part]
        ours, theirs = self._layout.workers, saved.workers
        if ours == theirs:
            new = self._arrays.read(folder, places, likes)
        elif resize:
            before = self._layout._replace(workers=theirs)
            kept = before.kept
            sources = [jax.tree.leaves(kept)[place] for place in part]
            if only is not None:
                kept = repeat_workers(fetch(like), self._layout, theirs)
            stored = self._arrays.read(folder, places, sources)
            old = replace_leaves(kept, part, stored)
            resized = resize_state(old, before, workers=ours, params=params)
            resized = jax.tree.leaves(fetch(resized))
            new = list(map(place_like, [resized[place] for place in part], likes))
        else:
            raise ValueError(
                f"{what} is of {theirs} workers, and `layout` of {ours}. Train with "
                f"{theirs} workers, or pass `resize=True`: then {ours} workers start "
                "from their mean."
            )
        self._last = saved.step
        self._known = set(on_first_process(lambda: manifest.steps(self._directory)))
        self.not_restored = tuple(
            leaf.name for place, leaf in enumerate(here) if place not in set(part)
        )
        if only is not None and jax.process_index() == 0:
            self._log_partial(what, saved, [leaf.name for leaf in wanted])
        return saved.step, replace_leaves(like, part, new), saved.extras

    def _log_partial(self, what: str, saved: Manifest, restored: Sequence[str]) -> None:
        """Logs which leaves were restored, which were not, and why that may matter."""
        unread = [leaf.name for leaf in saved.leaves if leaf.name not in restored]
        others = about_differences(saved.about, self._about).values()
        _log.warning(
            "Restored from %s: %s. Not restored: %s. Kept as they were: %s.%s",
            what,
            first_names(restored),
            first_names(unread),
            first_names(self.not_restored),
            "".join(f" It is of another training: {words}." for words in others),
        )

    def _begin(self, step: int, writing: ExitStack) -> str:
        """Locks the directory, checks the step, and makes a folder for it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        writing.enter_context(manifest.only_writer(self._directory))
        if step <= self._last:
            raise ValueError(
                f"`step` must be later than {self._last}, the last one that was saved "
                f"or restored, got {step}; a step is saved once."
            )
        found = manifest.complete_steps(self._directory)
        foreign = [at for at in found if at >= step and at not in self._known]
        if foreign:
            raise ValueError(
                f"`{self._directory}` must hold no checkpoint of step {step} or later "
                "that this training has neither saved nor restored, but holds one of "
                f"step {foreign[0]}. Continue from it with `restore`, or give another "
                "directory."
            )
        return writing.enter_context(manifest.new_folder(self._directory, step))

    def _read_manifest(self, step: int | None) -> Manifest:
        """Reads the manifest of a checkpoint, and compares all checksums."""
        fields = on_first_process(
            lambda: manifest.choose(self._directory, step)._asdict()
        )
        saved = manifest.parsed(fields)
        folder = manifest.arrays(self._directory, saved.folder)
        sums = self._checksums(folder, list(saved.files))
        if damage := manifest.find_change(saved, sums):
            message = on_first_process(
                lambda: manifest.describe_damage(self._directory, saved.step, damage)
            )
            raise ValueError(message)
        return saved

    def _checksums(self, folder: pathlib.Path, files: Sequence[str]) -> list[int]:
        """Computes the checksums of files; the processes divide them among them."""
        return map_over_processes(lambda file: manifest.checksum(folder / file), files)
