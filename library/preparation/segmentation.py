"""A model that finds the subject of pictures, on onnxruntime.

Its input is (1, 3, height, width) or (1, height, width, 3), its first output a mask of one channel, as of
U2Net, ISNet and BiRefNet. Pictures are squeezed to its size, or 1024 x 1024 where it takes any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from library.data.pictures.images import resize
from library.preparation.onnx_models import in_range, open_model
from library.problems import UserError

USUAL_SIDE = 1024  # where the input takes any


class Segmenter:
    """A model: an RGB image -> its mask, uint8 (height, width), 255 is the subject. Threads may share one.

    Raises UserError when the file is no such model.
    """

    def __init__(self, path: Path, value_range: str) -> None:
        self._path, self._range = path, value_range
        self._session = open_model(path, "models that find subjects")
        self._input, output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        shape = self._input.shape
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise UserError.of(
                path, f"wants {tuple(shape)}, not a picture in colours", "is it a model of subjects?"
            )
        self._channels_first = shape[1] == 3
        height, width = shape[2:] if self._channels_first else shape[1:3]
        self._size = _side(width), _side(height)
        self._output = output.name
        if output.shape and not _may_be_mask(output.shape):
            raise self._no_mask(output.shape)

    def __call__(self, image: Image.Image) -> np.ndarray:
        import cv2

        values = in_range(resize(image, self._size), self._range)
        values = values.transpose(2, 0, 1) if self._channels_first else values
        kind = np.float16 if "float16" in self._input.type else np.float32
        batch = np.ascontiguousarray(values[None], dtype=kind)
        (found,) = self._session.run([self._output], {self._input.name: batch})
        mask: np.ndarray = np.squeeze(np.asarray(found, np.float32))
        if mask.ndim != 2:
            raise self._no_mask(np.shape(found))
        if mask.min() < 0 or mask.max() > 1:  # logits, of which some are below 0 in every picture
            mask = 1 / (1 + np.exp(-mask))
        return (cv2.resize(mask, image.size, interpolation=cv2.INTER_LINEAR) * 255).round().astype(np.uint8)

    def _no_mask(self, shape: Sequence[Any]) -> UserError:
        cause = f"gives {tuple(shape)} first, not a mask of one channel"
        return UserError.of(self._path, cause, "give a model such as U2Net, ISNet or BiRefNet")


def _side(side: int | str | None) -> int:
    return side if isinstance(side, int) else USUAL_SIDE


def _may_be_mask(shape: Sequence[Any]) -> bool:
    """Whether a declared shape, of numbers and names for any number, can be (1, 1, h, w), (1, h, w, 1) or
    (1, h, w).
    """
    one = [not isinstance(side, int) or side == 1 for side in shape]
    return len(shape) == 3 or (len(shape) == 4 and (one[1] or one[3]))
