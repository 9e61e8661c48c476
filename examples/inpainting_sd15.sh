#!/usr/bin/env bash
# Train an inpainting model with the settings of inpainting_sd15.toml. Options given here win:
#   examples/inpainting_sd15.sh --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures
# Paths are relative to the project's folder.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
exec accelerate launch --quiet train_db.py --config_file examples/inpainting_sd15.toml "$@"
