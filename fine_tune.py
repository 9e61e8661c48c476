"""Fine-tune a Stable Diffusion model on captioned pictures: the U-Net, and the text encoder if asked.

accelerate launch fine_tune.py --pretrained_model_name_or_path model.safetensors --train_data_dir images
    --in_json metadata.json --resolution 512 --enable_bucket --learning_rate 5e-6 --optimizer_type AdamW8bit
    --mixed_precision bf16 --gradient_checkpointing --max_train_steps 5000 --output_dir outputs
    --output_name my_model --save_model_as safetensors
"""

from __future__ import annotations

from dataclasses import dataclass

from library.options.network import FineTuneOptions
from library.options.saving import CheckpointOptions
from library.problems import run_command
from library.training.command import begin
from library.training.run import TrainingRun


@dataclass(frozen=True)
class Run(TrainingRun):
    fine_tune: FineTuneOptions
    checkpoint: CheckpointOptions

    @property
    def text_rate(self) -> float:
        rate = self.fine_tune.learning_rate_te
        return self.optimizer.learning_rate if rate is None else rate

    @property
    def trains_text(self) -> bool:
        return bool(self.text_rate) and self.fine_tune.train_text_encoder


def main() -> None:
    run, data = begin(Run, __doc__)

    from library.training.full import train_model
    from library.training.task import TextTraining

    text = TextTraining((run.text_rate,)) if run.trains_text else None
    train_model(run, run.checkpoint, text, data, tracker_name="finetuning")


if __name__ == "__main__":
    run_command(main)
