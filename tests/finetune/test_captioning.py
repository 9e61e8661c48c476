"""Folders of pictures captioned by small models that transformers opens like real ones."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from commands import call
from PIL import Image
from small_captioners import word_tokenizer, write_captioner

from finetune import make_captions, make_captions_by_git
from library.options.captioning_tools import CaptionWordOptions
from library.preparation.captioning.words import dressed
from library.problems import UserError
from library.stopping import Stopped


@pytest.fixture(scope="module")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("captioners")
    return {kind: write_captioner(kind, root / kind) for kind in ("blip", "git", "llava")}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    Image.new("RGBA", (32, 32), (0, 0, 255, 128)).save(folder / "b.png")
    Image.linear_gradient("L").resize((30, 40)).save(folder / "in" / "猫 c.png")
    return folder


def caption(pictures: Path, *words: object, git: bool = False) -> dict[str, str]:
    module = make_captions_by_git if git else make_captions
    call(module.main, f"{module.__name__.rpartition('.')[2]}.py", pictures, *words)
    return texts(pictures)


def texts(pictures: Path, suffix: str = ".caption") -> dict[str, str]:
    found = sorted(pictures.rglob(f"*{suffix}"))
    return {path.stem: path.read_text(encoding="utf-8").removesuffix("\n") for path in found}


def by_transformers(model: Path, picture: Image.Image, prompt: str | None, **settings: object) -> str:
    """A caption as transformers' own classes give it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    inputs = processor(images=picture, return_tensors="pt", **({"text": prompt} if prompt else {}))
    tokens = AutoModelForImageTextToText.from_pretrained(model).eval().generate(**inputs, **settings)
    text = processor.decode(tokens[0], skip_special_tokens=True)
    return text.removeprefix(prompt or "").strip()


