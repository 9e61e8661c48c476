"""Train a Stable Diffusion model with DreamBooth: U-Net and text encoder, with regularization images if
wanted.

accelerate launch train_db.py --pretrained_model_name_or_path model.safetensors --train_data_dir images
    --reg_data_dir class_images --resolution 512 --prior_loss_weight 1 --learning_rate 1e-6
    --optimizer_type AdamW8bit --mixed_precision bf16 --gradient_checkpointing --max_train_steps 800
    --output_dir outputs --output_name my_model --save_model_as safetensors
"""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import refuse, warn_when
from library.options.saving import CheckpointOptions
from library.options.trained_parts import DreamBoothOptions
from library.problems import run_command
from library.training.run import PartsRun
from library.training.start.command import begin


@dataclass(frozen=True)
class Run(PartsRun):
    can_shard = True

    dreambooth: DreamBoothOptions
    checkpoint: CheckpointOptions

    @property
    def trains_text(self) -> bool:
        return bool(self.text_rate) and self.dreambooth.trains_text

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_padding()
        stop_at = self.dreambooth.stop_text_encoder_training
        alone = "--encoderonly" if self.parts.encoderonly else "--learning_rate 0"
        refuse(
            (
                stop_at is not None and self.trains_text and not self.denoiser_rate,
                "stop_text_encoder_training",
                f"contradicts {alone}: nothing would be trained any more",
            ),
            (not (self.trains_text or self.denoiser_rate), "learning_rate", "is 0: nothing would be trained"),
        )
        warn_when(
            (
                self.parts.learning_rate_te and not self.dreambooth.trains_text,
                "learning_rate_te",
                f"has no effect with --stop_text_encoder_training {stop_at}",
            )
        )

    def _check_padding(self) -> None:
        hides = self.dreambooth.no_token_padding
        others = {
            "max_token_length": self.model.max_token_length not in (None, 75),
            "cache_text_encoder_outputs": self.caching.caches_text,
            "xformers": self.model.attention == "xformers",
        }
        refuse(
            *(
                (hides and asked, "no_token_padding", f"does not work with --{name}")
                for name, asked in others.items()
            )
        )


def main() -> None:
    run, pictures = begin(Run, __doc__)

    from library.training.full import train_model
    from library.training.tasks.model import TextTraining

    stop_at = run.dreambooth.stop_text_encoder_training
    text = TextTraining((run.text_rate,), stop_at) if run.trains_text else None
    train_model(
        run,
        run.checkpoint,
        text,
        pictures,
        learning_rate=run.denoiser_rate,
        tracker_name="dreambooth",
        hides_padding=run.dreambooth.no_token_padding,
    )


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
