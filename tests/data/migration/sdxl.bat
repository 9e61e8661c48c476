@echo off
rem SDXL on Windows
set MODEL=D:\models\sd_xl_base_1.0.safetensors
set "OUT=D:\my loras"
call venv\Scripts\activate
accelerate launch --num_cpu_threads_per_process 1 sdxl_train_network.py ^
 --pretrained_model_name_or_path="%MODEL%" ^
 --train_data_dir="D:\pictures\dog" --resolution=1024,1024 ^
 --output_dir="%OUT%" --output_name=dog ^
 --network_module=networks.lora --network_dim=8 --network_train_unet_only ^
 --max_train_steps=500 --learning_rate=1e-4 --mixed_precision=bf16 ^
 --no_half_vae --cache_latents --gradient_checkpointing
pause