def test_blip_captions_are_transformers_own_without_the_prompt(
    pictures: Path, captioners: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    blip = captioners["blip"]
    found = caption(pictures, "--model_id", blip, "--beam_search", "--num_beams", 3, "--max_length", 12)
    settings = {"num_beams": 3, "max_length": 12, "min_length": 5}
    assert found == {
        "a": by_transformers(blip, Image.new("RGB", (40, 30), "red"), "a picture of", **settings),
        # transparency is on white, as it is trained
        "b": by_transformers(blip, Image.new("RGB", (32, 32), (127, 127, 255)), "a picture of", **settings),
    }
    assert found["a"] != found["b"]
    said = capsys.readouterr().out
    assert said == f"captioning 2 pictures with {blip} on cpu\n2 captions in {pictures} (.caption)\n"
    recursive = caption(
        pictures,
        *("--caption_weights", blip, "--beam_search", "--num_beams", 3, "--max_length", 12, "--recursive"),
        *("--batch_size", 2, "--skip_existing", "--trigger_word", "sks"),
    )
    assert recursive["a"] == found["a"] and recursive["猫 c"].startswith("sks, ")


def test_drawn_captions_depend_on_the_seed_alone(pictures: Path, captioners: dict[str, Path]) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    words = ("--model_id", captioners["blip"], "--max_length", 14)
    first = caption(pictures, *words)
    torch.manual_seed(8)
    assert caption(pictures, *words) == first
    assert caption(pictures, *words, "--seed", 43) != first
    assert caption(pictures, *words, "--top_p", 0.01) != first
    torch.manual_seed(7)
    caption(pictures, *words)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's draws change
    (pictures / "a.caption").unlink()
    assert caption(pictures, *words, "--skip_existing") == first  # nor does going on


def test_lengths_are_kept(pictures: Path, captioners: dict[str, Path]) -> None:
    for shortest, longest in ((8, 8), (20, 24)):
        words = ("--model_id", captioners["blip"], "--min_length", shortest, "--max_length", longest)
        for text in caption(pictures, *words, "--precision", "bf16").values():
            assert len(text.split()) <= longest - 3  # those of the prompt


def test_git_captions_are_transformers_own(pictures: Path, captioners: dict[str, Path]) -> None:
    git = captioners["git"]
    found = caption(pictures, "--model_id", git, "--max_length", 9, "--batch_size", 2, git=True)
    right = by_transformers(git, Image.new("RGB", (40, 30), "red"), None, max_length=9, do_sample=False)
    assert found["a"] == right
    longer = caption(pictures, "--model_id", git, "--remove_words", git=True)
    assert len(longer["a"].split()) > len(found["a"].split())


def test_other_models_are_asked(pictures: Path, captioners: dict[str, Path]) -> None:
    words = ("--model_id", captioners["llava"], "--beam_search", "--max_length", 10)
    first = caption(pictures, *words)
    assert 0 < len(first["a"].split()) <= 10
    assert caption(pictures, *words, "--prompt", "what is there") != first
    git = ("--model_id", captioners["git"], "--beam_search", "--prompt", "a picture of")
    assert not caption(pictures, *git)["a"].startswith("a picture of")


def test_florences_tasks_are_processed_as_transformers_does(pictures: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = write_captioner("florence2", tmp_path / "florence2")
    task, picture = "<CAPTION>", Image.new("RGB", (40, 30), "red")
    words = ("--model_id", model, "--prompt", task, "--beam_search", "--num_beams", 2, "--max_length", 8)
    found = caption(pictures, *words, "--min_length", 2)["a"]
    processor = AutoProcessor.from_pretrained(model)
    inputs = processor(images=[picture], text=[task], return_tensors="pt")
    network = AutoModelForImageTextToText.from_pretrained(model).eval()
    tokens = network.generate(**inputs, num_beams=2, do_sample=False, max_new_tokens=8, min_new_tokens=2)
    text = processor.batch_decode(tokens, skip_special_tokens=False)[0]
    right = processor.post_process_generation(text, task=task, image_size=picture.size)[task]
    assert found and found == dressed(right, CaptionWordOptions())


def test_blip_2_captions_are_transformers_own(pictures: Path, tmp_path: Path) -> None:
    blip2 = write_captioner("blip2", tmp_path / "blip2")
    found = caption(pictures, "--model_id", blip2, "--beam_search", "--max_length", 8, "--min_length", 2)
    settings = {"max_new_tokens": 8, "min_new_tokens": 2, "do_sample": False}
    assert found["a"] == by_transformers(blip2, Image.new("RGB", (40, 30), "red"), None, **settings)
    assert len(found["a"].split()) > 1


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="nothing is missing here")
@pytest.mark.parametrize("kind", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL"])
def test_qwens_captioners_say_that_they_need_torchvision(kind: str, pictures: Path, tmp_path: Path) -> None:
    model_type = {"Qwen2VL": "qwen2_vl", "Qwen2_5_VL": "qwen2_5_vl", "Qwen3VL": "qwen3_vl"}[kind]
    word_tokenizer().save_pretrained(tmp_path / "qwen")
    files = {
        "config.json": {"model_type": model_type},
        "preprocessor_config.json": {
            "processor_class": f"{kind}Processor",
            "image_processor_type": "Qwen2VLImageProcessor",
        },
    }
    for name, content in files.items():
        (tmp_path / "qwen" / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        caption(pictures, "--model_id", tmp_path / "qwen")
    fix = "run: pip install torchvision, as your torch needs it"
    assert str(error.value) == f"{tmp_path / 'qwen'}: needs torchvision to read pictures; {fix}"


def test_captions_stay_when_the_command_is_stopped(
    pictures: Path, captioners: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.preparation.captioning.model import Captioner

    words = ("--model_id", captioners["git"], "--max_length", 9)
    whole = caption(pictures, *words, git=True)
    (pictures / "a.caption").unlink()
    (pictures / "b.caption").write_text("mine")
    ask, calls = Captioner.captions, []

    def stop_at_the_second(self: Captioner, *given: object, **more: object) -> list[str]:
        calls.append(1)
        if len(calls) == 2:
            raise Stopped(2)
        return ask(self, *given, **more)

    monkeypatch.setattr(Captioner, "captions", stop_at_the_second)
    with pytest.raises(Stopped) as stop:
        caption(pictures, *words, git=True)
    assert stop.value.kept == "1 of 2 pictures done; --skip_existing goes on"
    assert texts(pictures) == {"a": whole["a"], "b": "mine"}
    assert not list(pictures.glob(".*"))  # no half of a file
    (pictures / "b.caption").unlink()
    assert caption(pictures, *words, "--skip_existing", git=True) == whole


def test_names_become_captions_without_a_model(pictures: Path) -> None:
    words = ("--from_names", "--recursive", "--caption_extension", ".txt", "--caption_prefix", "photo of")
    caption(pictures, *words)
    assert texts(pictures, ".txt") == {"a": "photo of a", "b": "photo of b", "猫 c": "photo of 猫 c"}
    caption(pictures, *words, "--from_names", "folder")
    assert texts(pictures, ".txt")["猫 c"] == "photo of in"


def test_a_bad_picture_is_listed_and_an_old_caption_kept(pictures: Path, captioners: dict[str, Path]) -> None:
    (pictures / "a.caption").write_text("mine")
    (pictures / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"x.png: is a damaged or cut off PNG image"):
        caption(pictures, "--model_id", captioners["git"], git=True)
    (undo,) = pictures.glob("undo-*.jsonl")
    assert undo.read_text() == '{"file": "a.caption", "text": "mine"}\n'
    assert texts(pictures).keys() == {"a", "b"} and texts(pictures)["a"] != "mine"


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--model_id", "nothing/here"), "nothing/here: cannot be opened .*give a folder or a repository"),
        (("--model_id", "."), r"\.: (cannot be opened|is no captioner)"),
        (("--model_id", "{tagger}"), "(cannot be opened|is no captioner that transformers opens)"),
        (("--min_length", 9, "--max_length", 5), "--min_length: must not be above --max_length"),
        (("--top_p", 0), "--top_p: must be above 0"),
        (("--num_beams", 0), "--num_beams: must be 1 or more"),
        (("--device", "gpu9", "--model_id", "{git}"), "--device gpu9: is not there"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: tuple,
    cause: str,
    pictures: Path,
    captioners: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "tagger").mkdir()
    (tmp_path / "tagger" / "config.json").write_text('{"model_type": "bert"}')
    places = {"{tagger}": tmp_path / "tagger", "{git}": captioners["git"]}
    with pytest.raises(UserError, match=cause) as error:
        caption(pictures, *(places.get(word, word) for word in words))
    assert "\n" not in str(error.value)


def test_num_beams_without_a_search_is_warned_of(
    pictures: Path, captioners: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    caption(pictures, "--model_id", captioners["blip"], "--num_beams", 2, "--max_length", 6)
    assert "--num_beams has no effect without --beam_search" in capsys.readouterr().err
