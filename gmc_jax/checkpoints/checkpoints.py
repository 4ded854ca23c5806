"""Checkpoints of training that are whole or are not there."""

import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import SupportsIndex

import jax

from gmc_jax.checkpoints import manifest
from gmc_jax.checkpoints._directories import path_of, usable
from gmc_jax.checkpoints._subset import chosen, replaced, taking_turns
from gmc_jax.checkpoints.array_store import Files, placed
from gmc_jax.checkpoints.compatibility import (
    check_about,
    check_leaves,
    differences,
    find_leaves,
    leaves_of,
    number_of,
    plain,
    some,
)
from gmc_jax.checkpoints.manifest import Manifest
from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.execution.resize import first
from gmc_jax.execution.resize import resize as resize_state
from gmc_jax.utils import checks
from gmc_jax.utils.multihost import Json, fetch, on_first_process, shared

_log = logging.getLogger(__name__)


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
      directory: where checkpoints are, on a file system; a leading `~` is the user's
        home. Nothing is written before the first `save`, so that it may be read-only
        where states are only restored. `save` makes it if it is not there, and removes
        what earlier writes left that did not end; files of others stay.
      layout: of the states that are saved and restored, as `train.layout` has it.
      about: what tells this training from others, such as `{"method": "gmc", "ratio":
        0.01}`, in what JSON can say: saved, and compared by value when a state is
        restored.
      keep: how many checkpoints are kept, the newest ones; at least 1.

    Attributes:
      not_restored: the names of the leaves that the last `restore` left as they were,
        such as `state[1].count`; empty unless it was told `only` what to restore.

    Raises:
      ImportError: if orbax is not installed.
      TypeError: if `layout` is none, or `about` not a mapping of what JSON can say.
      ValueError: if `keep` is not a whole number of at least 1, or `directory` a URL,
        a file, a place that cannot be read or made, or a name that orbax cannot use.

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
      A `save` that fails leaves nothing behind; one that is interrupted ends what it
      writes, removes it and raises then.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        layout: Layout,
        *,
        about: Mapping[str, Json] | None = None,
        keep: int = 2,
    ) -> None:
        """Checks the directory, and writes nothing."""
        check_layout(layout)
        checks.positive_int(keep=keep)
        self._about = plain("about", {} if about is None else about)
        said = path_of(directory)
        on_first_process(lambda: usable(said))
        # Each process its own: hosts may have mounted it in different places.
        self._directory = pathlib.Path(usable(said))
        self._layout, self._keep = layout, keep
        self._at = -1  # The last step saved or restored.
        self._seen: set[int] = set()  # The steps that were here then.
        self._files = Files()
        self.not_restored: tuple[str, ...] = ()

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

        Raises:
          OSError: if the directory is there and cannot be read.
        """
        return on_first_process(
            lambda: next(iter(manifest.complete_steps(self._directory)), None)
        )

    def save(self, step: SupportsIndex, state: Tree, **extras: Json) -> None:
        """Saves a state as it is kept between steps; when it returns, it is saved.

        Args:
          step: of training; later than the last one that was saved or restored.
          state: of the layout.
          **extras: what else to keep, such as `seconds=12.5`, in what JSON can say.

        Raises:
          TypeError: if JSON cannot say the extras.
          ValueError: if `state` is not one of the layout, or `step` not a whole number
            of at least 0, not later than the last one, or not later than a checkpoint
            that training does not come from; or if a file of somebody else's is where
            the manifest is to be.
          OSError: if it cannot be written, or what was written is not there.
        """
        step = number_of(step)
        self._layout.check_kept(state)
        said = plain("extras", extras)
        leaves = jax.tree.leaves(state)
        with ExitStack() as writing:
            name = on_first_process(lambda: self._begin(step, writing))
            folder = manifest.arrays(self._directory, name)
            self._files.write(folder, leaves)
            on_first_process(lambda: self._files.check(folder, leaves))
            sizes = on_first_process(lambda: manifest.sizes(folder))
            sums = shared(lambda file: manifest.checksum(folder / file), list(sizes))
            if unread := [
                file for file, sum in zip(sizes, sums, strict=True) if sum < 0
            ]:
                raise OSError(
                    f"`{folder}` was written without an error, but {some(unread)} in "
                    "it cannot be read, perhaps by another process than the one that "
                    "wrote it. All processes must share the directory."
                )
            saved = Manifest(
                step,
                name,
                self._layout.workers,
                leaves_of(self._layout),
                self._about,
                said,
                {
                    file: [size, checksum]
                    for (file, size), checksum in zip(sizes.items(), sums, strict=True)
                },
            )
            on_first_process(lambda: manifest.write(self._directory, saved))
            self._at = step
            self._seen.add(step)
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
          like: the state that `simulate` or `distribute` has just made, or
            `layout.lay_out` for `pmap`: what is restored is placed as it is.
          step: which one; None for the newest that is whole.
          only: selects what is restored; the rest stays as `like` has it. So parameters
            go on with another method, `lambda state: state[0]`, or all does but what a
            new schedule counts, `lambda state: (state[0],
            state[1]._replace(count=None))`. What is selected must be in the checkpoint
            under the same name, such as `state[0]['bias']`, with the same shape and
            dtype, and on all workers alike or not; for the rest the checkpoint may be
            of another training (`about`), method or model. What was not restored is
            logged, and named by `not_restored`. None restores all, and wants all to
            be the same.
          resize: whether a checkpoint of another number of workers is read whole, by
            all processes, and passed through `gmc_jax.resize`; else it is refused.
            What `only` does not select is asked there as `like` has it.
          params: selects the parameters, as `resize` wants it.

        Returns:
          `(step, state, extras)`.

        Raises:
          ValueError: if there is no such checkpoint, or it is not whole, or of another
            training (`about`), method, model or number of workers, or `only` selects
            nothing, or what is not in the state. The error names what differs, or the
            file that is damaged, and what to do.
        """
        checks.flag(resize=resize)
        checks.function(params=params)
        self._layout.check_kept(like)
        here, leaves = leaves_of(self._layout), jax.tree.leaves(like)
        part = range(len(leaves)) if only is None else chosen(only, self._layout)
        saved = self._whole(None if step is None else number_of(step))
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
            new = self._files.read(folder, places, likes)
        elif resize:
            before = self._layout._replace(workers=theirs)
            kept = before.kept
            sources = [jax.tree.leaves(kept)[place] for place in part]
            if only is not None:
                kept = taking_turns(fetch(like), self._layout, theirs)
            old = replaced(kept, part, self._files.read(folder, places, sources))
            met = resize_state(old, before, workers=ours, params=params)
            met = jax.tree.leaves(fetch(met))
            new = list(map(placed, [met[place] for place in part], likes))
        else:
            raise ValueError(
                f"{what} is of {theirs} workers, and `layout` of {ours}. Train with "
                f"{theirs}; or pass `resize=True`, and all start from the mean of "
                "those there were."
            )
        self._at = saved.step
        self._seen = set(on_first_process(lambda: manifest.steps(self._directory)))
        self.not_restored = tuple(
            leaf.name for place, leaf in enumerate(here) if place not in set(part)
        )
        if only is not None and jax.process_index() == 0:
            self._tell(what, saved, [leaf.name for leaf in wanted])
        return saved.step, replaced(like, part, new), saved.extras

    def _tell(self, what: str, saved: Manifest, restored: Sequence[str]) -> None:
        """Logs what was not restored."""
        unread = [leaf.name for leaf in saved.leaves if leaf.name not in restored]
        others = differences(saved.about, self._about).values()
        _log.warning(
            "Of %s are restored: %s. Not restored: %s. Kept as they were: %s.%s",
            what,
            some(restored),
            some(unread),
            some(self.not_restored),
            "".join(f" It is of another training: {words}." for words in others),
        )

    def _begin(self, step: int, writing: ExitStack) -> str:
        """Becomes the only writer, checks the step, and makes a folder."""
        self._directory.mkdir(parents=True, exist_ok=True)
        writing.enter_context(manifest.only_writer(self._directory))
        if step <= self._at:
            raise ValueError(
                f"`step` must be later than {self._at}, the last one that was saved or "
                f"restored, but is {step}: a step is saved once."
            )
        found = manifest.complete_steps(self._directory)
        strange = [at for at in found if at >= step and at not in self._seen]
        if strange:
            raise ValueError(
                f"`{self._directory}` holds a checkpoint of step {strange[0]} that "
                f"this training, at step {step}, does not come from. Go on from it "
                "with `restore`, or give another directory."
            )
        return writing.enter_context(manifest.new_folder(self._directory, step))

    def _whole(self, step: int | None) -> Manifest:
        """The manifest of a checkpoint that has not changed since it was written."""
        found = on_first_process(
            lambda: manifest.choose(self._directory, step)._asdict()
        )
        saved = manifest.parsed(found)
        folder = manifest.arrays(self._directory, saved.folder)
        files = list(saved.files)
        sums = shared(lambda file: manifest.checksum(folder / file), files)
        if wrong := manifest.changed(saved, sums):
            words = on_first_process(
                lambda: manifest.not_whole(self._directory, saved.step, wrong)
            )
            raise ValueError(words)
        return saved
