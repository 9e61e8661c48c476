"""When and where results and states are saved, under which names, and which old ones are removed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from library.console import activity, fail
from library.files import NotWritten, remove, remove_whole, unwritten_is_a_warning
from library.options.saving import SavingOptions
from library.problems import Problem, UserError
from library.training.position import Unit, read_state_info
from library.training.saving.beside import Beside
from library.training.saving.saves import Saves
from library.training.saving.uploads import Uploads

# sd-scripts' names, which users' own scripts look for.
_NO_NAME = {"epoch": "epoch", "step": "at", "last": "last"}


def epoch_name(name: str | None, epoch: int) -> str:
    """`x-000003`: the result after the (1-based) epoch 3."""
    return f"{name or _NO_NAME['epoch']}-{epoch:06d}"


def step_name(name: str | None, step: int) -> str:
    """`x-step00000030`: the result after 30 steps."""
    return f"{name or _NO_NAME['step']}-step{step:08d}"


def last_name(name: str | None) -> str:
    """`x`: the final result."""
    return name or _NO_NAME["last"]


def best_name(name: str | None) -> str:
    """`x-best`: the result with the lowest validation loss."""
    return f"{last_name(name)}-best"


def state_name(result: str) -> str:
    """`x-state`: the state beside the result `x`."""
    return f"{result}-state"


def epoch_to_remove(epoch: int, every: int, keep: int | None) -> int | None:
    """The epoch whose save is removed after the save of `epoch`, if the last `keep` saves are kept; None if
    nothing is removed.
    """
    if keep is None:
        return None
    old = epoch - every * keep
    return old if old >= 0 else None


def step_to_remove(step: int, every: int, keep: int | None) -> int | None:
    """The step whose save is removed after the save of `step`, if the saves of the last `keep` steps are
    kept; None if nothing is removed.
    """
    if keep is None:
        return None
    old = step - keep - 1
    old -= old % every
    return old if old >= 0 else None


@dataclass(frozen=True)
class _Counted:
    """A save that is removed when it is too old.

    unit: after how many of which it is made.
    number: how many.
    old, old_state: up to which number results and states are removed after it; None removes nothing.
    """

    unit: Unit
    number: int
    old: int | None
    old_state: int | None


# Writes a result from copies; None: it is written already.
Rest = Callable[[], None] | None


@dataclass
class Checkpoints:
    """Saves results and states when they are due. Used in the first process only.

    A network is written by a thread from a copy while training goes on. What follows, such as the removal of
    an older save, waits until the file is whole; the next save, a state, the end and errors wait for it too.

    suffix: of results; empty if they are folders.
    epochs: of the whole run.
    save_result: (path, epoch, step) -> Rest, saves what is trained, or copies it and returns what writes it.
    save_state: (folder, epoch, step) -> None, writes the training state.
    saves: what was saved so far, also before a resume.
    uploads: uploads results and states as well; None: nothing is uploaded.
    has_room: whether the disk has room for a state and the result after it.
    remove_path: removes an old result or state.
    beside: what else is written with a result.
    """

    options: SavingOptions
    suffix: str
    epochs: int
    save_result: Callable[[Path, int, int], Rest]
    save_state: Callable[[Path, int, int], None]
    saves: Saves
    uploads: Uploads | None = None
    has_room: Callable[[], bool] = lambda: True
    remove_path: Callable[[Path], None] = remove
    beside: Callable[[Path], list[Path]] = lambda result: []
    _beside: Beside = field(default_factory=Beside)

    def __post_init__(self) -> None:
        options = self.options
        self.every_epochs = options.save_every_n_epochs
        if options.save_n_epoch_ratio:
            self.every_epochs = max(1, self.epochs // options.save_n_epoch_ratio)

    def saves_at_step(self, step: int) -> bool:
        """Whether a save is due after a step."""
        every = self.options.save_every_n_steps
        return every is not None and every > 0 and step % every == 0

    def saves_at_epoch(self, epoch: int) -> bool:
        """Whether a save is due after an epoch. The run's last one is saved under the final name only."""
        every = self.every_epochs
        return every is not None and every > 0 and epoch % every == 0 and epoch < self.epochs

    def after_step(self, epoch: int, step: int) -> None:
        """Save where `saves_at_step`, and remove what is too old.

        epoch: the (1-based) epoch that the step belongs to.
        step: steps done.
        """
        options, every = self.options, self.options.save_every_n_steps
        assert every is not None
        old = step_to_remove(step, every, options.save_last_n_steps)
        old_state = step_to_remove(step, every, options.save_last_n_steps_state or options.save_last_n_steps)
        name = step_name(options.output_name, step)
        counted = _Counted("step", step, old, old_state)
        self._save(name, epoch, step, with_state=options.save_state, counted=counted)

    def after_epoch(self, epoch: int, step: int) -> None:
        """Save where `saves_at_epoch`, and remove what is too old. epoch, step: how many are done."""
        options, every = self.options, self.every_epochs
        assert every is not None
        old = epoch_to_remove(epoch, every, options.save_last_n_epochs)
        keep = options.save_last_n_epochs_state or options.save_last_n_epochs
        name = epoch_name(options.output_name, epoch)
        counted = _Counted("epoch", epoch, old, epoch_to_remove(epoch, every, keep))
        self._save(name, epoch, step, with_state=options.save_state, counted=counted)

    @property
    def path_at_end(self) -> Path:
        """The file or folder of the final result."""
        return self._path(last_name(self.options.output_name))

    def at_end(self, epoch: int, step: int) -> None:
        """Save the final result, and the state if it was asked for.

        Raises NotWritten if there is no room for the result. It is then saved among the system's temporary
        files, if there is room, so that hours of training are not lost.
        """
        self.settle()
        keeps_state = self.options.save_state or self.options.save_state_on_train_end
        name = last_name(self.options.output_name)
        try:
            self.save_now(self._path(name), epoch, step)
        except NotWritten as error:
            error.problems += self._saved_elsewhere(name, epoch, step)
            raise
        self._follow_up(name, epoch, step, with_state=keeps_state)

    def _saved_elsewhere(self, name: str, epoch: int, step: int) -> list[Problem]:
        """Save the result among temporary files. Where it is, for the user; nothing if that fails too."""
        try:
            path = Path(tempfile.mkdtemp(prefix="atelier-")) / (name + self.suffix)
            self.save_now(path, epoch, step)
        except (NotWritten, OSError):
            return []
        return [Problem(str(path), "the result is here instead", "move it soon")]

    def best(self, epoch: int, step: int) -> None:
        """Save the result with the lowest validation loss so far, in place of the one before."""
        self._save(best_name(self.options.output_name), epoch, step, with_state=False)

    def on_stop(self, epoch: int, step: int) -> Path:
        """Save the state of a run that was asked to stop. Returns the folder to resume from."""
        self.settle()
        folder = self._folder / state_name(step_name(self.options.output_name, step))
        self.save_state(folder, epoch, step)
        return folder

    def in_place_of(self, old: int, epoch: int, step: int, *, key: str) -> None:
        """Save the state after `step` steps, and remove the one after `old` steps if this run of a queue has
        saved it. Raises NotWritten if there is no room.

        key: the run's id in its queue.
        """
        if not self.has_room():
            cause = f"has no room for a state after step {step}, which would let this run go on from there"
            raise NotWritten.of(self._folder, cause, "make room")
        folder = self.on_stop(epoch, step)
        before = self._folder / state_name(step_name(self.options.output_name, old))
        if before == folder:
            return
        with suppress(UserError):
            if read_state_info(before).run == key:
                remove_whole(before)

    def save_now(self, path: Path, epoch: int, step: int) -> None:
        """Save what is trained, and return when it is written."""
        rest = self.save_result(path, epoch, step)
        if rest is not None:
            with activity(f"saving {path}"):
                rest()

    def poll(self) -> None:
        """Do what follows from a save that has been written meanwhile, if there is one. Raises as `settle`
        does.
        """
        if self._beside.is_done:
            self.settle()

    def settle(self) -> None:
        """Wait until nothing is being written any more. A file that could not be written is a warning.

        Raises UserError when what was to be written is no numbers.
        """
        if self._beside.is_busy:
            with activity("finishing the save before"), unwritten_is_a_warning():
                self._beside.wait()

    @contextmanager
    def settled_after(self) -> Iterator[None]:
        """Context manager; nothing is being written when it ends, also after an error."""
        try:
            yield
        except BaseException:
            try:
                self.settle()
            except UserError as error:
                fail("\n".join(map(str, error.problems)))
            raise
        self.settle()

    @property
    def _folder(self) -> Path:
        return self.options.output_dir

    def _path(self, name: str) -> Path:
        return self._folder / (name + self.suffix)

    def _save(
        self, name: str, epoch: int, step: int, *, with_state: bool, counted: _Counted | None = None
    ) -> None:
        """counted: if it is removed when it is too old."""
        self.settle()
        rest = self.save_result(self._path(name), epoch, step)
        follow_up = partial(self._follow_up, name, epoch, step, with_state=with_state, counted=counted)
        if rest is None:
            follow_up()
            return
        self._beside.start(rest, follow_up)
        is_uploaded_first = self.uploads is not None and not self.uploads.options.async_upload
        if with_state or is_uploaded_first:
            with activity(f"saving {self._path(name)}"):
                self._beside.wait()

    def _follow_up(
        self, name: str, epoch: int, step: int, *, with_state: bool, counted: _Counted | None = None
    ) -> None:
        """Save the state beside a result, upload both, and remove what is too old."""
        result, state = self._path(name), self._folder / state_name(name)
        if counted is not None:
            self.saves.add(result, counted.unit, counted.number, is_state=False)
        if with_state:
            if counted is not None:
                self.saves.announce(state, counted.unit, counted.number)
            self.save_state(state, epoch, step)
            if counted is not None:
                self.saves.add(state, counted.unit, counted.number, is_state=True)
        if self.uploads is not None:  # only once everything is on the disk
            for path in (result, *self.beside(result)):
                self.uploads.add(path)
            if with_state:
                self.uploads.add(state, is_state=True)
        if counted is not None:
            self._remove(counted.unit, counted.old, is_state=False)
            self._remove(counted.unit, counted.old_state, is_state=True)

    def _remove(self, unit: Unit, newest: int | None, *, is_state: bool) -> None:
        """Remove the results, or states, of up to `newest` epochs or steps; nothing if that is None."""
        if newest is None:
            return
        for old in self.saves.take_old(unit, newest, is_state=is_state):
            for path in (old, *([] if is_state else self.beside(old))):
                (self.remove_path if self.uploads is None else self.uploads.remove)(path)
