# Train a slider with the settings of slider_sd15.toml. Options given here win:
#   .\examples\slider_sd15.ps1 --pretrained_model_name_or_path model.safetensors
# Paths are relative to the project's folder.
Push-Location (Join-Path $PSScriptRoot "..")
try {
    if (Test-Path ".venv\Scripts\Activate.ps1") { . ".venv\Scripts\Activate.ps1" }
    accelerate launch --quiet train_leco.py --config_file examples/slider_sd15.toml @args
}
finally {
    Pop-Location
}
exit $LASTEXITCODE
