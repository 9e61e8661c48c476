"""Fine-tune a Stable Diffusion model on captioned pictures: the U-Net, and the text encoder if asked.

accelerate launch fine_tune.py --pretrained_model_name_or_path model.safetensors --train_data_dir images
    --in_json metadata.json --resolution 512 --enable_bucket --learning_rate 5e-6 --optimizer_type AdamW8bit
    --mixed_precision bf16 --gradient_checkpointing --max_train_steps 5000 --output_dir outputs
    --output_name my_model --save_model_as safetensors
"""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import refuse, warn_when
from library.options.saving import CheckpointOptions
from library.options.trained_parts import FineTuneOptions
from library.problems import run_command
from library.training.run import PartsRun
from library.training.start.command import begin


@dataclass(frozen=True)
class Run(PartsRun):
    can_shard = True

    fine_tune: FineTuneOptions
    checkpoint: CheckpointOptions

    @property
    def trains_text(self) -> bool:
        return bool(self.text_rate) and (self.fine_tune.train_text_encoder or self.parts.encoderonly)

    def __post_init__(self) -> None:
        super().__post_init__()
        asks = self.fine_tune.train_text_encoder
        refuse(
            (asks and self.parts.unetonly, "train_text_encoder", "contradicts --unetonly"),
            (not (self.trains_text or self.denoiser_rate), "learning_rate", "is 0: nothing would be trained"),
        )
        warn_when(
            (
                self.parts.learning_rate_te is not None and not (asks or self.parts.encoderonly),
                "learning_rate_te",
                "has no effect without --train_text_encoder",
            ),
            (
                asks and self.parts.learning_rate_te == 0,
                "train_text_encoder",
                "has no effect with --learning_rate_te 0",
            ),
        )


def main() -> None:
    run, pictures = begin(Run, __doc__)

    from library.training.full import train_model
    from library.training.tasks.model import TextTraining

    text = TextTraining((run.text_rate,)) if run.trains_text else None
    train_model(
        run,
        run.checkpoint,
        text,
        pictures,
        learning_rate=run.denoiser_rate,
        tracker_name="finetuning",
    )


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
