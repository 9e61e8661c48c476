#!/usr/bin/env bash
# From a folder of pictures to a fine-tuned model, each step by its own command:
#   examples/prepare_sd15.sh my_pictures model.safetensors
# More words are options of the training. CAPTIONER, TAGGER, RESOLUTION and PRECISION in the environment choose
# others. Paths are relative to the project's folder; metadata is written beside the folder of the pictures.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
pictures=${1:?give the folder of the pictures} model=${2:?give the model}
captioner=${CAPTIONER:-Salesforce/blip-image-captioning-large}
tagger=${TAGGER:-SmilingWolf/wd-swinv2-tagger-v3}
resolution=${RESOLUTION:-512,512}
precision=${PRECISION:-bf16} # of latents and training: fp16 on GPUs before the RTX 30 series, no on the CPU
meta=${pictures%/}_metadata

python tools/set_aside.py "$pictures" --recursive --keep_duplicates --keep_transparent
python finetune/make_captions.py --batch_size 8 "$pictures" --recursive --model_id "$captioner"
python finetune/tag_images_by_wd14_tagger.py --batch_size 4 "$pictures" --recursive --repo_id "$tagger"
python finetune/merge_captions_to_metadata.py "$pictures" "${meta}_cap.json" --recursive --full_path
python finetune/merge_dd_tags_to_metadata.py "$pictures" --in_json "${meta}_cap.json" "${meta}_cap_dd.json" \
    --recursive --full_path
python finetune/clean_captions_and_tags.py "${meta}_cap_dd.json" "${meta}_clean.json"
python finetune/prepare_buckets_latents.py "$pictures" "${meta}_clean.json" "${meta}_lat.json" "$model" \
    --batch_size 4 --max_resolution "$resolution" --mixed_precision "$precision" --recursive --full_path
exec accelerate launch --quiet fine_tune.py --config_file examples/finetune_sd15.toml \
    --pretrained_model_name_or_path "$model" --train_data_dir "$pictures" --in_json "${meta}_lat.json" \
    --resolution "$resolution" --mixed_precision "$precision" --cache_latents_to_disk "${@:3}"
