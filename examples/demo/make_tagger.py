"""Write the demo's tagger, examples/demo/tagger: an ONNX model laid out as WD14's are, which sees the colour
of a picture's upper corners and nothing else. So the tagging command runs without a download. Needs onnx.

python examples/demo/make_tagger.py examples/demo/tagger
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import ImageColor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from shapes import COLOURS

from library.problems import UserError, run_command

SIDE = 64  # of the pictures it is shown; patterns have a period of 16
CORNER = 8
# From a colour's distance (0..255 in each channel) to its probability: 1/2 at 40, which leaves a pattern's
# lighter tone the name of its colour.
RADIUS, STEEPNESS = 40.0, 0.01
GENERAL = 0  # Danbooru's number of the category


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError.of("make_tagger.py", "needs a folder", "name one for the tagger")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(tagger().SerializeToString(deterministic=True))
    lines = [f"{n},{colour}_background,{GENERAL},100" for n, colour in enumerate(COLOURS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    print(f"wrote {folder}: tags for {len(COLOURS)} colours of backgrounds")


def tagger() -> ModelProto:
    """Pictures, (batch, 64, 64, 3), BGR of 0..255 -> probabilities, (batch, 12): how near the mean of the
    upper corners is to each colour.
    """
    colours = np.float32([ImageColor.getrgb(colour)[::-1] for colour in COLOURS.values()])  # BGR
    constants = {
        "first": np.int64([0, 0]),
        "corner": np.int64([CORNER, CORNER]),
        "second": np.int64([0, SIDE - CORNER]),
        "edge": np.int64([CORNER, SIDE]),
        "places": np.int64([1, 2]),
        "middle": np.int64([1]),
        "channels": np.int64([2]),
        "half": np.float32(0.5),
        "colours": colours[None],
        "radius": np.float32(RADIUS**2),
        "steepness": np.float32(STEEPNESS),
    }
    nodes = [
        helper.make_node("Slice", ["input", "first", "corner", "places"], ["left"]),
        helper.make_node("Slice", ["input", "second", "edge", "places"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["both"]),
        helper.make_node("ReduceMean", ["both", "places"], ["sums"], keepdims=0),
        helper.make_node("Mul", ["sums", "half"], ["mean"]),  # (batch, 3)
        helper.make_node("Unsqueeze", ["mean", "middle"], ["row"]),
        helper.make_node("Sub", ["row", "colours"], ["off"]),  # (batch, 12, 3)
        helper.make_node("Mul", ["off", "off"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "channels"], ["distance"], keepdims=0),
        helper.make_node("Sub", ["radius", "distance"], ["nearness"]),
        helper.make_node("Mul", ["nearness", "steepness"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", len(COLOURS)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


if __name__ == "__main__":
    run_command(main)
