"""Train a ControlNet-LLLite: small modules that let a picture (outlines, depth, a pose) say where things are.

accelerate launch train_control_net_lllite.py --pretrained_model_name_or_path model.safetensors
    --train_data_dir pictures --conditioning_data_dir outlines --caption_extension .txt --resolution 512
    --enable_bucket --cache_latents --cond_emb_dim 32 --network_dim 64 --learning_rate 2e-4
    --train_batch_size 8 --mixed_precision bf16 --max_train_epochs 10 --output_dir outputs
    --output_name outlines
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.options.data import HintedDataOptions
from library.options.lllite import LLLiteOptions
from library.problems import run_command
from library.training.run import TrainingRun
from library.training.start.command import begin

if TYPE_CHECKING:
    from library.training.output import Output
    from library.training.session import Session
    from library.training.start.pictures import Pictures
    from library.training.tasks.network import NetworkTask


@dataclass(frozen=True)
class Run(TrainingRun):
    data: HintedDataOptions
    lllite: LLLiteOptions

    @property
    def trains_text(self) -> bool:
        return False


def main() -> None:
    train_lllite(Run, __doc__)


def train_lllite(run_type: type[Run], doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    run, pictures = begin(run_type, doc, family=family)

    from library.training.loop import train
    from library.training.session import Session

    session = Session.start(run.training, run.processes, run.saving.resume)
    task, output = make_task(run, session, pictures)
    train(run, session, task, pictures, output)


def make_task(run: Run, session: Session, pictures: Pictures) -> tuple[NetworkTask, Output]:
    """The LLLite beside its model, and what is written of it."""
    from library.network.hashes import network_hashes
    from library.training.output import Output
    from library.training.saving.metadata import describe_network
    from library.training.session import open_model
    from library.training.tasks.network import NetworkTask

    network = run.lllite.network
    task = NetworkTask(
        open_model(run.model, session),
        run.objective,
        network,
        learning_rate=run.optimizer.learning_rate,
        clip_skip=run.model.clip_skip,
        seed=session.seed,
    )
    output = Output(
        form=run.lllite.save_model_as,
        tracker_name="lllite_control_net_train",
        describe=lambda moment: describe_network(
            run, network, task, pictures, session.seed, moment, kind="control-net-lllite"
        ),
        hashes=network_hashes,
    )
    return task, output


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
