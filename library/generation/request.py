"""A request: one picture to draw, with all its settings. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from library.generation.large_pictures import DeepShrink, GradualLatent
from library.generation.network_words import NamedNetwork
from library.options.multipliers import Multiplier


@dataclass(frozen=True)
class StartNoise:
    """What some pictures' first noise gets besides, drawn by their seeds.

    offset_chance: how often one number is added to all of it. offset: the least and the largest.
    pyramid_chance: how often noise of coarser and coarser levels is added. discount: the least and the
        largest strength of a level beside the next finer one.
    """

    offset_chance: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    pyramid_chance: float = 0.0
    discount: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class HighresFix:
    """A picture is drawn small, enlarged, and drawn on.

    scale: of the small picture, above 0 and below 1. steps: of it.
    strength: how much it changes the picture that it begins with; None: as much as the request says.
    disables_control: whether ControlNets draw the small picture only.
    """

    scale: float
    steps: int = 28
    strength: float | None = None
    disables_control: bool = False


@dataclass(frozen=True)
class Regions:
    """Where the parts of a prompt count, see regions.py.

    mask: the picture that says it.
    codes: how many of its colours are parts; None: its channels are.
    networks: how many of the first parts have networks.
    """

    mask: Path
    codes: int | None = None
    networks: int = 0


class Choices(Protocol):
    """Choices of a prompt that are made for each picture."""

    def made(self, request: PromptRequest, seed: int) -> list[PromptRequest]:
        """The request with what a seed chooses; several where all are taken in turn. What was decided since
        the prompt was read stays. Raises UserError when what is chosen cannot be used.
        """


@dataclass(frozen=True)
class PromptRequest:
    """What is to be drawn: one picture, once it has a seed.

    prompt: what the picture is supposed to show.
    negative: what it is supposed not to show; counts with guidance only.
    width, height: pixels, multiples of the latent space's `pixel_multiple`.
    steps: 1 to 1000.
    scale: of classifier-free guidance; 1 is none.
    negative_scale: of the negative prompt by itself, beside guidance from the empty text; None: guidance is
        from the negative prompt.
    choices: of a dynamic prompt, which has the first of them in its place; None: there are none.
    seed: None lets the caller choose.
    more_seeds: of the prompt's second, third, ... picture.
    sampler: its name, with its schedule, see `read_sampler`.
    original_width, original_height: what models with size conditioning are told; None: the picture's own.
    original_width_negative, original_height_negative: the same for the negative prompt; None: as for the
        prompt.
    crop_top, crop_left: what such models are told was cropped, in pixels.
    strengths: of the networks in their order, the last for all that follow; none: the run's own.
    networks: those that the prompt names.
    hints: pictures for networks of control: one for all of them, or one for each; none: they do nothing.
    image: the picture that is begun with, or of which a part is painted anew; None: noise alone.
    mask: white where it is; None: see `repainting.read_original`.
    strength: the share of the steps that are gone after noise was put on the picture, 0 to 1; None lets the
        caller choose.
    rescale: how much guidance is brought back to the contrast of the prompt's own prediction, 0 to 1.
    start_noise: what is added to the noise that is begun with; None: nothing.
    file: the name of its file, inside the run's folder; None lets the caller choose.
    deep_shrink: smaller features inside the U-Net at first; None: none.
    gradual: smaller latents at first; None: none.
    highres: it is drawn small first; None: it is not.
    second_strength: how much the large picture of highres fix changes the small one; None lets it choose.
    regions: where the parts of the prompt between ANDs count; None: everywhere, added up.
    raw: the line it was written as, "" where it was none.
    """

    prompt: str
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 30
    scale: float = 7.5
    seed: int | None = None
    more_seeds: tuple[int, ...] = ()
    sampler: str = "ddim"
    original_width: int | None = None
    original_height: int | None = None
    original_width_negative: int | None = None
    original_height_negative: int | None = None
    crop_top: int = 0
    crop_left: int = 0
    strengths: tuple[Multiplier, ...] = ()
    networks: tuple[NamedNetwork, ...] = ()
    hints: tuple[Path, ...] = ()
    image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    rescale: float = 0.0
    start_noise: StartNoise | None = None
    file: str | None = None
    deep_shrink: DeepShrink | None = None
    gradual: GradualLatent | None = None
    raw: str = field(default="", compare=False)
    highres: HighresFix | None = None
    second_strength: float | None = None
    negative_scale: float | None = None
    regions: Regions | None = None
    choices: Choices | None = field(default=None, compare=False, repr=False)

    def chosen(self, seed: int) -> list[PromptRequest]:
        """The request with the choices of its prompt made by a seed; several where it enumerates.

        Raises UserError when what is chosen cannot be used.
        """
        return [self] if self.choices is None else self.choices.made(self, seed)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Original height and width, crop top and left, target height and width."""
        height, width = self.original_height or self.height, self.original_width or self.width
        return height, width, self.crop_top, self.crop_left, self.height, self.width

    @property
    def sizes_negative(self) -> tuple[int, ...]:
        """The same for the negative prompt."""
        height, width, *others = self.sizes
        return self.original_height_negative or height, self.original_width_negative or width, *others

    @property
    def is_guided(self) -> bool:
        """Whether the negative prompt counts: guidance at scale 1 is the plain prediction."""
        return self.scale != 1

    def with_hints(self, hints: tuple[Path, ...]) -> PromptRequest:
        return replace(self, hints=hints)

    @property
    def chosen_strength(self) -> float:
        """The strength, 1 where nobody has chosen one."""
        return 1.0 if self.strength is None else self.strength

    @property
    def chosen_seed(self) -> int:
        """The seed. Only once somebody has chosen one."""
        assert self.seed is not None
        return self.seed
