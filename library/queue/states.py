"""The states of a run: which one to go on from, and which are not needed any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from library.files import remove_whole, restore_folder
from library.problems import UserError
from library.queue.folder import Added
from library.training.position import StateInfo, read_state_info
from library.training.saving.checkpoints import state_name
from library.training.saving.manifest import check_manifest


def newest_state(added: Added) -> tuple[Path, int] | None:
    """The state of this run at the highest step whose files are as they were saved, and that step; None
    without one.
    """
    for info in sorted(_states_of(added), key=lambda info: -info.current_step):
        with suppress(UserError):
            check_manifest(Path(info.folder))
            return Path(info.folder), info.current_step
    return None


def only_newest_state(added: Added) -> tuple[Path, int] | None:
    """The same, and those that interruptions have left before it are removed."""
    newest = newest_state(added)
    if newest is not None:
        _remove_unwanted(added, keep=newest[0])
    return newest


def remove_unwanted(added: Added) -> None:
    """Remove the states of a run that is done, except for those that its user asked for."""
    _remove_unwanted(added, keep=None)


def _remove_unwanted(added: Added, *, keep: Path | None) -> None:
    states, asked = _states_of(added), {keep.name if keep else ""}
    if (
        added.keeps_states
    ):  # a state names those that were due; one that an interruption left is not among them
        asked |= {save.name for info in states for save in info.saves if save.is_state}
    if added.keeps_states or added.keeps_last_state:
        asked.add(state_name(added.name))
    for info in states:
        if Path(info.folder).name not in asked:
            remove_whole(Path(info.folder))


def _states_of(added: Added) -> list[StateInfo]:
    """States that this run wrote, whatever other runs left under names like theirs."""
    folder, found = Path(added.output_dir), []
    for aside in folder.glob(".*-state.*.old"):  # a kill came between the two renames of a new one
        restore_folder(folder / aside.name[1:].rsplit(".", 2)[0])
    for path in folder.glob("*-state"):
        with suppress(UserError):
            info = read_state_info(path)
            if info.run == added.key:
                found.append(info)
    return found
