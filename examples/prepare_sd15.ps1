# From a folder of pictures to a fine-tuned model, each step by its own command:
#   .\examples\prepare_sd15.ps1 my_pictures model.safetensors
# More words are options of the training. $env:CAPTIONER, $env:TAGGER, $env:RESOLUTION and
# $env:PRECISION choose others. Paths are relative to the project's folder; metadata is written beside the folder
# of the pictures.
$Pictures, $Model, $Training = $args
if (-not $Model) { throw "give the folder of the pictures and the model" }
$Captioner = if ($env:CAPTIONER) { $env:CAPTIONER } else { "Salesforce/blip-image-captioning-large" }
$Tagger = if ($env:TAGGER) { $env:TAGGER } else { "SmilingWolf/wd-swinv2-tagger-v3" }
$Resolution = if ($env:RESOLUTION) { $env:RESOLUTION } else { "512,512" }
# Of latents and training: fp16 on GPUs before the RTX 30 series, no on the CPU.
$Precision = if ($env:PRECISION) { $env:PRECISION } else { "bf16" }
$Meta = $Pictures.TrimEnd("\", "/") + "_metadata"

function Step {
    python @args
    if ($LASTEXITCODE) { exit $LASTEXITCODE }
}

Push-Location (Join-Path $PSScriptRoot "..")
try {
    if (Test-Path ".venv\Scripts\Activate.ps1") { . ".venv\Scripts\Activate.ps1" }
    Step tools\set_aside.py $Pictures --recursive --keep_duplicates --keep_transparent
    Step finetune\make_captions.py --batch_size 8 $Pictures --recursive --model_id $Captioner
    Step finetune\tag_images_by_wd14_tagger.py --batch_size 4 $Pictures --recursive --repo_id $Tagger
    Step finetune\merge_captions_to_metadata.py $Pictures "${Meta}_cap.json" --recursive --full_path
    Step finetune\merge_dd_tags_to_metadata.py $Pictures --in_json "${Meta}_cap.json" "${Meta}_cap_dd.json" `
        --recursive --full_path
    Step finetune\clean_captions_and_tags.py "${Meta}_cap_dd.json" "${Meta}_clean.json"
    Step finetune\prepare_buckets_latents.py $Pictures "${Meta}_clean.json" "${Meta}_lat.json" $Model `
        --batch_size 4 --max_resolution $Resolution --mixed_precision $Precision --recursive --full_path
    accelerate launch --quiet fine_tune.py --config_file examples/finetune_sd15.toml `
        --pretrained_model_name_or_path $Model --train_data_dir $Pictures --in_json "${Meta}_lat.json" `
        --resolution $Resolution --mixed_precision $Precision --cache_latents_to_disk @Training
}
finally {
    Pop-Location
}
exit $LASTEXITCODE
