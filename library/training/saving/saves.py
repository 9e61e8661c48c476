"""What a run, and those it goes on from, saved on their way: only that is ever removed as too old."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from library.training.position import Save, StateInfo, Unit

_END = 2**16  # bytes of a file's beginning and end: its metadata or first names, and weights


class Saves:
    """The saves of a run by their names, those of before a resume among them. Each is known by its content:
    what another program or run put in its place is not ours.
    """

    def __init__(
        self,
        folder: Path,
        resumed: StateInfo | None = None,
        fingerprint: Callable[[Path], str] | None = None,
    ) -> None:
        """folder: the output folder.
        resumed: the state that the run resumes. Its saves count if it lies in the output folder.
        fingerprint: of what is at a path, empty if nothing is; None: `content_of`.
        """
        self.folder, self.fingerprint = folder, fingerprint or content_of
        self._saves: dict[str, Save] = {}
        if resumed is None or Path(resumed.folder).resolve().parent != folder.resolve():
            return
        own = Path(resumed.folder).resolve().name
        for save in resumed.saves:
            # A state cannot hold its own fingerprint.
            content = self.fingerprint(folder / own) if save.name == own and save.is_state else save.content
            self._saves[save.name] = Save(save.name, save.unit, save.number, save.is_state, content)

    def announce(self, path: Path, unit: Unit, number: int) -> None:
        """Note a state before it is written, so that it names itself."""
        self._saves[path.name] = Save(path.name, unit, number, True, "")

    def add(self, path: Path, unit: Unit, number: int, *, is_state: bool) -> None:
        """Note what was saved after `number` epochs or steps."""
        self._saves[path.name] = Save(path.name, unit, number, is_state, self.fingerprint(path))

    def entries(self) -> list[Save]:
        """What a state must hold."""
        return list(self._saves.values())

    def take_old(self, unit: Unit, newest: int, *, is_state: bool) -> list[Path]:
        """The results, or states, of up to `newest` epochs or steps that are still what was saved. They are
        forgotten here.
        """
        kind = (unit, is_state)
        old = [
            one for one in self._saves.values() if (one.unit, one.is_state) == kind and one.number <= newest
        ]
        for save in old:
            del self._saves[save.name]
        paths = [(self.folder / save.name, save.content) for save in old]
        return [path for path, content in paths if content and self.fingerprint(path) == content]


def content_of(path: Path) -> str:
    """A hash of the size, beginning and end of a file, or of each file in a folder. Empty: none."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        if path.is_symlink() or not path.exists():
            return ""
        files = [path] if path.is_file() else sorted(inner for inner in path.rglob("*") if inner.is_file())
        for file in files:
            digest.update(
                f"{file.relative_to(path).as_posix()} {file.stat().st_size} ".encode(errors="replace")
            )
            with file.open("rb") as opened:
                digest.update(opened.read(_END))
                opened.seek(max(0, file.stat().st_size - _END))
                digest.update(opened.read(_END))
    except OSError:
        return ""
    return digest.hexdigest()
