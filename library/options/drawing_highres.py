"""Highres fix: a picture is drawn small, enlarged, and drawn on in its whole size."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse, warn_when


@dataclass(frozen=True)
class HighresOptions:
    """Highres fix."""

    highres_fix_scale: float | None = option(
        None, "draw pictures in this share of their size first, enlarge them, and draw on", metavar="X"
    )
    highres_fix_steps: int = option(28, "steps of the small pictures", metavar="N")
    highres_fix_strength: float | None = option(
        None,
        "how much the small pictures change those of --image_path (default: --strength); how much the large "
        "ones change the small ones is --strength",
        metavar="X",
    )
    highres_fix_save_1st: bool = option(False, "save the small pictures too")
    highres_fix_latents_upscaling: bool = option(
        False, "enlarge latents, not pictures; needs a --strength of 0.5 or more"
    )
    highres_fix_upscaler: str | None = option(
        None,
        "module that enlarges: with create_upscaler(**arguments), such as tools.latent_upscaler",
        metavar="MODULE",
    )
    highres_fix_upscaler_args: str | None = option(
        None, "arguments of the upscaler: name=value;name=value", metavar="K=V;..."
    )
    highres_fix_disable_control_net: bool = option(False, "draw the large pictures without ControlNets")

    def __post_init__(self) -> None:
        pieces = [piece for piece in (self.highres_fix_upscaler_args or "").split(";") if piece.strip()]
        scale, strength = self.highres_fix_scale, self.highres_fix_strength
        refuse(
            (scale is not None and not 0 < scale < 1, "highres_fix_scale", "must be above 0 and below 1"),
            (strength is not None and not 0 <= strength <= 1, "highres_fix_strength", "must be from 0 to 1"),
            (not 1 <= self.highres_fix_steps <= 1000, "highres_fix_steps", "must be from 1 to 1000"),
            (
                self.highres_fix_upscaler and self.highres_fix_latents_upscaling,
                "highres_fix_upscaler",
                "contradicts --highres_fix_latents_upscaling",
            ),
            (
                any("=" not in piece for piece in pieces),
                "highres_fix_upscaler_args",
                "expects name=value;name=value",
            ),
            *below(1, self, "highres_fix_steps"),
        )
        given = {
            "highres_fix_strength": strength is not None,
            "highres_fix_save_1st": self.highres_fix_save_1st,
            "highres_fix_latents_upscaling": self.highres_fix_latents_upscaling,
            "highres_fix_upscaler": self.highres_fix_upscaler,
            "highres_fix_disable_control_net": self.highres_fix_disable_control_net,
        }
        without = "has no effect without --highres_fix_scale"
        warn_when(
            *((value and scale is None, name, without) for name, value in given.items()),
            (
                pieces and self.highres_fix_upscaler is None,
                "highres_fix_upscaler_args",
                "has no effect without --highres_fix_upscaler",
            ),
        )

    @property
    def upscaler_arguments(self) -> dict[str, str]:
        """The upscaler's arguments by name."""
        pieces = [piece.partition("=") for piece in (self.highres_fix_upscaler_args or "").split(";")]
        return {name.strip(): value.strip() for name, separator, value in pieces if separator}
