"""The option sections that every trainer has, and how they must fit together. A script's Run adds its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from library.options.averaging import AveragingOptions
from library.options.caching import CachingOptions
from library.options.console import ConsoleOptions
from library.options.data import DataOptions
from library.options.fields import refuse, warn_when
from library.options.generation import PreviewOptions
from library.options.hub import HubOptions
from library.options.logging import LoggingOptions
from library.options.model import ModelOptions
from library.options.objective import ObjectiveOptions
from library.options.optimizer import OptimizerOptions
from library.options.processes import ProcessOptions
from library.options.saving import MetadataOptions, SavingOptions
from library.options.schedule import ScheduleOptions
from library.options.trained_parts import PartOptions
from library.options.training import TrainingOptions
from library.options.validation import ValidationOptions


@dataclass(frozen=True)
class TrainingRun:
    """The options of every trainer.

    can_shard: whether its weights can be shared out among processes.
    """

    can_shard: ClassVar[bool] = False

    model: ModelOptions
    data: DataOptions
    caching: CachingOptions
    training: TrainingOptions
    processes: ProcessOptions
    objective: ObjectiveOptions
    optimizer: OptimizerOptions
    schedule: ScheduleOptions
    averaging: AveragingOptions
    saving: SavingOptions
    metadata: MetadataOptions
    logging: LoggingOptions
    hub: HubOptions
    console: ConsoleOptions
    validation: ValidationOptions
    preview: PreviewOptions

    @property
    def trains_text(self) -> bool:
        """Whether the text encoders change during training."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        is_flow = self.objective.objective == "flow"
        is_static = self.processes.ddp_static_graph
        refuse(
            (
                is_static and self.training.gradient_accumulation_steps != 1,
                "ddp_static_graph",
                "does not work with --gradient_accumulation_steps: torch needs to see every step whole",
            ),
            (
                self.model.v_parameterization and is_flow,
                "v_parameterization",
                "contradicts --objective flow",
            ),
            (
                self.caching.caches_text and self.trains_text,
                "cache_text_encoder_outputs",
                "needs text encoders that are not trained",
            ),
        )
        saves_state = self.saving.save_state or self.saving.save_state_on_train_end
        warn_when(
            (
                self.hub.resume_from_huggingface and self.saving.resume is None,
                "resume_from_huggingface",
                "has no effect without --resume",
            ),
            (
                self.hub.save_state_to_huggingface and not saves_state,
                "save_state_to_huggingface",
                "has no effect without --save_state or --save_state_on_train_end",
            ),
        )
        self._check_steps_in_backward()
        self._check_sharding()
        self._check_swapping()

    def _check_sharding(self) -> None:
        """What cannot be shared out among processes, or was not tried."""
        if self.processes.shard is None:
            return
        model, training = self.model, self.training
        others = {
            "mixed_precision fp16": training.mixed_precision == "fp16",
            "full_bf16": training.full_bf16,
            "full_fp16": training.full_fp16,
            "fp8_base": bool(model.float8_parts),
            "torch_compile": model.torch_compile,
            "lowram": model.lowram,
            "blocks_to_swap": bool(training.blocks_to_swap),
            self.optimizer.steps_in_backward.removeprefix("--"): bool(self.optimizer.steps_in_backward),
        }
        refuse(
            (
                not self.can_shard,
                "shard",
                "is there for training models and networks only",
            ),
            *((asked, "shard", f"does not work with --{name}") for name, asked in others.items()),
        )

    def _check_swapping(self) -> None:
        """What does not go together with blocks that come and go."""
        if not self.training.blocks_to_swap:
            return
        compiles = self.model.torch_compile and self.model.torch_compile_mode == "reduce-overhead"
        refuse(
            (
                compiles or (self.model.torch_compile and self.model.dynamo_backend == "cudagraphs"),
                "blocks_to_swap",
                "does not work with CUDA graphs (--torch_compile_mode reduce-overhead, --dynamo_backend "
                "cudagraphs), which remember where weights lie; choose another mode",
            ),
        )
        warn_when(
            (self.model.lowram, "lowram", "has no effect with --blocks_to_swap, which needs main memory"),
        )

    def _check_steps_in_backward(self) -> None:
        """Gradients that are freed one by one can be neither accumulated nor unscaled together."""
        if not (option := self.optimizer.steps_in_backward.removeprefix("--")):
            return
        training = self.training
        refuse(
            (
                training.gradient_accumulation_steps != 1,
                option,
                "needs --gradient_accumulation_steps 1: gradients that are added up cannot be freed",
            ),
            (
                training.mixed_precision == "fp16",
                option,
                "does not work with --mixed_precision fp16, whose loss scaler looks at all gradients first",
            ),
        )
        part = "each weight's gradient" if option == "fused_backward_pass" else "each group's gradients"
        warn_when(
            (
                training.max_grad_norm,
                "max_grad_norm",
                f"{training.max_grad_norm:g} clips {part} alone with --{option}; 0 does not clip",
            )
        )


@dataclass(frozen=True)
class PartsRun(TrainingRun):
    """The sections of a trainer of U-Net and text encoder. A rate of 0 means that the part is not trained."""

    parts: PartOptions

    @property
    def denoiser_rate(self) -> float:
        return self.parts.denoiser_rate(self.optimizer.learning_rate)

    @property
    def text_rate(self) -> float:
        return self.parts.text_rate(self.optimizer.learning_rate)
