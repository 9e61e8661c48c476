#!/usr/bin/env bash
# Learn a word with the settings of textual_inversion_sd15.toml. Options given here win:
#   examples/textual_inversion_sd15.sh --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures
# Paths are relative to the project's folder.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
exec accelerate launch --quiet train_textual_inversion.py --config_file examples/textual_inversion_sd15.toml "$@"
