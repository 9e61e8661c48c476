"""Join a trained model and the finished VAE of the model that it began with into one small file.

python examples/demo/join_parts.py outputs/demo_model/model.safetensors outputs/demo_model/start.safetensors
    examples/demo/model.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not

from library.models import load_model
from library.models.saving import Saving
from library.problems import UserError, run_command

LARGEST = 24_000_000  # bytes: it is kept in the repository


def main() -> None:
    if len(sys.argv) != 4:
        raise UserError.of("join_parts.py", "needs three files", "trained model, model with the VAE, result")
    trained, start, path = map(Path, sys.argv[1:])
    model = load_model(trained, vae=start)
    import torch

    model.save(path, Saving("safetensors", dtype=torch.float16, metadata=METADATA))
    size = path.stat().st_size
    print(f"wrote {path}: {size / 1e6:.1f} MB")
    if size > LARGEST:
        raise UserError.of(path, f"is larger than {LARGEST / 1e6:.0f} MB", "make the model smaller")


METADATA = {
    "modelspec.title": "Atelier's demo model: a little world of shapes",
    "modelspec.license": "Apache-2.0",
}

if __name__ == "__main__":
    run_command(main)
