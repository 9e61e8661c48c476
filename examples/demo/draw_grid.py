"""Draw the README's grid: 36 prompts for the demo's model, with its first picture of each.

python examples/demo/draw_grid.py examples/demo/model.safetensors docs/demo_grid.png

Three rows of single things, one of colours and shapes that its training never showed together, two of two
things. The prompts are those of a seed, not the best.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from exam import draw_scenes, exam_scenes
from make_world import sentence
from sheets import Row, labelled_sheet

from library.models import load_model
from library.problems import UserError, run_command

SEED = 4
ROWS = (("single", 3), ("held out", 1), ("pair", 2))
COLUMNS = 6


def main() -> None:
    if len(sys.argv) != 3:
        raise UserError.of("draw_grid.py", "needs two files", "the model and the picture to write")
    model, rows = load_model(Path(sys.argv[1])), []
    for subject, count in ROWS:
        scenes = exam_scenes(subject, count * COLUMNS, SEED)
        pictures = draw_scenes(model, scenes, seed=SEED)
        for start in range(0, len(scenes), COLUMNS):
            row = slice(start, start + COLUMNS)
            rows.append(Row(pictures[row], [sentence(scene) for scene in scenes[row]]))
    labelled_sheet(rows).save(sys.argv[2], optimize=True)


if __name__ == "__main__":
    run_command(main)
