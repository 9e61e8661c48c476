# LoRA train script
$is_v2_model = 0
$pretrained_model = "./sd-models/model.ckpt"
$train_data_dir = "./train/aki"
$reg_data_dir = ""
$network_module = "networks.lora"
$resolution = "512,768"
$batch_size = 2
$max_train_epoches = 10
$network_dim = 32
$network_alpha = 32
$train_unet_only = 1
$lr = "1e-4"
$min_snr_gamma = 0
$optimizer_type = "AdamW8bit"
$Env:HF_HOME = "huggingface"
$ext_args = [System.Collections.ArrayList]::new()
$launch_args = [System.Collections.ArrayList]::new()
if ($multi_gpu -eq 1) {
  [void]$launch_args.Add("--multi_gpu")
}
if ($is_v2_model -eq 1) {
  [void]$ext_args.Add("--v2")
} else {
  [void]$ext_args.Add("--clip_skip=2")
}
if ($train_unet_only -eq 1) { [void]$ext_args.Add("--network_train_unet_only") }
if ($min_snr_gamma -ne 0) {
  [void]$ext_args.Add("--min_snr_gamma=$min_snr_gamma")
}
[void]$ext_args.Add("--optimizer_type=$optimizer_type")
python -m accelerate.commands.launch $launch_args --num_cpu_threads_per_process=8 "./sd-scripts/train_network.py" `
  --enable_bucket `
  --pretrained_model_name_or_path=$pretrained_model `
  --train_data_dir=$train_data_dir `
  --reg_data_dir=$reg_data_dir `
  --output_dir="./output" --output_name=aki `
  --network_module=$network_module --network_dim=$network_dim --network_alpha=$network_alpha `
  --resolution=$resolution --train_batch_size=$batch_size `
  --max_train_epochs=$max_train_epoches --learning_rate=$lr `
  --caption_extension=".txt" --xformers $ext_args
