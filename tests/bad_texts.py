"""Caption files and dataset files that cannot be used, each with a part of what their user should be told."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class BadText(NamedTuple):
    """name: of the file; cause, fix: parts of its one Problem."""

    name: str
    content: bytes
    cause: str
    fix: str


def bad_captions() -> dict[str, BadText]:
    """What is bad about it -> a caption file, to stand beside a good image."""
    saved = "save it as UTF-8"
    found = {
        "latin-1": ("a café".encode("latin-1"), "is not UTF-8 text: byte 0xe9 at offset 5", saved),
        "cp1252": ("a “red” car".encode("cp1252"), "is not UTF-8 text: byte 0x93 at offset 2", saved),
        "cp1251": ("кот".encode("cp1251"), "is not UTF-8 text: byte 0xea at offset 0", saved),
        "shift-jis": ("cat, 猫".encode("shift-jis"), "is not UTF-8 text: byte 0x94 at offset 5", saved),
        "gbk": ("dog, 狗".encode("gbk"), "is not UTF-8 text: byte 0xb9 at offset 5", saved),
        "zero byte": (b"a cat\0 on a mat", "is not text: a zero byte at offset 5", saved),
        "UTF-16 without a mark": ("a 猫".encode("utf-16-le"), "is not text: a zero byte at offset 1", saved),
        "UTF-16, cut off": (
            codecs.BOM_UTF16_LE + "a cat".encode("utf-16-le")[:-1],
            "is not UTF-16 text: byte 0x74 at offset 10",
            saved,
        ),
        "half a UTF-16 pair": (
            codecs.BOM_UTF16_BE + b"\0a\xd8\x3d\0b",
            "is not UTF-16 text: byte 0xd8 at offset 4",
            saved,
        ),
        "UTF-8, cut off": ("a café".encode()[:-1], "is not UTF-8 text: byte 0xc3 at offset 5", saved),
        "CESU-8": (b"a \xed\xa0\xbd\xed\xb8\x80", "is not UTF-8 text: byte 0xed at offset 2", saved),
        "a picture": (_picture(), "is not UTF-8 text: byte 0x89 at offset 0", saved),
        "gzip": (gzip.compress(b"a cat"), "is not UTF-8 text: byte 0x8b at offset 1", saved),
        "too long": (b"cat, " * 200_001, "is longer than 1,000,000 bytes", "shorten it"),
    }
    return {what: BadText("bad.caption", *details) for what, details in found.items()}


def make_bad_captions(folder: Path) -> dict[Path, BadText]:
    """All of them, each beside a good image of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number, bad in enumerate(bad_captions().values()):
        (folder / f"bad{number:02d}.png").write_bytes(_picture())
        path = folder / f"bad{number:02d}.caption"
        path.write_bytes(bad.content)
        made[path] = bad
    return made


