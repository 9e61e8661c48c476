"""Show the metadata of a model or network file as JSON. Reads the file's header only.

python tools/show_metadata.py --model my_lora.safetensors
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.models.file_metadata import expanded_metadata
from library.options.model_tools import ShowMetadataOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    metadata: ShowMetadataOptions


def main() -> None:
    options = parse(Run, __doc__).metadata
    print(json.dumps(expanded_metadata(options.model), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    run_command(main)
