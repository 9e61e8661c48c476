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
    """The same, and the others are removed, which kills have left, unless the user asked for states."""
    newest = newest_state(added)
    if newest is not None and not added.keeps_states:
        for info in _states_of(added):
            if Path(info.folder) != newest[0]:
                remove_whole(Path(info.folder))
    return newest


def remove_unwanted(added: Added) -> None:
    """Remove the states of a run that is done, except for those that its user asked for."""
    if added.keeps_states:
        return
    last = Path(added.output_dir) / state_name(added.name)
    for info in _states_of(added):
        if not (added.keeps_last_state and Path(info.folder) == last):
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
