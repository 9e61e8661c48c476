"""Find faces in a folder of pictures, turn them upright and cut them out.

python tools/detect_face_rotate.py --src_dir my_pictures --dst_dir my_faces --rotate
    --crop_size 512,512 --resize_face_size 200

The files' names say where the faces are, for --face_crop_aug_range of a training.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.face_tools import FaceOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    faces: FaceOptions


def main() -> None:
    options = parse(Run, __doc__).faces
    from library.preparation.faces.command import write_faces

    write_faces(options).raise_if_any()


if __name__ == "__main__":
    run_command(main)
