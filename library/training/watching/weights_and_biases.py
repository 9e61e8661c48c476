"""Weights & Biases: a run is logged to its server, or to a folder if the server cannot be reached; `wandb
sync` uploads that later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.options.logging import LoggingOptions
from library.problems import warn
from library.training.watching.trackers import Drawn, tell

if TYPE_CHECKING:
    from wandb import Run

    from library.training.optimization.ledger import Balance


class WandbTracker:
    """Logs one run.

    project: that the run belongs to.
    folder: for its files, which go to `wandb/` in it.
    run_id: of the run to continue; None: a new one.
    settings: further arguments of wandb.init; they win over ours.
    config: options to list.
    """

    def __init__(
        self,
        options: LoggingOptions,
        project: str,
        folder: Path,
        *,
        run_id: str | None,
        settings: dict[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        import wandb

        own: dict[str, Any] = {"project": project, "dir": str(folder), "config": dict(config)}
        if options.wandb_run_name:
            own["name"] = options.wandb_run_name
        if run_id:
            own |= {"id": run_id, "resume": "allow"}
        key = options.wandb_api_key.reveal() if options.wandb_api_key else None
        # Not wandb.login, which writes the key to a file. No machine facts: they contain the command line.
        quiet = wandb.Settings(
            **({"api_key": key} if key else {}),
            silent=True,
            console="off",
            x_disable_meta=True,
            disable_git=True,
            save_code=False,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._run = _begin(own | {"settings": quiet} | settings)
        # Not wandb's own step, which can only grow: a resumed run may repeat some.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    @property
    def run_id(self) -> str:
        return self._run.id

    @property
    def place(self) -> str:
        """Where a user finds the run: a folder or a URL."""
        folder = Path(self._run.dir).parent
        return f"{folder} (offline; send it with: wandb sync)" if self._run.offline else self._run.url

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def show(self, step: int, previews: list[Drawn]) -> None:
        import wandb

        pictures = {f"sample_{p.number}": wandb.Image(p.picture, caption=p.prompt) for p in previews}
        self._run.log({"step": step, **pictures})

    def conclude(self, balance: Balance) -> None:
        """Nothing: the ledger is on the console and in the report."""

    def close(self, patience: float) -> None:
        from threading import Thread

        end = Thread(target=self._run.finish, daemon=True)
        end.start()
        end.join(patience)
        if end.is_alive():
            raise TimeoutError(f"not all was sent in {patience:.0f} s; it is in {Path(self._run.dir).parent}")


def _begin(arguments: dict[str, Any]) -> Run:
    """A run; an offline one if the server cannot be reached or does not accept the key."""
    import wandb

    try:
        return wandb.init(**arguments)
    except Exception as error:
        if arguments.get("mode") == "offline":
            raise
        warn(f"wandb cannot be used ({tell(error)}): it logs offline")
        return wandb.init(**arguments | {"mode": "offline"})
