"""Fine-tune an SDXL model on captioned pictures or DreamBooth folders: the U-Net, the text encoders if asked.

accelerate launch sdxl_train.py --pretrained_model_name_or_path sdxl.safetensors --train_data_dir images
    --in_json metadata.json --resolution 1024 --enable_bucket --learning_rate 4e-7 --optimizer_type AdamW8bit
    --mixed_precision bf16 --gradient_checkpointing --max_train_steps 5000 --output_dir outputs
    --output_name my_model --save_model_as safetensors
"""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import refuse
from library.options.saving import CheckpointOptions
from library.options.trained_parts import BlockOptions, TwoEncodersOptions
from library.problems import run_command
from library.training.run import TrainingRun
from library.training.start.command import begin


@dataclass(frozen=True)
class Run(TrainingRun):
    can_shard = True

    fine_tune: TwoEncodersOptions
    blocks: BlockOptions
    checkpoint: CheckpointOptions

    @property
    def text_rates(self) -> tuple[float, float]:
        return self.fine_tune.rates(self.optimizer.learning_rate)

    @property
    def trains_text(self) -> bool:
        return any(self.text_rates)

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = self.blocks.block_lr
        trains = self.trains_text or any(blocks or (self.optimizer.learning_rate,))
        option = "block_lr" if blocks else "learning_rate"
        refuse((not trains, option, "is 0: nothing would be trained"))


def main() -> None:
    run, pictures = begin(Run, __doc__, family="sdxl")

    from library.training.full import train_model
    from library.training.tasks.model import TextTraining

    text = TextTraining(run.text_rates) if run.trains_text else None
    train_model(
        run,
        run.checkpoint,
        text,
        pictures,
        learning_rate=run.optimizer.learning_rate,
        tracker_name="finetuning",
        block_rates=run.blocks.block_lr,
    )


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
