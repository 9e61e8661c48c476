"""Training a model itself: what train_db.py, fine_tune.py and sdxl_train.py share."""

from __future__ import annotations

from library.options.saving import CheckpointOptions
from library.training.batches import BatchSource
from library.training.loop import train
from library.training.output import Output, checkpoint_form
from library.training.run import TrainingRun
from library.training.saving.modelspec import describe_checkpoint
from library.training.session import Session, open_model
from library.training.tasks.model import ModelTask, TextTraining, may_skip_parameters


def train_model(
    run: TrainingRun,
    checkpoint: CheckpointOptions,
    text: TextTraining | None,
    batches: BatchSource,
    *,
    learning_rate: float,
    tracker_name: str,
    block_rates: tuple[float, ...] = (),
    hides_padding: bool = False,
) -> None:
    """Train the U-Net, and the text encoders as `text` says (None: frozen), and save a checkpoint.

    learning_rate: of the U-Net, 0 leaves it as it is.
    tracker_name: what this trainer's logs are called.
    block_rates: the rate of each block of the U-Net; empty: learning_rate for all.
    hides_padding: the U-Net does not see what captions are padded with.
    """
    session = Session.start(
        run.training,
        run.processes,
        run.saving.resume,
        may_skip_parameters=may_skip_parameters(text),
    )
    model = open_model(run.model, session, keeps_others=checkpoint.keep_other_tensors)
    task = ModelTask(
        model,
        run.objective,
        learning_rate=learning_rate,
        text=text,
        clip_skip=run.model.clip_skip,
        block_rates=block_rates,
        hides_padding=hides_padding,
    )
    assert model.source is not None  # it was read from files
    output = Output(
        form=checkpoint_form(checkpoint, model.source.kind),
        tracker_name=tracker_name,
        describe=lambda moment: describe_checkpoint(run, task, batches, moment),
        max_shard_size=checkpoint.max_shard_size,
    )
    train(run, session, task, batches, output)
