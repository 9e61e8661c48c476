"""The commands that people run one after another, from a folder of pictures to a fine-tuned model."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, environment, run, run_here
from small_captioners import write_captioner
from small_taggers import write_csv, write_tagger

from library.problems import UserError

EXAMPLES = ROOT / "examples"
WRAPPERS = sorted(EXAMPLES.glob("*.ps1"))
# As people type them; {names} are replaced.
ROW = """
finetune/make_captions.py --batch_size 8 {pictures} --recursive --caption_weights {captioner}
finetune/tag_images_by_wd14_tagger.py --batch_size 4 {pictures} --recursive --repo_id {tagger} --onnx
finetune/merge_captions_to_metadata.py {pictures} {meta}_cap.json --recursive --full_path
finetune/merge_dd_tags_to_metadata.py {pictures} --in_json {meta}_cap.json {meta}_cap_dd.json \
--recursive --full_path
finetune/clean_captions_and_tags.py {meta}_cap_dd.json {meta}_clean.json
finetune/prepare_buckets_latents.py {pictures} {meta}_clean.json {meta}_lat.json {model} --batch_size 4 \
--max_resolution 64,64 --min_bucket_reso 32 --mixed_precision no --recursive --full_path
fine_tune.py --pretrained_model_name_or_path {model} --in_json {meta}_lat.json --train_data_dir {pictures} \
--output_dir {out} --output_name tuned --resolution 64,64 --enable_bucket --min_bucket_reso 32 \
--cache_latents_to_disk --train_batch_size 4 --max_train_steps 3 --save_model_as safetensors
"""


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_file: Path
) -> Callable[[str], dict[str, str]]:
    """Makes 60 pictures as people have them, in a folder of this name; what stands for {names}."""
    root = tmp_path_factory.mktemp("row")
    models = {
        "captioner": write_captioner("blip", root / "blip"),
        "tagger": write_csv(write_tagger(root / "wd14", side=64)),
        "model": tiny_model_file,
    }

    def make(name: str) -> dict[str, str]:
        pictures = root / name
        run("examples/demo/make_world.py", pictures, "--count", 60)
        (pictures / "metadata.json").unlink()
        for inner in ("10_少女", "in (1)"):
            (pictures / inner).mkdir()
        found = sorted(pictures.glob("*.png"))
        for number, path in enumerate(found[:20]):
            path.rename(pictures / "10_少女" / f"写真 {number}.PNG")
        for number, path in enumerate(found[20:40]):
            path.rename(pictures / "in (1)" / f"it's, no. {number} [x] +ü.png")
        (pictures / "in (1)" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0cut")
        words = {"pictures": pictures, "meta": root / f"{name}_metadata", "out": root / f"{name} out"}
        return {key: str(value) for key, value in {**words, **models}.items()}

    return make


@pytest.mark.long
def test_the_row_ends_in_a_fine_tuned_model(places: Callable, capsys: pytest.CaptureFixture) -> None:
    words = places("my pictures")
    told = 0
    for line in ROW.strip().split("\n"):
        script, *rest = [word.format(**words) for word in shlex.split(line)]
        try:
            run_here(script.replace("/", "."), *rest)
        except UserError as error:  # names the broken picture; the others are done
            told += 1
            assert re.fullmatch(r"[^\n]*broken\.jpg: [^\n]*", str(error))
        if script.endswith("make_captions.py"):
            japanese = Path(words["pictures"]) / "10_少女" / "写真 0.caption"
            assert japanese.exists()
            japanese.write_text("赤い星と少女\n", encoding="utf-8")
    assert told == 3  # captions, tags and latents
    entries = json.loads(Path(f"{words['meta']}_lat.json").read_text(encoding="utf-8"))
    whole = {key for key, entry in entries.items() if entry.keys() >= {"caption", "tags", "train_resolution"}}
    assert len(whole) == 60
    assert entries[str(japanese.with_suffix(".PNG"))]["caption"] == "赤い星と少女"
    assert "latents on disk: 60 were there already, 0 made" in capsys.readouterr().out
    assert (Path(words["out"]) / "tuned.safetensors").stat().st_size


@pytest.mark.long
def test_the_wrapper_does_the_same_in_bash(places: Callable) -> None:
    words = places("wrapped pictures")
    env = environment() | {"CAPTIONER": words["captioner"], "TAGGER": words["tagger"]}
    env |= {"RESOLUTION": "256,256", "PRECISION": "no", "ACCELERATE_USE_CPU": "true"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    training = ("--max_train_steps", "1", "--output_dir", words["out"], "--output_name", "tuned")
    training += ("--logging_dir", words["out"])
    command = ["bash", EXAMPLES / "prepare_sd15.sh", words["pictures"], words["model"], *training]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    aside = re.search(r"(\d+) of 61 pictures set aside in .*\b1 unreadable", done.stdout)
    assert aside is not None
    there = 61 - int(aside[1])
    assert f"latents on disk: 0 were there already, {there} made" in done.stdout
    assert f"latents on disk: {there} were there already, 0 made" in done.stdout
    assert (Path(words["out"]) / "tuned.safetensors").stat().st_size


@pytest.mark.parametrize("path", WRAPPERS, ids=lambda path: path.name)
def test_powershell_reads_the_wrappers(path: Path) -> None:
    tree_sitter = pytest.importorskip("tree_sitter")
    powershell = pytest.importorskip("tree_sitter_powershell")
    parser = tree_sitter.Parser(tree_sitter.Language(powershell.language()))
    content = path.read_bytes()
    assert not parser.parse(content).root_node.has_error
    assert parser.parse(content + b"\nif (\n").root_node.has_error  # it would tell


def test_both_wrappers_start_the_same_commands() -> None:
    bash, powershell = (
        re.sub(r"[\"'{}]|[`\\]\n\s*", "", (EXAMPLES / f"prepare_sd15{suffix}").read_text()).replace("\\", "/")
        for suffix in (".sh", ".ps1")
    )
    of_bash = re.findall(r"^python (.*)$", bash, re.MULTILINE)
    of_powershell = re.findall(r"^ +Step (.*)$", powershell, re.MULTILINE)
    assert len(of_bash) == 7
    for one, other in zip(of_bash, of_powershell, strict=True):
        assert one.lower() == other.lower()
