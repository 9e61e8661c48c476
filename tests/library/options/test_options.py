import importlib
import json
from pathlib import Path

import pytest

from library.options.caching import CachingOptions
from library.options.data import DataOptions, read_range, read_resolutions
from library.options.fields import sections_of, specs_of
from library.options.model import ModelOptions
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.options.parser import ConfigFileOptions
from library.options.saving import SavingOptions
from library.options.schedule import ScheduleOptions, read_steps
from library.options.unavailable import REFUSED, asks_for
from library.options.validation import ValidationOptions
from library.paths import name_fault
from library.problems import UserError

DATA = Path(__file__).parents[2] / "data"
# {script: {option: its default in sd-scripts}}
SD_SCRIPTS = json.loads((DATA / "sd_scripts_options.json").read_text())


def flags_of(script: str) -> dict[str, object]:
    """Every flag of a script, by name, with its default."""
    sections = [
        *sections_of(importlib.import_module(script.removesuffix(".py").replace("/", ".")).Run).values(),
        ConfigFileOptions,
    ]
    specs = [spec for section in sections for spec in specs_of(section)]
    return {flag.removeprefix("--"): spec.default for spec in specs for flag in (spec.flag, *spec.aliases)}


@pytest.mark.parametrize("script", SD_SCRIPTS)
def test_every_option_of_sd_scripts_is_there_or_refused_by_name(
    script: str, capsys: pytest.CaptureFixture
) -> None:
    known = flags_of(script)
    supported = SD_SCRIPTS[script].keys() & known.keys()
    others = sorted(SD_SCRIPTS[script].keys() - known.keys())
    argued = ", ".join(f"{name} ({REFUSED[name].cause})" for name in others if name in REFUSED)
    with capsys.disabled():
        print(
            f"\n{script}: {len(supported)} of {len(SD_SCRIPTS[script])} options of sd-scripts are supported"
            f"; refused for good: {argued or 'none'}"
        )
    assert set(others) <= REFUSED.keys()


def test_every_option_refused_for_good_is_argued_in_the_docs() -> None:
    page = (DATA.parents[1] / "docs" / "differences.md").read_text(encoding="utf-8")
    assert [name for name in REFUSED if f"`--{name}`" not in page] == []


@pytest.mark.parametrize("script", SD_SCRIPTS)
def test_defaults_are_those_of_sd_scripts(script: str) -> None:
    known = flags_of(script)
    different = {
        name: (known[name], default)
        for name, default in SD_SCRIPTS[script].items()
        if name in known and _plain(known[name]) != default and name not in DIFFERENT_DEFAULTS
    }
    assert different == {}


# Options whose default is said otherwise here or differs on purpose (docs/differences.md).
DIFFERENT_DEFAULTS = {
    "caption_extention",
    "network_alpha",
    "save_model_as",
    "undesired_tags",
    "zero_terminal_snr",
}


def _plain(default: object) -> object:
    if default == ():
        return None
    return str(default) if isinstance(default, Path) else default


def test_the_table_of_unavailable_options_holds_nothing_that_is_available() -> None:
    # There for trainers, not for the generator.
    shared = {"network_args", "vae_batch_size", "zero_terminal_snr"}
    everywhere = set().union(*(flags_of(script) for script in SD_SCRIPTS))
    assert REFUSED.keys() & everywhere <= shared


@pytest.mark.parametrize(
    ("name", "value", "asks"),
    [
        ("switch", True, True),
        ("switch", False, False),
        ("number", ["0.1"], False),
        ("number", ["0.2"], True),
        ("choice", "other", True),
        ("choice", "usual", False),
        ("unset", "", False),
        ("unset", 0, False),
        ("unset", 0.1, True),
    ],
)
def test_asking_for_the_default_asks_for_nothing(name: str, value: object, asks: bool) -> None:
    defaults = {"switch": False, "number": 0.1, "choice": "usual", "unset": None}
    assert asks_for(value, defaults[name]) is asks


@pytest.mark.parametrize(
    ("value", "size"),
    [("512", (512, 512)), ("512,768", (512, 768)), (640, (640, 640)), ([512, 768], (512, 768))],
)
def test_a_resolution_is_width_and_height(value: object, size: tuple[int, int]) -> None:
    assert read_resolutions(value) == (size,)


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        (["512", "768,1024"], ((512, 512), (768, 1024))),
        ([[512, 512], [768, 1024]], ((512, 512), (768, 1024))),
        (["512,768"], ((512, 768),)),
    ],
)
def test_several_resolutions_are_words_or_a_list(value: object, sizes: tuple) -> None:
    assert read_resolutions(value) == sizes


def test_a_range_is_two_numbers_the_smaller_first() -> None:
    assert read_range("2.0,4.0") == read_range([2, 4]) == (2.0, 4.0)
    for wrong in ("2", "4,2", "0,1", "a,b", None):
        with pytest.raises(ValueError, match="expects two numbers"):
            read_range(wrong)


@pytest.mark.parametrize("value", ["", "512x512", "1,2,3", "-512", True, "0"])
def test_what_is_no_resolution_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expects a size such as"):
        read_resolutions(value)


