"""Learn a word for a Stable Diffusion model (textual inversion): its vectors alone are trained.

accelerate launch train_textual_inversion.py --pretrained_model_name_or_path model.safetensors
    --train_data_dir images --resolution 512 --enable_bucket --token_string "<my-cat>" --init_word cat
    --num_vectors_per_token 4 --use_object_template --cache_latents --learning_rate 5e-3
    --mixed_precision bf16 --max_train_steps 1500 --save_model_as safetensors --output_dir outputs
    --output_name my-cat
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.options.textual_inversion import TextualInversionOptions
from library.problems import run_command
from library.training.run import TrainingRun
from library.training.start.command import begin

if TYPE_CHECKING:
    from library.training.output import Output
    from library.training.session import Session
    from library.training.start.pictures import Pictures
    from library.training.tasks.embedding import EmbeddingTask


@dataclass(frozen=True)
class Run(TrainingRun):
    words: TextualInversionOptions

    @property
    def trains_text(self) -> bool:
        return True


def main() -> None:
    train_words(Run, __doc__)


def train_words(
    run_type: type[Run], doc: str | None, *, family: str | None = None, by_layer: bool = False
) -> None:
    """The whole command.

    family: the only one it takes, by its name in FAMILIES; None: any.
    by_layer: each text layer of the U-Net has vectors of its own (XTI).
    """
    run, pictures = begin(run_type, doc, family=family)

    from library.training.loop import train
    from library.training.session import Session

    session = Session.start(run.training, run.processes, run.saving.resume)
    task, output = make_task(run, session, pictures, by_layer=by_layer)
    train(run, session, task, pictures, output)


def make_task(
    run: Run, session: Session, pictures: Pictures, *, by_layer: bool = False
) -> tuple[EmbeddingTask, Output]:
    """The words with their model, and what is written of them."""
    from library.training.output import Output
    from library.training.saving.metadata import describe_embedding
    from library.training.session import open_model
    from library.training.tasks.embedding import EmbeddingTask

    task = EmbeddingTask(
        open_model(run.model, session),
        run.objective,
        run.words,
        learning_rate=run.optimizer.learning_rate,
        clip_skip=run.model.clip_skip,
        seed=session.seed,
        by_layer=by_layer,
    )
    output = Output(
        form=run.words.save_model_as,
        tracker_name="textual_inversion",
        describe=lambda moment: describe_embedding(run, run.words, task, pictures, session.seed, moment),
        is_folder=len(run.words.token_string) > 1,
    )
    return task, output


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
