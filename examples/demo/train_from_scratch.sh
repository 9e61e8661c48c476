#!/usr/bin/env bash
# How examples/demo/model.safetensors was made: hours on two CPU cores. Stop it at any time; the same command
# goes on from the last state. MODEL.md says in what the real runs differed.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
OUT=outputs/demo_model

# learn NAME BEFORE OPTIONS: train the text encoder and U-Net of $OUT/BEFORE on, as $OUT/NAME.
learn() {
    local name=$1 before=$2 state
    [ ! -f "$OUT/$name.safetensors" ] || return 0
    state=$(ls -d "$OUT/$name"-step*-state 2>/dev/null | sort | tail -n 1 || true)
    # One thread: with more, every small operation waits for the slowest.
    ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 $PYTHON -m accelerate.commands.launch --num_processes 1 \
        --num_machines 1 --num_cpu_threads_per_process 1 --mixed_precision no --dynamo_backend no \
        fine_tune.py --config_file examples/demo/from_scratch.toml --output_name "$name" \
        --pretrained_model_name_or_path "$OUT/$before.safetensors" "${@:3}" ${state:+--resume "$state"}
}

[ -f outputs/world/metadata.json ] || $PYTHON examples/demo/make_world.py outputs/world
[ -f $OUT/start.safetensors ] || $PYTHON examples/demo/train_vae.py outputs/world $OUT/start.safetensors
learn first start --train_batch_size 24 --max_train_steps 4000 --learning_rate 1.5e-3 --lr_scheduler linear
learn second first --max_train_steps 1250
learn third second --max_train_steps 2000 --lr_scheduler linear --lr_warmup_steps 50 --seed 2
learn fourth third --max_train_steps 3500 --learning_rate 1e-3 --lr_scheduler linear --lr_warmup_steps 50 --seed 3
learn last fourth --max_train_steps 3000 --learning_rate 8e-4 --lr_scheduler linear --lr_warmup_steps 50 --seed 4
$PYTHON examples/demo/join_parts.py $OUT/last.safetensors $OUT/start.safetensors $OUT/final.safetensors
$PYTHON examples/demo/exam.py --ckpt $OUT/final.safetensors --count 256
