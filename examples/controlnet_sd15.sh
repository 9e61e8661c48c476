#!/usr/bin/env bash
# Train a ControlNet with the settings of controlnet_sd15.toml. Options given here win:
#   examples/controlnet_sd15.sh --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures
# Paths are relative to the project's folder.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
exec accelerate launch --quiet train_control_net.py --config_file examples/controlnet_sd15.toml "$@"
