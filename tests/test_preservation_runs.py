"""Preservation in runs: what is wrong with it is told before the start, and a resumed run goes on exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from safetensors.torch import load_file
from trainers import options

from library.problems import UserError

NETWORK = ("--network_module", "networks.lora", "--network_dim", 2, "--max_train_steps", 4, "--save_state")
CLASSES = ("--preserve", "both", "--preserve_trigger", "two", "--preserve_class", "a cat", "a dog")


def unchanged(words: list[object]) -> list[object]:
    """The command line without what changes captions."""
    return [*(word for word in words if word != "--shuffle_caption"), "--caption_tag_dropout_rate", 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "1_sks", 4).parent


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--preserve", "class"), "sks does not say what is learned and what else it could be"),
        (
            ("--preserve", "class", "--preserve_trigger", "owt", "--preserve_class", "cat"),
            "no caption contains 'owt'",
        ),
        (
            (*CLASSES, "--network_train_unet_only", "--cache_text_encoder_outputs"),
            "texts that are not in the cache",
        ),
    ],
)
def test_what_cannot_preserve_is_one_line(
    words: tuple, said: str, folder: Path, shallow_model_file: Path
) -> None:
    out = folder.with_name("out")
    with pytest.raises(UserError) as caught:
        run_here("train_network.py", *unchanged(options(shallow_model_file, folder, out, *NETWORK, *words)))
    (problem,) = caught.value.problems
    assert str(problem).startswith("--preserve ") and said in str(problem)


def test_captions_without_the_trigger_are_counted(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_pictures(tmp_path / "set" / "1_sks thing", 3)
    (folder / "0_01.txt").write_text("a sks there")
    words = (*NETWORK, "--preserve", "class", "--max_train_steps", 1)
    run_here("train_network.py", *options(shallow_model_file, folder.parent, tmp_path / "out", *words))
    told = capsys.readouterr()
    assert "2 of 3 captions do not contain the first word of their folder's name, e.g. that of 0_00.png" in (
        told.out + told.err
    )


def test_a_resumed_run_preserves_as_if_it_had_not_stopped(
    folder: Path, shallow_model_file: Path, tmp_path: Path
) -> None:
    def trained(name: str, *more: object) -> dict[str, torch.Tensor]:
        words = (*NETWORK, *CLASSES, "--preserve_share", 0.5, *more)
        run_here("train_network.py", *options(shallow_model_file, folder, tmp_path / name, *words))
        return load_file(tmp_path / name / "x.safetensors")

    whole = trained("whole")
    trained("half", "--max_train_steps", 2)
    rest = trained("rest", "--resume", tmp_path / "half" / "x-state")
    assert whole.keys() == rest.keys() and all(torch.equal(whole[key], rest[key]) for key in whole)


def test_cached_texts_and_blank_captions(folder: Path, shallow_model_file: Path, tmp_path: Path) -> None:
    """With cached texts a blank caption is in the cache, and the result is that of encoding it."""

    def trained(name: str, *more: object) -> dict[str, torch.Tensor]:
        words = (*NETWORK, "--network_train_unet_only", "--preserve", "blank", *more)
        run_here("train_network.py", *unchanged(options(shallow_model_file, folder, tmp_path / name, *words)))
        return load_file(tmp_path / name / "x.safetensors")

    plain, cached = trained("plain"), trained("cached", "--cache_text_encoder_outputs")
    for key in plain:
        torch.testing.assert_close(cached[key], plain[key], rtol=1e-4, atol=1e-6)
