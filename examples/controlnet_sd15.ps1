# Train a ControlNet with the settings of controlnet_sd15.toml. Options given here win:
#   .\examples\controlnet_sd15.ps1 --pretrained_model_name_or_path model.safetensors --train_data_dir my_pictures
# Paths are relative to the project's folder.
Push-Location (Join-Path $PSScriptRoot "..")
try {
    if (Test-Path ".venv\Scripts\Activate.ps1") { . ".venv\Scripts\Activate.ps1" }
    accelerate launch --quiet train_control_net.py --config_file examples/controlnet_sd15.toml @args
}
finally {
    Pop-Location
}
exit $LASTEXITCODE
