from dataclasses import dataclass
from pathlib import Path

from library.options.fields import option
from library.options.public import places_of, public_options, public_text
from library.secrets import Secret


@dataclass(frozen=True)
class Section:
    folder: Path | None = option(None, "a folder")
    model: str | None = option(None, "a file or a hub id")
    sizes: tuple[int, ...] = option((), "numbers")
    words: tuple[str, ...] = option((), "words")
    rate: float = option(0.5, "a rate")
    token: Secret | None = option(None, "a token")


@dataclass(frozen=True)
class Run:
    first: Section


def test_of_paths_only_names_are_public_and_of_tokens_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    run = Run(
        Section(
            folder=tmp_path / "out",
            model=str(tmp_path / "model.safetensors"),
            sizes=(512, 768),
            words=(f"preset={tmp_path}/preset.toml", r"file=C:\Users\me\x.json", "conv_dim=4"),
            token=Secret("abc"),
        )
    )
    assert public_options(run) == {
        "folder": "out",
        "model": "model.safetensors",
        "sizes": "512 768",
        "words": "preset=preset.toml file=x.json conv_dim=4",
        "rate": 0.5,
    }
    assert public_options(Run(Section(model="runwayml/stable-diffusion"))) == {
        "model": "runwayml/stable-diffusion",
        "rate": 0.5,
    }


def test_a_message_has_names_instead_of_places_and_no_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "my data"  # with a space: known as an option's value only
    run = Run(Section(folder=folder, model="owner/model", words=(str(tmp_path / "a b" / "c.toml"),)))
    places = places_of(run, tmp_path / "more of it" / "1_cat")
    for text, shown in {
        f"{folder}: no": "my data: no",
        f"{folder / '1_cat' / 'a.png'} is small": f"{Path('my data', '1_cat', 'a.png')} is small",
        f"{tmp_path / 'a b' / 'c.toml'}; {tmp_path / 'more of it' / '1_cat'}: 3": "c.toml; 1_cat: 3",
        "open('/usr/lib/x/y.py') or C:\\Users\\me\\z.py": "open('y.py') or z.py",
        "owner/model, see https://a.b/c/d; 1 / 2, in/out": "owner/model, see https://a.b/c/d; 1 / 2, in/out",
        "hf_abcdefghijkl is no token": "*** is no token",
    }.items():
        assert public_text(text, places) == shown