@pytest.mark.parametrize(
    ("value", "steps"),
    [("100", 100), ("10%", 0.1), ("0.25", 0.25), (100, 100), (0, 0), ("1.0", 1.0), ("0%", 0)],
)
def test_steps_are_a_number_or_a_share(value: object, steps: float) -> None:
    read = read_steps(value)
    assert read == steps and type(read) is type(steps)


@pytest.mark.parametrize("value", ["-1", "1.5", "ten", "", True])
def test_what_are_no_steps_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expects steps"):
        read_steps(value)


@pytest.mark.parametrize(
    "name", ["a/b", "..", "con", "NUL.txt", "a\nb", "a ", "x" * 200, 'say "hi"', "a\\b", "a."]
)
def test_output_names_that_are_no_file_names_are_refused(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize("name", ["my_lora", "Jürgen 2", "v1.5", "猫"])
def test_plain_names_are_accepted(name: str) -> None:
    assert name_fault(name) is None


def test_options_that_come_to_nothing_give_a_warning(capsys: pytest.CaptureFixture) -> None:
    SavingOptions(output_dir=Path("x"), save_last_n_steps=3)
    assert (
        capsys.readouterr().err == "warning: --save_last_n_steps has no effect without --save_every_n_steps\n"
    )


def test_a_batch_size_of_text_encoders_needs_text_caching(capsys: pytest.CaptureFixture) -> None:
    CachingOptions(text_encoder_batch_size=16)
    CachingOptions(text_encoder_batch_size=4, cache_text_encoder_outputs=True)
    assert capsys.readouterr().err == ""
    CachingOptions(text_encoder_batch_size=4)
    assert capsys.readouterr().err == (
        "warning: --text_encoder_batch_size has no effect without --cache_text_encoder_outputs\n"
    )


def test_a_warm_up_that_the_schedule_does_not_have_is_a_warning(capsys: pytest.CaptureFixture) -> None:
    ScheduleOptions(lr_warmup_steps=10)
    assert capsys.readouterr().err == (
        "warning: --lr_warmup_steps is not used by --lr_scheduler constant, as in sd-scripts; did you mean "
        "constant_with_warmup?\n"
    )


def test_a_timestep_range_must_not_be_empty() -> None:
    assert ObjectiveOptions(min_timestep=100, max_timestep=900).timestep_range == (100, 900)
    with pytest.raises(UserError, match="--min_timestep: must be below --max_timestep"):
        ObjectiveOptions(min_timestep=900, max_timestep=900)


def test_every_count_that_is_too_small_is_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        ValidationOptions(validate_every_n_steps=0, max_validation_steps=0, early_stopping_patience=-1)
    assert [str(problem) for problem in error.value.problems] == [
        "--validate_every_n_steps: must be 1 or more",
        "--max_validation_steps: must be 1 or more",
        "--early_stopping_patience: must be 1 or more",
    ]


def test_a_dataset_file_wins_over_folders(capsys: pytest.CaptureFixture) -> None:
    data = DataOptions(dataset_config=Path("d.toml"), train_data_dir=Path("i"), reg_data_dir=Path("r"))
    assert data.name == "d.toml"
    assert capsys.readouterr().err == (
        "warning: --train_data_dir has no effect with --dataset_config\n"
        "warning: --reg_data_dir has no effect with --dataset_config\n"
    )


def test_of_several_attention_switches_the_first_counts_as_in_sd_scripts(
    capsys: pytest.CaptureFixture,
) -> None:
    model = ModelOptions(pretrained_model_name_or_path="m", sdpa=True, xformers=True, mem_eff_attn=True)
    assert model.attention == "sliced"
    assert capsys.readouterr().err.count("has no effect with --mem_eff_attn") == 2
    assert ModelOptions(pretrained_model_name_or_path="m", sdpa=True, xformers=True).attention == "xformers"


def test_weights_without_a_module_are_a_loras() -> None:
    assert NetworkOptions(network_weights=Path("w")).network_module == "networks.lora"


def test_each_text_encoder_may_have_its_rate() -> None:
    network = NetworkOptions(network_module="networks.lora", text_encoder_lr=(1e-5, 0.0), unet_lr=1e-4)
    assert network.rates(1.0) == {"unet": 1e-4, "te": 1e-5, "te2": 0.0}
    with pytest.raises(UserError, match="takes one value or two"):
        NetworkOptions(network_module="networks.lora", text_encoder_lr=(1e-5, 0.0, 1e-5))


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"torch_compile": True}, False),
        ({}, True),
        ({"torch_compile": True, "dynamo_backend": "eager"}, True),
    ],
)
def test_compile_modes_are_inductors(
    given: dict[str, object], warned: bool, capsys: pytest.CaptureFixture
) -> None:
    ModelOptions(pretrained_model_name_or_path="m", torch_compile_mode="reduce-overhead", **given)
    line = "warning: --torch_compile_mode has no effect without --torch_compile by inductor\n"
    assert capsys.readouterr().err == line * warned
