# Fine-tune a model with the settings of finetune_sd15.toml. Options given here win:
#   .\examples\finetune_sd15.ps1 --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures
# Paths are relative to the project's folder.
Push-Location (Join-Path $PSScriptRoot "..")
try {
    if (Test-Path ".venv\Scripts\Activate.ps1") { . ".venv\Scripts\Activate.ps1" }
    accelerate launch --quiet fine_tune.py --config_file examples/finetune_sd15.toml @args
}
finally {
    Pop-Location
}
exit $LASTEXITCODE
