from dataclasses import dataclass
from pathlib import Path

from library.options.fields import option
from library.options.public import public_options
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
