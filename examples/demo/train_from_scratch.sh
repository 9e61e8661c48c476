#!/usr/bin/env bash
# How examples/demo/model.safetensors was made: hours on two CPU cores. Stop it at any time; the same command
# goes on from the last state.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
OUT=outputs/demo_model

[ -f outputs/world/metadata.json ] || $PYTHON examples/demo/make_world.py outputs/world
[ -f $OUT/start.safetensors ] || $PYTHON examples/demo/train_vae.py outputs/world $OUT/start.safetensors
if [ ! -f $OUT/model.safetensors ]; then
    state=$(ls -d $OUT/model-step*-state 2>/dev/null | sort | tail -n 1 || true)
    # One thread each: with more, every small operation waits for the slowest.
    ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 $PYTHON -m accelerate.commands.launch --multi_gpu \
        --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no \
        fine_tune.py --config_file examples/demo/from_scratch.toml ${state:+--resume "$state"}
fi
$PYTHON examples/demo/join_parts.py $OUT/model.safetensors $OUT/start.safetensors $OUT/final.safetensors
$PYTHON examples/demo/exam.py --ckpt $OUT/final.safetensors --count 256
