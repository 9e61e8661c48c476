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
        *("weights = 'x'", "block_lr = [1e-4]", "stop_text_encoder_training = 5", "t5xxl = 'file'"),
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
    words = ["--block_lr", "1e-4", "--weights", "x", "--image_path", "x"]
    found = [str(problem) for problem in read_command_line(train_network.Run, argv=words).problems]
    assert found[:3] == [
        "--block_lr: is an option of sdxl_train.py; remove it",
        "--weights: is an option of train_textual_inversion.py and sdxl_train_textual_inversion.py; "
        "remove it",
        "--image_path: is an option of gen_img.py, gen_img_diffusers.py and sdxl_gen_img.py; remove it",
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


@pytest.mark.parametrize(
    "value", ['" "', '"None"', '"null"', "nan", '"False"', '"0.0"', '["", "None"]', "[[]]"]
)
def test_what_asks_for_nothing_may_be_written_in_many_ways(tmp_path: Path, value: str) -> None:
    assert read_words(tmp_path, f"some_key = {value}\n[table.inner]\nkey = {value}\n") == []


@pytest.mark.parametrize("value", ['"wish"', "0.5", "true", '["", "a"]', "1979-05-27"])
def test_an_unknown_key_with_a_wish_stays_an_error(tmp_path: Path, value: str) -> None:
    (line,) = read_words(tmp_path, f"some_key = {value}\n")
    assert line.startswith("c.toml: some_key: there is no such option")


def section_of(tmp_path: Path, name: str, text: str):
    (tmp_path / "c.toml").write_text(text)
    reading = read_command_line(train_network.Run, argv=["--config_file", str(tmp_path / "c.toml")])
    return reading.sections[name]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"None"', None),
        ('" "', None),
        ('"null"', None),
        ("false", None),
        ('["1e-4"]', 1e-4),
        ('"0.0001"', 1e-4),
    ],
)
def test_a_number_may_be_a_text_a_list_or_not_there(tmp_path: Path, text: str, value: float | None) -> None:
    needed = 'network_module = "networks.lora"\n'
    assert section_of(tmp_path, "network", f"{needed}unet_lr = {text}").unet_lr == value


@pytest.mark.parametrize("text", ['"[512, 768]"', '"512, 768"', '"(512,768)"', "[512.0, 768]", '"512.0,768"'])
def test_a_size_in_many_forms(tmp_path: Path, text: str) -> None:
    section = section_of(tmp_path, "data", f'train_data_dir = "i"\nresolution = {text}')
    assert section.resolution == ((512, 768),)


def test_a_list_in_a_text(tmp_path: Path) -> None:
    section = section_of(tmp_path, "optimizer", "optimizer_args = \"['a=1', 'betas=[0.9, 0.99]']\"")
    assert section.optimizer_args == ("a=1", "betas=[0.9, 0.99]")


def test_blanks_are_kept_where_they_mean_something(tmp_path: Path) -> None:
    section = section_of(
        tmp_path, "data", 'train_data_dir = "i"\ncaption_separator = " "\nreg_data_dir = " "'
    )
    assert (section.caption_separator, section.reg_data_dir) == (" ", None)


def test_a_number_that_somebody_computed_to_nothing_is_an_error(tmp_path: Path) -> None:
    assert "c.toml: learning_rate: expects a number, got nan" in read_words(tmp_path, "learning_rate = nan\n")


@pytest.mark.parametrize("key", ["output_dir", "vae", "sample_prompts"])
def test_a_path_whose_backslashes_became_characters_is_named(tmp_path: Path, key: str) -> None:
    text = f'pretrained_model_name_or_path = "m"\ntrain_data_dir = "i"\n{key} = "C:\\new\\train"\n'
    (tmp_path / "c.toml").write_text(text)
    words = ["--config_file", str(tmp_path / "c.toml"), "--network_module", "networks.lora"]
    first = str(read_command_line(train_network.Run, argv=words).problems[0])
    assert first == (
        f"c.toml: {key}: is 'C:\\new\\train': a \\ in double quotes begins a special character; write the "
        "path in single quotes, or with / instead of \\"
    )


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "c.toml",
            b'output_dir = "C:\\Users\\me"',
            "c.toml:1: is not valid TOML: Invalid hex value; in double quotes \\ begins a special character; "
            'write the path in single quotes, or with / instead of \\: output_dir = "C:\\Users\\me"',
        ),
        ("c.toml", b'{"seed": 1}', "c.toml: is JSON, not TOML; give it a name that ends in .json"),
        (
            "c.toml",
            b"seed = 1\nseed = 2",
            "c.toml:2: is not valid TOML: something is there twice; keep one: seed = 2",
        ),
        (
            "c.json",
            b'{"pretrained_model_name_or_path": "m", "model_list": "", "max_resolution": "512"}',
            "c.json: is what a page of kohya_ss saved, which says some things in other words; make files to "
            "train with: python tools/migrate.py {path}",
        ),
        (
            "c.json",
            b'{"training_method": "LORA", "base_model_name": "m"}',
            "c.json: is a file of OneTrainer; make files to train with: python tools/migrate.py {path}",
        ),
    ],
)
def test_a_file_of_another_kind_says_what_to_do(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    first = read_command_line(train_network.Run, argv=["--config_file", str(path)]).problems[0]
    assert str(first) == str(tmp_path) + "/" + line.format(path=path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfseed = 5 # a comment\r\n[a]\r\nlowram = 1\r\n",
        "seed = 5\n[a]\nlowram = true\n".encode("utf-16"),
        b'{"seed": 5, "a": {"lowram": "True"}}',
    ],
)
def test_any_encoding_and_kind_of_line_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("c.json" if content.startswith(b"{") else "c.toml")
    path.write_bytes(content)
    target = str(path.with_suffix("") if path.suffix == ".toml" else path)
    reading = read_command_line(train_network.Run, argv=["--config_file", target])
    assert reading.sections["training"].seed == 5


def test_what_acts_with_deepspeed_only_is_a_warning_without_it(capsys: pytest.CaptureFixture) -> None:
    words = ["--zero_stage", "3", "--offload_param_device", "cpu"]
    assert not any("zero" in str(p) for p in read_command_line(train_network.Run, argv=words).problems)
    found = [str(p) for p in read_command_line(train_network.Run, argv=[*words, "--deepspeed"]).problems]
    assert found[0].startswith("--offload_param_device: is not there with --shard")


@pytest.mark.parametrize(
    ("given", "read"), [("255", 225), (149, 75), ("75", 75), ("0", None), ("225.0", 225)]
)
def test_tokens_come_in_chunks(given: object, read: int | None) -> None:
    words = ["--max_token_length", str(given), "--pretrained_model_name_or_path", "m"]
    assert read_command_line(train_network.Run, argv=words).sections["model"].max_token_length == read


@pytest.mark.parametrize("given", ["74", "300", "x", "-75", "٢٢٥"])
def test_no_other_number_of_tokens(given: str) -> None:
    found = [
        str(p) for p in read_command_line(train_network.Run, argv=["--max_token_length", given]).problems
    ]
    assert f"--max_token_length: expects one of 75, 150, 225, got {given!r}" in found
