"""Python imports this at its start where this folder is in PYTHONPATH: a run of a queue then accuses itself,
in `violations` of the run's folder, of what must never happen.
"""

from __future__ import annotations

import json
import os

if "ATELIER_QUEUE" in os.environ and os.name != "nt":
    import fcntl

    from library import queued

    _begin = queued.QueuedRun.begin

    def _begin_witnessed(run, tell):
        _begin(run, tell)
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        witness = os.open(run.folder / "witness", os.O_RDWR | os.O_CREAT)  # open until the process has ended
        accusations = []
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            accusations.append("two processes train it")
        outcome = run.folder / queued.OUTCOME
        if outcome.exists() and json.loads(outcome.read_text())["kind"] == "done":
            accusations.append("it was done and is started again")
        if accusations:
            with (run.folder / "violations").open("a") as file:
                file.write("\n".join([*accusations, ""]))

    queued.QueuedRun.begin = _begin_witnessed
