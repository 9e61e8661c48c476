# Train a ControlNet-LLLite with the settings of lllite_sd15.toml. Options given here win:
#   .\examples\lllite_sd15.ps1 --pretrained_model_name_or_path model.safetensors --train_data_dir pictures --conditioning_data_dir outlines
# Paths are relative to the project's folder.
Push-Location (Join-Path $PSScriptRoot "..")
try {
    if (Test-Path ".venv\Scripts\Activate.ps1") { . ".venv\Scripts\Activate.ps1" }
    accelerate launch --quiet train_control_net_lllite.py --config_file examples/lllite_sd15.toml @args
}
finally {
    Pop-Location
}
exit $LASTEXITCODE
