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


def read_words(tmp_path: Path, text: str, run_type: type = train_network.Run) -> list[str]:
    """The problems of a config file with what every run needs and this text."""
    needed = 'pretrained_model_name_or_path = "m"\ntrain_data_dir = "i"\noutput_dir = "o"\n'
    module = 'network_module = "networks.lora"\n' if "network_module" not in text else ""
    (tmp_path / "c.toml").write_text(needed + module + text)
    words = ["--config_file", str(tmp_path / "c.toml")]
    return [str(problem) for problem in read_command_line(run_type, argv=words).problems]


@pytest.mark.parametrize(
    "line",
    [
        *("token_string = 'x'", "block_lr = [1e-4]", "stop_text_encoder_training = 5", "t5xxl = 'file'"),
        "sdxl = 1",
    ],
)
def test_settings_of_other_commands_are_warnings_in_a_file(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture
) -> None:
    assert read_words(tmp_path, line) == []
    key = line.partition(" ")[0]
    assert f"warning: c.toml: {key} has no effect: " in capsys.readouterr().err


def test_on_the_command_line_such_an_option_is_named_as_such() -> None:
    words = ["--block_lr", "1e-4", "--token_string", "x", "--image_path", "x"]
    found = [str(problem) for problem in read_command_line(train_network.Run, argv=words).problems]
    assert found[:3] == [
        "--block_lr: is an option of sdxl_train.py; remove it",
        "--token_string: is an option of textual inversion, which is not available yet; remove it",
        "--image_path: is an option of gen_img_diffusers.py and sdxl_gen_img.py; remove it",
    ]


@pytest.mark.parametrize("value", ['""', "false", "[]", "0", "0.0", "{}"])
def test_what_asks_for_nothing_never_stops_a_run(tmp_path: Path, value: str) -> None:
    assert read_words(tmp_path, f"some_key = {value}\n") == []


@pytest.mark.parametrize(
    "line",
    [
        'network_args = "conv_dim=4 conv_alpha=1"',
        'network_args = ["conv_dim=4", "", "conv_alpha=1"]',
        'network_args = ["conv_dim=4 conv_alpha=1"]',
    ],
)
def test_arguments_may_be_one_text(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.toml").write_text(f"{WRITTEN.replace('network_args = []', line)}\n")
    run = parse(train_network.Run, argv=["--config_file", str(tmp_path / "c.toml")])
    assert run.network.arguments == {"conv_dim": "4", "conv_alpha": "1"}


def test_two_texts_with_blanks_in_a_value_stay_whole() -> None:
    words = ["--optimizer_args", "betas=0.9, 0.99", "weight_decay=0.1"]
    section = read_command_line(train_network.Run, argv=words).sections["optimizer"]
    assert section.optimizer_args == ("betas=0.9, 0.99", "weight_decay=0.1")


def test_a_file_of_easy_training_scripts_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        "[network_args.args]\nnetwork_dim = 4\n[general_args.args]\nmax_train_steps = 2\n[[subsets]]\n"
    )
    words = ["--config_file", str(tmp_path / "e.toml")]
    first = read_command_line(train_network.Run, argv=words).problems[0]
    assert "is a file of LoRA_Easy_Training_Scripts" in first.cause
    assert first.fix == f"make files to train with: python tools/migrate.py {tmp_path / 'e.toml'}"


def test_other_tables_within_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[a.b]\nseed = 4\n")
    words = ["--config_file", str(tmp_path / "t.toml")]
    first = str(read_command_line(train_network.Run, argv=words).problems[0])
    assert first == "t.toml: a.b: is a table within a table, which is not read; write [b]"
