"""Train a Stable Diffusion model with DreamBooth: U-Net and text encoder, with regularization images if
wanted.

accelerate launch train_db.py --pretrained_model_name_or_path model.safetensors --train_data_dir images
    --reg_data_dir class_images --resolution 512 --prior_loss_weight 1 --learning_rate 1e-6
    --optimizer_type AdamW8bit --mixed_precision bf16 --gradient_checkpointing --max_train_steps 800
    --output_dir outputs --output_name my_model --save_model_as safetensors
"""

from __future__ import annotations

from dataclasses import dataclass

from library.options.network import DreamBoothOptions
from library.options.saving import CheckpointOptions
from library.problems import run_command
from library.training.command import begin
from library.training.run import TrainingRun


@dataclass(frozen=True)
class Run(TrainingRun):
    dreambooth: DreamBoothOptions
    checkpoint: CheckpointOptions

    @property
    def text_rate(self) -> float:
        rate = self.dreambooth.learning_rate_te
        return self.optimizer.learning_rate if rate is None else rate

    @property
    def trains_text(self) -> bool:
        stop_at = self.dreambooth.stop_text_encoder_training
        return bool(self.text_rate) and (stop_at is None or stop_at > 0)


def main() -> None:
    run, data = begin(Run, __doc__)

    from library.training.full import train_model
    from library.training.task import TextTraining

    stop_at = run.dreambooth.stop_text_encoder_training
    text = TextTraining((run.text_rate,), stop_at) if run.trains_text else None
    train_model(run, run.checkpoint, text, data, tracker_name="dreambooth")


if __name__ == "__main__":
    run_command(main)
