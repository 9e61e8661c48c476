"""Results go to the hub as they are saved, one after the other, in a thread of their own.

An upload that fails is told at once and tried once more at the end. What then is not up is told with the
command that uploads it. The files stay on disk.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from types import TracebackType

from library.console import say
from library.files import remove
from library.options.hub import HubOptions
from library.problems import warn
from library.training.saving.hub import hub_api, tell_hub
from library.wording import counted

POLL = 0.1  # seconds
SECONDS_TO_STOP = 2.0  # that uploads under way are given when a run is asked to stop
Job = tuple[Callable[[Path], None], Path]


@dataclass
class Uploads:
    """The uploads of a run.

    is_stopping: whether the run was asked to stop: then nothing waits any more.
    """

    options: HubOptions
    is_stopping: Callable[[], bool]
    failed: dict[Path, str] = field(default_factory=dict)  # why, in the order they failed
    _jobs: Queue[Job] = field(default_factory=Queue)
    _waiting: list[Job] = field(default_factory=list)  # what is not done yet, the one under way among it
    _thread: threading.Thread | None = None
    _is_ending: bool = False  # failures are told together, later

    def add(self, path: Path, *, is_state: bool = False) -> None:
        """Upload a result, or a state if states are uploaded. Returns when it is up or has failed, with
        --async_upload at once.
        """
        if is_state and not self.options.save_state_to_huggingface:
            return
        self._put(self._upload, path)
        if not self.options.async_upload:
            self._wait()

    def remove(self, path: Path) -> None:
        """Remove a file or folder, after the uploads that are under way: they may be reading it."""
        self._put(remove, path) if self._waiting else remove(path)

    def finish(self) -> None:
        """Wait for all uploads, try those again that failed, and say what is not up."""
        if self._waiting:
            say(f"\nwaiting for {counted(len(self._missing), 'upload')}; Ctrl-C leaves them")
        self._wait()
        self._is_ending = True
        again, self.failed = list(self.failed), {}
        for path in again:
            self._put(self._upload, path)
        self._wait()
        self._tell()

    def __enter__(self) -> Uploads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All that was to be done is done, or the run ends early."""
        self.finish() if error is None else self.leave(SECONDS_TO_STOP)
        if self.is_busy and (error is None or isinstance(error, SystemExit)):
            # An upload's own threads would keep the program until the hub answers.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + signal.SIGINT if error is None else error.code)

    def leave(self, patience: float) -> None:
        """For a run that was asked to stop: give uploads `patience` seconds, and say what is not up."""
        self._wait(time.monotonic() + patience)
        self._tell()

    @property
    def _missing(self) -> list[Path]:
        return [path for act, path in self._waiting if act == self._upload]

    @property
    def is_busy(self) -> bool:
        """Whether one is under way."""
        return bool(self._waiting)

    def _put(self, act: Callable[[Path], None], path: Path) -> None:
        self._waiting.append((act, path))
        self._jobs.put((act, path))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
            self._thread.start()

    def _wait(self, until: float | None = None) -> None:
        while self._waiting:
            if time.monotonic() > until if until is not None else self.is_stopping():
                return
            time.sleep(POLL)

    def _work(self) -> None:
        while True:
            job = act, path = self._jobs.get()
            try:
                act(path)
            except Exception as error:  # whatever it is, training goes on
                self.failed[path] = tell_hub(error, self.options.huggingface_token)
                if not self._is_ending:
                    warn(f"{path.name} was not uploaded ({self.failed[path]}); it is in {path.parent}")
            self._waiting.remove(job)

    def _upload(self, path: Path) -> None:
        from huggingface_hub.utils import disable_progress_bars, logging

        disable_progress_bars()  # there is a bar of the training's
        logging.set_verbosity_error()  # failures are told here
        options, api = self.options, hub_api(self.options.huggingface_token)
        assert options.huggingface_repo_id is not None
        repo = {"repo_id": options.huggingface_repo_id, "repo_type": options.huggingface_repo_type}
        if not api.repo_exists(**repo):
            api.create_repo(**repo, private=options.huggingface_repo_visibility != "public", exist_ok=True)
        target = {"path_in_repo": self.place_of(path), "commit_message": f"Upload {path.name}"}
        if path.is_dir():
            api.upload_folder(folder_path=path, **target, **repo)
        else:
            api.upload_file(path_or_fileobj=path, **target, **repo)

    def place_of(self, path: Path) -> str:
        """A file's or folder's path in the repository."""
        folder = (self.options.huggingface_path_in_repo or "").strip("/")
        return f"{folder}/{path.name}" if folder else path.name

    def _tell(self) -> None:
        missing = dict.fromkeys(self._missing, "not done in time") | self.failed
        repo, kind = self.options.huggingface_repo_id, self.options.huggingface_repo_type
        flag = f" --repo-type {kind}" if kind else ""
        for path, cause in missing.items():
            command = f'hf upload {repo} "{path}" "{self.place_of(path)}"{flag}'
            warn(f"{path.name} is not on the hub ({cause}); upload it with: {command}")
