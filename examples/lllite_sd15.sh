#!/usr/bin/env bash
# Train a ControlNet-LLLite with the settings of lllite_sd15.toml. Options given here win:
#   examples/lllite_sd15.sh --pretrained_model_name_or_path model.safetensors --train_data_dir pictures --conditioning_data_dir outlines
# Paths are relative to the project's folder.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
exec accelerate launch --quiet train_control_net_lllite.py --config_file examples/lllite_sd15.toml "$@"
