"""Where the generator's prompts come from, in which order they are drawn, and how their texts are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import below, option, refuse, warn_when


@dataclass(frozen=True)
class GeneratorOrderOptions:
    """Order of prompts."""

    shuffle_prompts: bool = option(False, "draw the prompts in another order in each round of --n_iter")
    iter_same_seed: bool = option(
        False, "all prompts of a round of --n_iter have the same seed, those of the first --seed itself"
    )


@dataclass(frozen=True)
class GeneratorTextOptions:
    """Texts."""

    max_embeddings_multiples: int | None = option(
        None,
        "chunks of 75 tokens that a prompt may have, what follows is cut (default: as many as it needs)",
        metavar="N",
        zero_unset=True,
    )
    wildcard_dir: Path | None = option(
        None, "folder of text files: __colours__ in a prompt is a line of its colours.txt", metavar="DIR"
    )
    negative_scale: float | None = option(
        None,
        "scale of the negative prompt by itself; guidance by --scale is then from the empty text (default: "
        "guidance is from the negative prompt)",
        metavar="X",
    )

    def __post_init__(self) -> None:
        refuse(*below(1, self, "max_embeddings_multiples"), *below(0, self, "negative_scale"))


@dataclass(frozen=True)
class GeneratorSourceOptions:
    """Where prompts come from."""

    interactive: bool = option(False, "draw prompts that are typed in, one a line, until the input ends")
    from_module: Path | None = option(
        None,
        "Python file whose get_prompter(args, pipe, networks) gives a function that makes prompts",
        metavar="FILE",
    )
    prompter_module_args: str | None = option(None, "text for the module of --from_module", metavar="TEXT")

    def __post_init__(self) -> None:
        both = self.interactive and self.from_module is not None
        refuse((both, "interactive", "contradicts --from_module"))
        idle = self.prompter_module_args is not None and self.from_module is None
        warn_when((idle, "prompter_module_args", "has no effect without --from_module"))

    @property
    def comes_later(self) -> bool:
        """Whether prompts come while pictures are drawn."""
        return self.interactive or self.from_module is not None
