"""The option sections that every trainer has. A script's Run adds its own."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.averaging import AveragingOptions
from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.options.fields import require
from library.options.generation import PreviewOptions
from library.options.logging import LoggingOptions
from library.options.model import ModelOptions
from library.options.optimizer import OptimizerOptions
from library.options.saving import MetadataOptions, SavingOptions
from library.options.training import ObjectiveOptions, TrainingOptions
from library.options.validation import ValidationOptions


@dataclass(frozen=True)
class TrainingRun:
    """What every trainer is told. trains_text: whether the text encoders change while it trains."""

    model: ModelOptions
    data: DataOptions
    caching: CachingOptions
    training: TrainingOptions
    objective: ObjectiveOptions
    optimizer: OptimizerOptions
    averaging: AveragingOptions
    saving: SavingOptions
    metadata: MetadataOptions
    logging: LoggingOptions
    validation: ValidationOptions
    preview: PreviewOptions

    @property
    def trains_text(self) -> bool:
        raise NotImplementedError

    def __post_init__(self) -> None:
        is_flow = self.objective.objective == "flow"
        require(
            (
                not (is_flow and self.model.v_parameterization),
                "v_parameterization",
                "contradicts --objective flow",
            ),
            (
                not (self.caching.caches_text and self.trains_text),
                "cache_text_encoder_outputs",
                "needs text encoders that are not trained",
            ),
        )
