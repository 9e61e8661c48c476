#!/usr/bin/env bash
# Train a slider with the settings of slider_sd15.toml. Options given here win:
#   examples/slider_sd15.sh --pretrained_model_name_or_path model.safetensors
# Paths are relative to the project's folder.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
exec accelerate launch --quiet train_leco.py --config_file examples/slider_sd15.toml "$@"
