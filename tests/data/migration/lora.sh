#!/bin/bash
# Train a LoRA
pretrained_model="./models/sd15.safetensors"
train_data_dir="./train/my dog"
resolution="512,512"
max_train_epoches=10
lr="1e-4"
is_v2=0
use_8bit=1
extArgs=()
if [ $is_v2 == 1 ]; then
  extArgs+=("--v2")
fi
if [[ $use_8bit == 1 ]]; then extArgs+=("--use_8bit_adam"); fi
if [ $unknown_thing == 1 ]; then
  extArgs+=("--weighted_captions")
fi
CUDA_VISIBLE_DEVICES=0 accelerate launch --num_cpu_threads_per_process=8 "./sd-scripts/train_network.py" \
  --enable_bucket \
  --pretrained_model_name_or_path=$pretrained_model \
  --train_data_dir="$train_data_dir" \
  --output_dir="./output" --output_name="dog" \
  --logging_dir="./logs" \
  --resolution=$resolution \
  --network_module=networks.lora --network_dim=32 --network_alpha 16 \
  --network_args "conv_dim=4" "conv_alpha=1" \
  --max_train_epochs=$max_train_epoches \
  --learning_rate=$lr --unet_lr=$lr --text_encoder_lr=1e-5 \
  --lr_scheduler="cosine_with_restarts" --lr_warmup_steps=0 \
  --mixed_precision="bf16" --seed="1337" --cache-latents --xformers \
  --wandb_api_key=abc123secret --shuffle_caption ${extArgs[@]}
