"""Words that are learned: from pictures to a file that this and other programs draw with."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from commands import run_here
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from trainers import options, two_buckets

from library.models import load_model
from library.models.base import Model
from library.models.embeddings import add_embeddings, file_tensors, find_embeddings
from library.models.weights import load_tensors, save_tensors
from library.problems import UserError


def test_a_word_is_learned_and_drawn_with_and_the_model_stays_what_it_was(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pictures, out = two_buckets(tmp_path / "data"), tmp_path / "out"
    for caption in pictures.rglob("*.txt"):
        caption.write_text(f"a (red:1.2) <my-cat>, {caption.stem}")
    (tmp_path / "prompts.txt").write_text("a <my-cat> --w 64 --h 64 --s 1 --d 1\n")
    words = ("--token_string", "<my-cat>", "--init_word", "cat", "--num_vectors_per_token", 3)
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_at_first", "--sample_every_n_steps", 2)
    common = (*words, *looks, "--max_train_steps", 2, "--validation_split", 0.3, "--save_state")
    run_here("train_textual_inversion.py", *options(shallow_model_file, pictures, out, *common))
    assert "<my-cat> in the text encoder" in capsys.readouterr().out
    learned = load_tensors(out / "x.pt")
    model = load_model(shallow_model_file)
    (table,) = model.vocabulary.tables
    assert list(learned) == ["emb_params"] and learned["emb_params"].shape == (3, table.shape[1])
    assert not torch.equal(learned["emb_params"], table[2368].expand(3, -1))
    first, last = (out / "sample").glob("*_000000_*"), (out / "sample").glob("*_000002_*")
    assert Image.open(next(first)).tobytes() != Image.open(next(last)).tobytes()

    def draw(name: str, prompt: str, *more: object) -> bytes:
        asked = ("--prompt", prompt, "--W", 64, "--H", 64, "--steps", 2, "--seed", 1, *more)
        run_here("gen_img_diffusers.py", "--ckpt", shallow_model_file, "--outdir", tmp_path / name, *asked)
        (picture,) = (tmp_path / name).iterdir()
        return Image.open(picture).tobytes()

    knows = ("--textual_inversion_embeddings", out / "x.pt")
    assert draw("with", "a (x:1.1)", *knows) != draw("without", "a (x:1.1)")
    assert draw("with other", "a dog", *knows) == draw("other", "a dog")


def test_captions_and_templates_are_looked_at_before_the_start(
    shallow_model_file: Path, tmp_path: Path
) -> None:
    pictures = two_buckets(tmp_path / "data")
    asked = ("--token_string", "<it>", "--max_train_steps", 1)
    words = options(shallow_model_file, pictures, tmp_path / "out", *asked)
    with pytest.raises(UserError, match="no caption contains '<it>'; write it there, give --caption_prefix"):
        run_here("train_textual_inversion.py", *words)
    first, second = sorted(pictures.rglob("*.txt"))[:2]
    first.write_text("an <it> here")
    second.write_text("<it>")
    with pytest.raises(UserError, match="5 of 7 captions do not contain '<it>', e.g. that of "):
        run_here("train_textual_inversion.py", *words)
    with pytest.raises(UserError) as caught:  # with whatever else is wrong
        run_here("train_textual_inversion.py", *words, "--embeddings", "none.pt")
    assert len(caught.value.problems) == 2
    run_here("train_textual_inversion.py", *words, "--caption_prefix", "<it>")


@torch.no_grad()
def test_diffusers_reads_the_files_of_one_and_of_two_text_encoders(
    any_model: Model, any_model_file: Path, any_model_folder: Path, tmp_path: Path
) -> None:
    """And an embedding of one run may stand in the captions of another."""
    is_xl = len(any_model.text_encoders) == 2
    script = "sdxl_train_textual_inversion.py" if is_xl else "train_textual_inversion.py"
    known = tmp_path / "known.safetensors"
    rows = [torch.ones(1, table.shape[1]) for table in any_model.vocabulary.tables]
    save_tensors(known, file_tensors(rows))
    pictures = two_buckets(tmp_path / "data")
    words = ("--token_string", "<it>", "--num_vectors_per_token", 2, "--save_model_as", "safetensors")
    words += ("--caption_prefix", "known <it>", "--embeddings", known, "--max_train_steps", 1)
    with torch.enable_grad():
        run_here(script, *options(any_model_file, pictures, tmp_path / "out", *words))
    path = tmp_path / "out" / "x.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"].endswith("/textual-inversion")
    assert metadata["ss_token_string"] == '["<it>"]'
    tensors = load_file(path)
    pipeline = getattr(diffusers, any_model.layout.pipeline).from_pretrained(any_model_folder)
    if is_xl:
        for key, number in (("clip_l", ""), ("clip_g", "_2")):
            tokenizer = getattr(pipeline, f"tokenizer{number}")
            encoder = getattr(pipeline, f"text_encoder{number}")
            pipeline.load_textual_inversion(tensors[key], "<it>", tokenizer=tokenizer, text_encoder=encoder)
    else:
        pipeline.load_textual_inversion(path, "<it>")
    add_embeddings(any_model, [path])
    theirs = pipeline.maybe_convert_prompt("a <it>", pipeline.tokenizer)
    ids = pipeline.tokenizer(theirs, return_tensors="pt").input_ids
    expected = pipeline.text_encoder(ids).last_hidden_state
    own = any_model.tokenizer()(["a x"])[0][:, 0, : ids.shape[1]]
    found = any_model.text_encoders[0](input_ids=own).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_words_are_learned_with_a_network_and_stand_in_its_file(
    shallow_model_file: Path, tmp_path: Path
) -> None:
    pictures = two_buckets(tmp_path / "data")
    network = ("--network_module", "networks.lora", "--network_train_unet_only", "--embedding_lr", 5e-3)
    words = ("--token_string", "<it>", "<its>", "--init_word", "cat", "dog", "--caption_prefix", "<it> <its>")
    words += (*network, "--stop_embedding_training", 2, "--save_state", "--save_every_n_steps", 1)
    words += ("--save_embeddings",)

    def train(out: str, steps: int, *more: object) -> Path:
        common = options(
            shallow_model_file, pictures, tmp_path / out, *words, "--max_train_steps", steps, *more
        )
        run_here("train_network.py", *common)
        return tmp_path / out

    whole = train("whole", 3)
    first, second, last = (load_file(whole / f"x-step{step:08d}.safetensors") for step in (1, 2, 3))
    keys = ("bundle_emb.it.clip_l", "bundle_emb.its.clip_l")
    assert {key for key in last if not key.startswith("lora_unet_")} == {*keys}
    for key in keys:
        assert not torch.equal(first[key], second[key]) and torch.equal(second[key], last[key])
    assert any(not torch.equal(second[key], last[key]) for key in last)
    part = train("part", 3, "--resume", whole / "x-step00000001-state")
    resumed = load_file(part / "x.safetensors")
    assert all(torch.equal(resumed[key], value) for key, value in last.items())
    assert [found.word for found in find_embeddings(part / "x.safetensors")] == ["it", "its"]
    for name in ("it", "its"):  # and each alone
        alone = load_file(part / "x-embeddings" / f"{name}.safetensors")
        assert torch.equal(alone.pop("emb_params"), last[f"bundle_emb.{name}.clip_l"]) and not alone
    folders = {path.name for path in whole.glob("*-embeddings")}
    assert folders == {"x-embeddings", *(f"x-step{step:08d}-embeddings" for step in (1, 2, 3))}
