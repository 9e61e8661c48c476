"""`--debug_dataset`: the dataset page of a run, with its seed, length and token limit."""

from __future__ import annotations

import os

from library.data.plan import Course
from library.data.report.texts import Look
from library.data.report.writing import say_in_short, write_page
from library.data.training_data import TrainingData
from library.training.processes import is_main_process
from library.training.run import TrainingRun


def show_dataset(run: TrainingRun, data: TrainingData) -> None:
    """Write `<output_name>-dataset.html` to the output folder and print a summary, in the first process only.

    Loads no model. Raises UserError if the page cannot be written.
    """
    if not is_main_process():
        return
    from library.models.text import Tokenizer

    options, epochs = run.training, run.training.max_train_epochs
    batches = data.batches_per_epoch(int(os.environ.get("WORLD_SIZE", "1")))
    steps = Course(batches, options.gradient_accumulation_steps).steps_per_epoch
    look = Look(
        seed=options.seed or 0,  # without a seed, any draw is an example of what may come
        token_ends=Tokenizer().ends,
        max_tokens=run.model.max_token_length or 75,
        total_steps=options.max_train_steps if epochs is None else epochs * steps,
        steps_per_epoch=steps,
    )
    path = run.saving.output_dir / f"{run.saving.output_name or 'last'}-dataset.html"
    say_in_short(path, data, write_page(path, data, look, title=run.data.name))
