"""Results are uploaded to the hub as they are saved, one after the other, in a thread of their own.

A failed upload is a warning at once, and is tried once more at the end. If it fails again, a second warning
has the command that uploads it. The files stay on disk.
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
SECONDS_TO_STOP = 2.0  # for running uploads, when a run is asked to stop
Job = tuple[Callable[[Path], None], Path]


@dataclass
class Uploads:
    """The uploads of a run.

    is_stopping: whether the run was asked to stop; then nothing waits for uploads any more.
    failed: why each upload failed, in the order of the failures.
    """

    options: HubOptions
    is_stopping: Callable[[], bool]
    failed: dict[Path, str] = field(default_factory=dict)
    _jobs: Queue[Job] = field(default_factory=Queue)
    _waiting: list[Job] = field(default_factory=list)  # jobs that are not done yet, the running one included
    _thread: threading.Thread | None = None
    _is_ending: bool = False  # from then on, failures are reported together by `_tell`

    def add(self, path: Path, *, is_state: bool = False) -> None:
        """Upload a result, or a state if states are uploaded too. Returns once the upload is done or has
        failed; with --async_upload at once.
        """
        if is_state and not self.options.save_state_to_huggingface:
            return
        self._put(self._upload, path)
        if not self.options.async_upload:
            self._wait()

    def remove(self, path: Path) -> None:
        """Remove a file or folder, but only after the uploads before it, which may be reading it."""
        self._put(remove, path) if self._waiting else remove(path)

    def finish(self) -> None:
        """Wait for all uploads, retry those that failed, and report what was not uploaded."""
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
        """`finish`, or `leave` if the run ends early."""
        self.finish() if error is None else self.leave(SECONDS_TO_STOP)
        if self.is_busy and (error is None or isinstance(error, SystemExit)):
            # The threads of a running upload would keep the program alive until the hub answers.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + signal.SIGINT if error is None else _status(error))

    def leave(self, patience: float) -> None:
        """For a run that was asked to stop: wait `patience` seconds at most, and report what was not
        uploaded.
        """
        self._wait(time.monotonic() + patience)
        self._tell()

    @property
    def _missing(self) -> list[Path]:
        return [path for act, path in self._waiting if act == self._upload]

    @property
    def is_busy(self) -> bool:
        """Whether a job is waiting or running."""
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
            except Exception as error:  # whatever it is, training continues
                self.failed[path] = tell_hub(error, self.options.huggingface_token)
                if not self._is_ending:
                    warn(f"{path.name} was not uploaded ({self.failed[path]}); it is in {path.parent}")
            self._waiting.remove(job)

    def _upload(self, path: Path) -> None:
        from huggingface_hub.utils import disable_progress_bars, logging

        disable_progress_bars()  # training has its own
        logging.set_verbosity_error()  # failures are reported by `_work` and `_tell`
        options, api = self.options, hub_api(self.options.huggingface_token)
        assert options.huggingface_repo_id is not None
        repo, kind = options.huggingface_repo_id, options.huggingface_repo_type
        if not api.repo_exists(repo_id=repo, repo_type=kind):
            api.create_repo(
                repo_id=repo,
                repo_type=kind,
                private=options.huggingface_repo_visibility != "public",
                exist_ok=True,
            )
        place, message = self.place_of(path), f"Upload {path.name}"
        if path.is_dir():
            api.upload_folder(
                folder_path=path,
                path_in_repo=place,
                commit_message=message,
                repo_id=repo,
                repo_type=kind,
            )
        else:
            api.upload_file(
                path_or_fileobj=path,
                path_in_repo=place,
                commit_message=message,
                repo_id=repo,
                repo_type=kind,
            )

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


def _status(error: BaseException) -> int:
    """The exit status of the program that ends with this error; see sys.exit."""
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) else int(code is not None)
