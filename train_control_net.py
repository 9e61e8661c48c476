"""Train a ControlNet beside a Stable Diffusion model: it draws after edges, depths, poses or anything else.

accelerate launch train_control_net.py --pretrained_model_name_or_path model.safetensors
    --train_data_dir images --conditioning_data_dir hints --resolution 512 --enable_bucket
    --caption_extension .txt --cache_latents --caption_dropout_rate 0.5 --learning_rate 1e-5
    --optimizer_type AdamW8bit --mixed_precision bf16 --gradient_checkpointing --train_batch_size 4
    --max_train_steps 20000 --output_dir outputs --output_name my_control
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.options.control import ControlNetOptions
from library.options.data import HintedDataOptions
from library.options.fields import refuse
from library.problems import run_command
from library.training.run import TrainingRun
from library.training.start.command import begin

if TYPE_CHECKING:
    from library.training.output import Output
    from library.training.session import Session
    from library.training.start.pictures import Pictures
    from library.training.tasks.control import ControlNetTask


@dataclass(frozen=True)
class Run(TrainingRun):
    data: HintedDataOptions
    control: ControlNetOptions

    @property
    def trains_text(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        nothing = not (self.optimizer.learning_rate or self.new_rate)
        refuse((nothing, "learning_rate", "every rate is 0: nothing would be trained"))

    @property
    def new_rate(self) -> float:
        """The learning rate of what the U-Net does not have."""
        return self.optimizer.learning_rate


def main() -> None:
    train_control(Run, __doc__)


def train_control(run_type: type[Run], doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    run, pictures = begin(run_type, doc, family=family)

    from library.training.loop import train
    from library.training.session import Session

    session = Session.start(run.training, run.processes, run.saving.resume)
    task, output = make_task(run, session, pictures)
    train(run, session, task, pictures, output)


def make_task(run: Run, session: Session, pictures: Pictures) -> tuple[ControlNetTask, Output]:
    """The ControlNet beside its model, and what is written of it."""
    from library.training.output import Output
    from library.training.saving.metadata import describe_control
    from library.training.session import open_model
    from library.training.tasks.control import ControlNetTask

    task = ControlNetTask(
        open_model(run.model, session),
        run.objective,
        run.control,
        learning_rate=run.optimizer.learning_rate,
        new_rate=run.new_rate,
        clip_skip=run.model.clip_skip,
        seed=session.seed,
    )
    output = Output(
        form=run.control.save_model_as,
        tracker_name="controlnet_train",
        describe=lambda moment: describe_control(run, run.new_rate, task, pictures, session.seed, moment),
    )
    return task, output


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
