"""Training a model itself: what train_db.py, fine_tune.py and sdxl_train.py share."""

from __future__ import annotations

from library.data.training_data import TrainingData
from library.options.saving import CheckpointOptions
from library.training.loop import train
from library.training.output import Output, checkpoint_form
from library.training.run import TrainingRun
from library.training.saving.modelspec import describe_checkpoint
from library.training.session import Session, open_model
from library.training.tasks.task import Task, TextTraining, may_skip_parameters


def train_model(
    run: TrainingRun,
    checkpoint: CheckpointOptions,
    text: TextTraining | None,
    data: TrainingData,
    *,
    learning_rate: float,
    tracker_name: str,
    block_rates: tuple[float, ...] = (),
    hides_padding: bool = False,
) -> None:
    """Train the U-Net, and the text encoders as `text` says (None: frozen), and save a checkpoint.

    learning_rate: of the U-Net, 0 leaves it as it is. block_rates: of each of its blocks; empty: that one.
    hides_padding: the U-Net does not see what captions are padded with.
    """
    skips = may_skip_parameters(text)
    session = Session.start(run.training, run.processes, run.saving.resume, may_skip_parameters=skips)
    model = open_model(run.model, session, keeps_others=checkpoint.keep_other_tensors)
    task = Task(
        model,
        run.objective,
        learning_rate=learning_rate,
        text=text,
        clip_skip=run.model.clip_skip,
        block_rates=block_rates,
        hides_padding=hides_padding,
    )
    output = Output(
        form=checkpoint_form(checkpoint, model.source.kind),
        tracker_name=tracker_name,
        describe=lambda moment, dtype: describe_checkpoint(run, task, data, moment),
    )
    train(run, session, task, data, output)
