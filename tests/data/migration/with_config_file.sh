cd settings
WANDB=abc accelerate launch --num_processes=1 ../sd-scripts/train_network.py --config_file lora --network_dim 32 --output_name cat
