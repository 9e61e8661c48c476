"""Train a network (LoRA) beside a Stable Diffusion model.

accelerate launch train_network.py --pretrained_model_name_or_path model.safetensors --train_data_dir images
    --resolution 512 --enable_bucket --caption_extension .txt --cache_latents --network_module networks.lora
    --network_dim 16 --network_alpha 8 --learning_rate 1e-4 --optimizer_type AdamW8bit --mixed_precision bf16
    --max_train_epochs 10 --output_dir outputs --output_name my_lora
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.options.fields import refuse
from library.options.network import NetworkOptions
from library.options.preservation import PreservationOptions
from library.options.words import PivotalOptions
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
    network: NetworkOptions
    words: PivotalOptions
    preservation: PreservationOptions

    @property
    def trains_text(self) -> bool:
        return bool(self.words.token_string) or not self.network.network_train_unet_only

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = self.network.rates(self.optimizer.learning_rate)
        refuse((not any(rates.values()), "learning_rate", "every rate is 0: nothing would be trained"))


def main() -> None:
    train_beside(Run, __doc__)


def train_beside(run_type: type[Run], doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    run, pictures = begin(run_type, doc, family=family)

    from library.network.loading import may_skip_layers
    from library.training.loop import train
    from library.training.session import Session

    stops = run.words.stop_embedding_training is not None
    may_skip = stops or may_skip_layers(run.network.network_module)
    session = Session.start(run.training, run.processes, run.saving.resume, may_skip_parameters=may_skip)
    task, output = make_task(run, session, pictures)
    train(run, session, task, pictures, output)


def make_task(run: Run, session: Session, pictures: Pictures) -> tuple[NetworkTask, Output]:
    """The network beside its model, and what is written of it."""
    from library.network.hashes import network_hashes
    from library.training.output import Output
    from library.training.saving.metadata import describe_network
    from library.training.session import open_model
    from library.training.tasks.network import NetworkTask

    task = NetworkTask(
        open_model(run.model, session),
        run.objective,
        run.network,
        learning_rate=run.optimizer.learning_rate,
        clip_skip=run.model.clip_skip,
        seed=session.seed,
        words=run.words,
        preservation=run.preservation,
    )
    output = Output(
        form=run.network.save_model_as,
        tracker_name="network_train",
        describe=lambda moment: describe_network(run, run.network, task, pictures, session.seed, moment),
        hashes=network_hashes,
        embeddings=task.embedding_files if task.saves_embeddings else None,
    )
    return task, output


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
