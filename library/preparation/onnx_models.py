"""ONNX models, such as taggers and those that find a picture's subject: opened, and what they are given."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from library.downloads import not_the_file
from library.problems import UserError, warn

if TYPE_CHECKING:
    import onnxruntime

# The fastest first; which there are depends on the build of onnxruntime.
PROVIDERS = (
    "OpenVINOExecutionProvider",
    "CUDAExecutionProvider",
    "ROCMExecutionProvider",
    "CPUExecutionProvider",
)
# Range -> what is subtracted and what is divided by, of values 0..255 in RGB.
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0..255": ((0.0,) * 3, (1.0,) * 3),
    "0..1": ((0.0,) * 3, (255.0,) * 3),
    "-0.5..0.5": ((127.5,) * 3, (255.0,) * 3),
    "-1..1": ((127.5,) * 3, (127.5,) * 3),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "clip": (
        (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255),
        (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255),
    ),
}


def in_range(pixels: np.ndarray, value_range: str) -> np.ndarray:
    """uint8 RGB, (height, width, 3) -> float32 of the same shape, in one of `RANGES`."""
    values: np.ndarray = pixels.astype(np.float32)
    if value_range == "0..255":
        return values
    less, by = RANGES[value_range]
    return (values - np.array(less, np.float32)) / np.array(by, np.float32)


def open_model(path: Path, who: str) -> onnxruntime.InferenceSession:
    """A model, on the fastest device that this onnxruntime knows; a CPU beside a GPU is a warning.

    who: what needs onnxruntime, for messages: "taggers".
    Raises UserError when it is not installed or the file is no model.
    """
    try:
        import onnxruntime
    except ImportError:
        fix = "run: pip install onnxruntime, or onnxruntime-gpu for NVIDIA cards"
        raise UserError.of("onnxruntime", f"is not installed, and {who} need it", fix) from None
    there = onnxruntime.get_available_providers()
    wanted = [name for name in PROVIDERS if name in there]
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    settings.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)  # 0: as it likes
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=wanted)
    except Exception as error:  # onnxruntime's own kinds, which are no public classes
        reason = str(error).strip().splitlines()[0][:120]
        damaged = UserError.of(path, f"cannot be opened as an ONNX model ({reason})", "get it again")
        raise not_the_file(path) or damaged from None
    used = session.get_providers()[0]
    if used != wanted[0]:
        name = wanted[0].removesuffix("ExecutionProvider")
        warn(f"onnxruntime: {name} could not be used, so the CPU is; its CUDA must fit it")
    elif used.startswith("CPU") and shutil.which("nvidia-smi"):
        warn("onnxruntime: this build knows no GPU; pip install onnxruntime-gpu instead is faster")
    return session
