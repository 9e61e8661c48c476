"""What a network must leave as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import Check, below, option, refuse, warn_when

Kind = Literal["class", "blank", "both"]


@dataclass(frozen=True)
class PreservationOptions:
    """What the network leaves as it is."""

    preserve: Kind | None = option(
        None,
        "teach the network, with each picture, to give what the model gave without it. class: for the "
        "caption with a class word in the trigger's place; blank: for an empty caption; both: one of the two",
    )
    preserve_trigger: str | None = option(
        None,
        "the words that name what is learned (default: the first of a folder's name, as of 10_sks dog)",
        metavar="WORDS",
    )
    preserve_class: tuple[str, ...] = option(
        (),
        "what else the trigger could have been, several words or phrases; one is drawn each time (default: "
        "the rest of the folder's name)",
        metavar="WORDS",
    )
    preserve_weight: float = option(1.0, "how much it counts beside what is learned", metavar="X")
    preserve_share: float = option(1.0, "share of the steps with it, 0 to 1: less is faster", metavar="X")

    def __post_init__(self) -> None:
        refuse(*self._checks())
        given = {
            "preserve_trigger": self.preserve_trigger is not None,
            "preserve_class": bool(self.preserve_class),
            "preserve_weight": self.preserve_weight != 1,
            "preserve_share": self.preserve_share != 1,
        }
        idle = "has no effect without --preserve"
        warn_when(*((is_given and self.preserve is None, name, idle) for name, is_given in given.items()))
        is_blank = self.preserve == "blank"
        warn_when(
            (
                is_blank and given["preserve_trigger"],
                "preserve_trigger",
                "has no effect with --preserve blank",
            ),
            (is_blank and given["preserve_class"], "preserve_class", "has no effect with --preserve blank"),
        )

    @property
    def uses_classes(self) -> bool:
        return self.preserve in ("class", "both")

    def _checks(self) -> list[Check]:
        trigger = (self.preserve_trigger or "").strip().casefold()
        words = [word.strip().casefold() for word in self.preserve_class]
        return [
            (self.preserve_trigger is not None and not trigger, "preserve_trigger", "is blank"),
            ("" in words, "preserve_class", "has a blank word"),
            (
                bool(trigger) and trigger in words,
                "preserve_class",
                "names the trigger: nothing is kept",
            ),
            *below(0, self, "preserve_weight"),
            (not 0 < self.preserve_share <= 1, "preserve_share", "must be above 0, to 1"),
        ]
