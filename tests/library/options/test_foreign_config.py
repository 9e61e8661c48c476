"""Config files as the kohya GUI writes them."""

from pathlib import Path

import pytest

import train_network
from library.options.parser import parse, read_command_line
from library.problems import UserError

# Put together from files that users of the GUI have shown: what it writes for a LoRA, 0 where nothing was
# chosen.
WRITTEN = """
adaptive_noise_scale = 0
bucket_no_upscale = true
bucket_reso_steps = 64
cache_latents = true
cache_latents_to_disk = true
caption_dropout_every_n_epochs = 0
caption_dropout_rate = 0
caption_extension = ".txt"
clip_skip = 2
dynamo_backend = "no"
enable_bucket = true
epoch = 12
gradient_accumulation_steps = 1
gradient_checkpointing = true
huber_c = 0.1
huber_scale = 1
huber_schedule = "snr"
initial_epoch = 0
initial_step = 0
ip_noise_gamma = 0
keep_tokens = 1
learning_rate = 0.0005
loss_type = "l2"
lr_scheduler = "cosine"
lr_scheduler_args = []
lr_scheduler_num_cycles = 1
lr_scheduler_power = 1
lr_warmup_steps = 0
max_bucket_reso = 2048
max_data_loader_n_workers = 0
max_grad_norm = 1
max_timestep = 1000
max_token_length = 225
max_train_epochs = 0
max_train_steps = 500
min_bucket_reso = 256
min_snr_gamma = 5
min_timestep = 0
mixed_precision = "bf16"
multires_noise_discount = 0.3
multires_noise_iterations = 0
network_alpha = 16
network_args = []
network_dim = 32
network_dropout = 0
network_module = "networks.lora"
no_half_vae = true
noise_offset = 0
noise_offset_type = "Original"
optimizer_args = []
optimizer_type = "AdamW"
output_dir = "results"
output_name = "x"
pretrained_model_name_or_path = "model.safetensors"
prior_loss_weight = 1
resolution = "1024,1024"
sample_every_n_epochs = 0
sample_every_n_steps = 0
sample_prompts = ""
sample_sampler = "euler_a"
save_every_n_epochs = 1
save_every_n_steps = 0
save_last_n_epochs = 0
save_last_n_steps = 0
save_last_n_steps_state = 0
save_model_as = "safetensors"
save_precision = "fp16"
scale_weight_norms = 0
seed = 0
stop_text_encoder_training = 0
text_encoder_lr = 0.00015
train_batch_size = 2
train_data_dir = "pictures"
unet_lr = 0.0003
vae_batch_size = 0
xformers = true
"""


def test_a_file_of_the_gui_is_read_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "gui.toml").write_text(WRITTEN)
    run = parse(train_network.Run, argv=["--config_file", str(tmp_path / "gui.toml")])
    assert (run.training.max_train_epochs, run.training.max_train_steps) == (None, 500)
    assert (run.saving.save_every_n_steps, run.saving.save_every_n_epochs) == (None, 1)
    assert run.caching.vae_batch_size == 1 and run.training.seed == 0
    assert run.network.network_dim == 32 and run.network.text_encoder_lr == (0.00015,)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: 2 settings have no effect here: gui.toml: epoch (max_train_epochs and max_train_steps say "
        "how long to train), gui.toml: noise_offset_type (noise_offset and multires_noise_iterations say "
        "which noise to use)"
    )


def test_on_the_command_line_they_are_mistakes() -> None:
    words = ["--epoch", "3", "--save_every_n_steps", "0", "--output_dir", "x"]
    found = [str(problem) for problem in read_command_line(train_network.Run, argv=words).problems]
    assert (
        "--epoch: there is no such option; max_train_epochs and max_train_steps say how long to train"
        in found
    )
    assert not any("save_every_n_steps" in line for line in found)  # 0: never, as in sd-scripts


def test_other_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gui.toml").write_text(WRITTEN + "epochs = 3\n")
    with pytest.raises(UserError, match="gui.toml: epochs: there is no such option"):
        parse(train_network.Run, argv=["--config_file", str(tmp_path / "gui.toml")])
