"""A tagger on onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from library.options.tagging_tools import TaggerOptions
from library.preparation.onnx_models import open_model
from library.preparation.tagging.inputs import InputForm
from library.preparation.tagging.sources import TaggerFiles
from library.preparation.tagging.tables import Layout, Table, read_table
from library.problems import UserError
from library.wording import counted

if TYPE_CHECKING:
    import onnxruntime

USUAL_SIDE = 448  # of models whose inputs may have any size
# Layout of the table -> (blue first, range of values, RGB) of models with (batch, 3, side, side).
_CHANNELS_FIRST: dict[Layout, tuple[bool, str]] = {
    "csv": (False, "-1..1"),  # PixAI
    "mapping": (True, "-1..1"),  # cl_tagger
    "list": (False, "clip"),  # JoyTag
    "metadata": (False, "imagenet"),  # camie
}


class Tagger:
    """A model with its tags.

    table: of its tags.
    form: what it wants of pictures.
    fixed_batch: how many pictures it takes together; None: any number.
    """

    def __init__(self, files: TaggerFiles, options: TaggerOptions) -> None:
        self.table = read_table(files.table)
        self._session = open_model(files.model, "taggers")
        self._input = self._session.get_inputs()[0]
        self._output = _output_of(self._session, self.table, files.model)
        self.form = _form_of(self._input.shape, self.table, options, files.model)
        first = self._input.shape[0]
        self.fixed_batch = first if isinstance(first, int) else None
        self._gives_logits = self.table.layout == "mapping" or "logit" in self._output.lower()

    @property
    def provider(self) -> str:
        """What it runs on: CPU, CUDA, ..."""
        return str(self._session.get_providers()[0]).removesuffix("ExecutionProvider")

    def probabilities(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """float32, (pictures, tags)."""
        batch = np.stack(pictures)
        if self.fixed_batch and len(batch) < self.fixed_batch:
            missing = self.fixed_batch - len(batch)
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
        batch = batch.astype(np.float16 if "float16" in self._input.type else np.float32)
        (values,) = self._session.run([self._output], {self._input.name: batch})
        values = np.asarray(values, np.float32)[: len(pictures)]
        # Probabilities lie between 0 and 1; among the logits of thousands of tags most are negative.
        if self._gives_logits or values.min() < 0 or values.max() > 1:
            return 1 / (1 + np.exp(-values))
        return values


def _output_of(session: onnxruntime.InferenceSession, table: Table, model: Path) -> str:
    """The name of the output with a value for every tag; of several the one of probabilities, or the last."""
    count = len(table.labels)
    outputs = session.get_outputs()
    fitting = [one for one in outputs if one.shape and one.shape[-1] == count]
    fitting = fitting or [one for one in outputs if one.shape and not isinstance(one.shape[-1], int)]
    if not fitting:
        gives = ", ".join(str(one.shape[-1]) for one in outputs if one.shape)
        cause = f"has {counted(count, 'tag')}, and {model.name} gives {gives}"
        raise UserError.of(table.path, cause, "get both files from one place")
    named = [one.name for one in fitting if "pred" in one.name.lower() or "prob" in one.name.lower()]
    return str((named or [one.name for one in fitting])[-1])


def _form_of(shape: Sequence[Any], table: Table, options: TaggerOptions, model: Path) -> InputForm:
    """What the model wants, by its input's shape and the layout of its table."""
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        cause = f"wants {tuple(shape)}, not a batch of pictures in colours"
        raise UserError.of(model, cause, "is it a tagger?")
    channels_first = shape[1] == 3
    sides = [side for side in (shape[2:] if channels_first else shape[1:3]) if isinstance(side, int)]
    if len(set(sides)) > 1:
        raise UserError.of(model, f"wants pictures of {sides[1]}x{sides[0]}, not squares")
    is_bgr, value_range = _CHANNELS_FIRST[table.layout] if channels_first else (True, "0..255")
    return InputForm(
        side=sides[0] if sides else USUAL_SIDE,
        channels_first=channels_first,
        is_bgr=is_bgr if options.colour_order == "auto" else options.colour_order == "bgr",
        value_range=value_range if options.value_range == "auto" else options.value_range,
        scaling=options.resize,
    )