def make_good_images(folder: Path) -> None:
    """What `bad_configs` are about: an image, its caption, and a metadata file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(_picture())
    (folder / "a.caption").write_text("fine")
    (folder / "m.json").write_text('{"a": {"caption": "fine"}}')


def bad_configs(images: Path) -> dict[str, BadText]:
    """What is bad about it -> a dataset file over the folder of `make_good_images`."""
    subset = f"[[datasets.subsets]]\nimage_dir = '{images}'\n"
    good = f"[[datasets]]\nresolution = 64\n{subset}"
    json_subsets = json.dumps([{"image_dir": str(images)}])
    found = {
        "a comma too many": (
            "data.json",
            f'{{"datasets": [\n{{"resolution": 64, "subsets": {json_subsets},}}\n]}}',
            "is not valid JSON",
            "no comma after the last entry",
        ),
        "a wrong word": (
            "data.toml",
            f"[general]\nflip_aug = True\n{good}",
            "is not valid TOML: Invalid value",
            "write true and false in small letters: flip_aug = True",
        ),
        "a path with \\d": (
            "data.toml",
            '[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = "C:\\data\\dog"\n',
            "is not valid TOML: Unescaped '\\' in a string",
            "write the path in single quotes, or with / instead of \\",
        ),
        "a path with \\n": (
            "data.toml",
            '[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = "C:\\new\\train"\n',
            "is 'C:\\new\\train': a \\ in double quotes begins a special character",
            "write the path in single quotes, or with / instead of \\",
        ),
        "a path with \\t in JSON": (
            "data.json",
            '{"datasets": [{"resolution": 64, "subsets": [{"image_dir": "C:\\train"}]}]}',
            "is 'C:\\train': a \\ in double quotes begins a special character",
            "write the path with / or \\\\ instead of \\",
        ),
        "cp1252": (
            "data.toml",
            f'[general]\ncaption_prefix = "für"\n{good}'.encode("cp1252"),
            "is not UTF-8 text: byte 0xfc at offset 29",
            "save it as UTF-8",
        ),
        "a key twice": (
            "data.toml",
            f"{good}flip_aug = true\nflip_aug = false\n",
            "something is there twice",
            "keep one: flip_aug = false",
        ),
        "a key twice in JSON": (
            "data.json",
            f'{{"datasets": [{{"resolution": 64, "resolution": 96, "subsets": {json_subsets}}}]}}',
            'is not valid JSON: "resolution" is there twice in one object',
            "keep one",
        ),
        "a misspelled key": (
            "data.toml",
            good.replace("resolution", "resolutoin"),
            "there is no such key",
            "did you mean resolution?",
        ),
        "a misspelled key of another table": (
            "data.toml",
            f"{good}bach_size = 2\n",
            "there is no such key",
            "did you mean batch_size? it belongs in [[datasets]] or [general]",
        ),
        "a key in the wrong table": (
            "data.toml",
            f"resolution = 64\n[[datasets]]\nresolution = 64\n{subset}",
            "belongs in [[datasets]] or [general]",
            "move it there",
        ),
        "an option of the command": (
            "data.toml",
            f"{good}learning_rate = 1e-4\n",
            "is an option of the command, not of a dataset",
            "give it on the command line or in the --config_file",
        ),
        "a wrong type": ("data.toml", f"{good}flip_aug = 2\n", "is 2", "it expects true or false"),
        "a number out of range": (
            "data.toml",
            f"{good}caption_dropout_rate = 1.5\n",
            "is 1.5",
            "it is a probability: 0 to 1",
        ),
        "[[dataset]]": (
            "data.toml",
            good.replace("[[datasets", "[[dataset"),
            "there is no such key",
            "did you mean datasets?",
        ),
        "[datasets]": (
            "data.toml",
            good.replace("[[datasets]]", "[datasets]"),
            "is one table, not an array of tables",
            "write [[datasets]], with two brackets",
        ),
        "subsets without a dataset": (
            "data.toml",
            f"[general]\nresolution = 64\n{subset.replace('datasets.', '')}",
            "belongs in a dataset, as [[datasets.subsets]]",
            "move it there",
        ),
        "an unknown table": ("data.toml", f"{good}[network]\nx = 1\n", "there is no such key", "general"),
        "no subsets": (
            "data.toml",
            "[[datasets]]\nresolution = 64\n",
            "is missing or empty",
            "add [[datasets.subsets]]",
        ),
        "mixed kinds": (
            "data.toml",
            f"{good}[[datasets.subsets]]\nmetadata_file = '{images / 'm.json'}'\nimage_dir = '{images}'\n",
            "mixes subsets of image folders and metadata files",
            "make a dataset for each",
        ),
        "no folder with images": (
            "data.toml",
            f"{good}[[datasets.subsets]]\nnum_repeats = 2\n",
            "needs image_dir",
            "the folder with its images",
        ),
        "a folder that is not there": (
            "data.toml",
            f"{good}[[datasets.subsets]]\nimage_dir = 'no/such'\n",
            "there is no such folder",
            f"{Path.cwd()} exists, 'no' in it does not",
        ),
        "no size": ("data.toml", good.replace("resolution = 64\n", ""), "is needed", "such as 512"),
        "another kind of file": (
            "data.yaml",
            "datasets: []",
            "is neither a .toml nor a .json file",
            "rename or rewrite it",
        ),
    }
    return {
        what: BadText(name, content if isinstance(content, bytes) else content.encode(), cause, fix)
        for what, (name, content, cause, fix) in found.items()
    }


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return file.getvalue()
