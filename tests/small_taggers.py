"""Small taggers: ONNX graphs that look at a picture's colours, with the inputs of real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

# Tag, its number in Danbooru's categories, and the weights of red, green and blue in the middle and of
# brightness in the corner, all 0..255; the last is added.
TAGS = (
    ("general", 9, (0, 0, 0, 0, 1)),
    ("explicit", 9, (0, 0, 0, 0, -3)),
    ("red_thing", 0, (0.05, -0.05, -0.05, 0, -5)),
    ("blue_thing", 0, (-0.05, -0.05, 0.05, 0, -5)),
    ("white_border", 0, (0, 0, 0, 0.5, -120)),
    ("miku_(green)", 4, (-0.05, 0.05, -0.05, 0, -5)),
)
NAMES = [name for name, _, _ in TAGS]


def write_tagger(
    folder: Path,
    *,
    channels_first: bool = False,
    is_bgr: bool = True,
    scale: float = 1.0,
    shift: float = 0.0,
    batch: int | str = "batch",
    side: int = 448,
    gives_logits: bool = False,
    outputs: int = len(TAGS),
) -> Path:
    """A tagger's model.onnx in the folder, which is returned. It wants values that `* scale + shift` makes
    0..255.
    """
    shape = [batch, 3, side, side] if channels_first else [batch, side, side, 3]
    weights = np.float32([weights for _, _, weights in TAGS])[:outputs]
    colours = weights[:, 2::-1] if is_bgr else weights[:, :3]
    axes = [2, 3] if channels_first else [1, 2]
    third = side // 3
    constants = {
        "scale": np.float32(scale),
        "shift": np.float32(shift),
        "from": np.int64([third, third]),
        "to": np.int64([2 * third, 2 * third]),
        "begin": np.int64([0, 0]),
        "few": np.int64([side // 16, side // 16]),
        "axes": np.int64(axes),
        "channels": np.int64([1]),
        "colours": colours.T,
        "brightness": weights[:, 3][None],
        "bias": weights[:, 4],
    }
    nodes = [
        helper.make_node("Mul", ["input", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["seen"]),
        helper.make_node("Slice", ["seen", "from", "to", "axes"], ["middle"]),
        helper.make_node("Slice", ["seen", "begin", "few", "axes"], ["corner"]),
        helper.make_node("ReduceMean", ["middle", "axes"], ["colour"], keepdims=0),
        helper.make_node("ReduceMean", ["corner", "axes"], ["corners"], keepdims=0),
        helper.make_node("ReduceMean", ["corners", "channels"], ["light"], keepdims=1),
        helper.make_node("MatMul", ["colour", "colours"], ["by_colour"]),
        helper.make_node("MatMul", ["light", "brightness"], ["by_light"]),
        helper.make_node("Add", ["by_colour", "by_light"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["output" if gives_logits else "logits"]),
    ]
    if not gives_logits:
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / "model.onnx")
    return folder


def write_csv(folder: Path) -> Path:
    """WD14's table."""
    lines = [f"{i},{name},{category},{100 - i}" for i, (name, category, _) in enumerate(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    return folder
