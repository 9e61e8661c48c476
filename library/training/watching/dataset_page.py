"""`--debug_dataset`: the dataset page of a run, with its seed, length and token limit."""

from __future__ import annotations

import os

from library.data.plan import Course
from library.data.report.texts import Look
from library.data.report.writing import say_in_short, write_page
from library.data.training_data import TrainingData
from library.options.fields import sections_in
from library.options.words import WordOptions
from library.training.processes import is_main_process
from library.training.run import TrainingRun


def show_dataset(run: TrainingRun, data: TrainingData) -> None:
    """Write `<output_name>-dataset.html` to the output folder and print a summary, in the first process only.

    Loads no model. Raises UserError if the page cannot be written.
    """
    if not is_main_process():
        return
    from library.models.text import EOS, Tokenizer, word_pattern

    learned = next((one for one in sections_in(run).values() if isinstance(one, WordOptions)), WordOptions())
    words = learned.token_string
    options, epochs = run.training, run.training.max_train_epochs
    batches = data.batches_per_epoch(int(os.environ.get("WORLD_SIZE", "1")))
    steps = Course(batches, options.gradient_accumulation_steps).steps_per_epoch
    look = Look(
        seed=options.seed or 0,  # without a seed, any draw is an example of what may come
        token_ends=Tokenizer(words=_ids_of(learned, first=EOS + 1)).ends,
        max_tokens=run.model.max_token_length or 75,
        total_steps=options.max_train_steps if epochs is None else epochs * steps,
        steps_per_epoch=steps,
        word_places=(lambda caption: [m.span() for m in word_pattern(words).finditer(caption)])
        if words
        else None,
    )
    path = run.saving.output_dir / f"{run.saving.output_name or 'last'}-dataset.html"
    say_in_short(path, data, write_page(path, data, look, title=run.data.name))


def _ids_of(learned: WordOptions, *, first: int) -> dict[str, tuple[int, ...]]:
    """Words that are learned with as many ids as they have vectors, from `first` on."""
    count = learned.num_vectors_per_token
    starts = range(first, first + count * len(learned.token_string), count)
    return {
        word: tuple(range(start, start + count))
        for word, start in zip(learned.token_string, starts, strict=True)
    }
