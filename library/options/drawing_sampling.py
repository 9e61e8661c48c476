"""Sampling: schedules, and the noise that pictures begin with."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse, warn_when
from library.options.samplers import Schedule

Range = tuple[float, ...]


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling."""

    sampler_schedule: Schedule | None = option(
        None,
        "how the sampler's steps are spaced, where it takes another than its own; as in 'DPM++ 2M Karras'",
    )
    guidance_rescale: float = option(
        0.0,
        "bring the guided prediction's contrast back to that of the prompt's own, by this share (0.7 for "
        "models with --zero_terminal_snr)",
        metavar="X",
    )
    zero_terminal_snr: bool = option(
        False, "begin with pure noise, for models that were trained with it and whose files do not say so"
    )
    noise_offset_prob: float | None = option(
        None, "probability that a picture's first noise is made lighter or darker", metavar="X"
    )
    noise_offset_range: Range | None = option(
        None, "least and largest number that is then added to it", metavar="X"
    )
    pyramid_noise_prob: float | None = option(
        None, "probability that a picture's first noise gets coarser noise too", metavar="X"
    )
    pyramid_noise_discount_range: Range | None = option(
        None, "least and largest strength of each coarser level beside the finer one", metavar="X"
    )
    force_scheduler_zero_steps_offset: bool = option(
        False, "accepted for compatibility: with --strength the noise is always that of the first step"
    )

    def __post_init__(self) -> None:
        pairs = {"noise_offset": self.noise_offset_range, "pyramid_noise": self.pyramid_noise_discount_range}
        names = {"noise_offset": "noise_offset_range", "pyramid_noise": "pyramid_noise_discount_range"}
        shares = ("noise_offset_prob", "pyramid_noise_prob", "guidance_rescale")
        refuse(
            *(
                (given is not None and len(given) != 2, names[kind], "expects two numbers, the least first")
                for kind, given in pairs.items()
            ),
            *(
                (given is not None and list(given) != sorted(given), names[kind], "the least comes first")
                for kind, given in pairs.items()
            ),
            *below(0, self, *shares),
            *((_above_one(getattr(self, name)), name, "must be at most 1") for name in shares),
            *(
                (getattr(self, f"{kind}_prob") and given is None, f"{kind}_prob", f"needs --{names[kind]}")
                for kind, given in pairs.items()
            ),
        )
        warn_when(
            *(
                (
                    given and not getattr(self, f"{kind}_prob"),
                    names[kind],
                    f"has no effect without --{kind}_prob",
                )
                for kind, given in pairs.items()
            ),
            (
                self.force_scheduler_zero_steps_offset,
                "force_scheduler_zero_steps_offset",
                "has no effect: with --strength the noise is always that of the first step",
            ),
        )


def _above_one(value: float | None) -> bool:
    return value is not None and value > 1
