"""The option sections that every trainer has. A script's Run adds its own."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.data import DataOptions
from library.options.fields import require
from library.options.generation import PreviewOptions
from library.options.logging import LoggingOptions
from library.options.model import ModelOptions
from library.options.optimizer import OptimizerOptions
from library.options.saving import MetadataOptions, SavingOptions
from library.options.training import ObjectiveOptions, TrainingOptions


@dataclass(frozen=True)
class TrainingRun:
    model: ModelOptions
    data: DataOptions
    training: TrainingOptions
    objective: ObjectiveOptions
    optimizer: OptimizerOptions
    saving: SavingOptions
    metadata: MetadataOptions
    logging: LoggingOptions
    preview: PreviewOptions

    def __post_init__(self) -> None:
        is_flow = self.objective.objective == "flow"
        require(
            (
                not (is_flow and self.model.v_parameterization),
                "v_parameterization",
                "contradicts --objective flow",
            )
        )
