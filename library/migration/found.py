"""What another program's file asks for, in Atelier's words: the type that every reader returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from library.options.unset import asks_nothing
from library.problems import UserError

Table = dict[str, Any]


@dataclass
class Found:
    """The settings of one run.

    program: whose file it is, as users call it.
    trainer: the trainer's file name, such as train_network.py.
    options: by option name, as raw values: texts, numbers, booleans or lists of them.
    datasets: `[[datasets]]` of a dataset file, each with its `subsets`; empty if options name the pictures.
    general: the dataset file's `[general]`.
    prompts: lines of a prompt file.
    launch: the words in front of the trainer's name in the command.
    changes: what is written differently, a line each.
    idle: settings without effect, by name.
    missing: what asks for something that is not there, a line each.
    secrets: tokens and passwords that were in it, which are never shown.
    """

    program: str
    trainer: str = "train_network.py"
    options: Table = field(default_factory=dict)
    datasets: list[Table] = field(default_factory=list)
    general: Table = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    launch: list[str] = field(default_factory=lambda: ["accelerate", "launch"])
    changes: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


class Settings:
    """A table of a foreign file. It remembers which keys were read, so that none is dropped in silence.

    values: the table; anything else counts as an empty one.
    name: where it stands in the file, with a dot behind; empty for the file itself.
    """

    def __init__(self, values: object, name: str = "") -> None:
        self.values: Mapping[str, Any] = values if isinstance(values, dict) else {}
        self.name = name
        self._read: set[str] = set()
        self._ignored: set[str] = set()
        self._unchosen: dict[str, object] = {}
        self._inner: list[Settings] = []
        self._tables: dict[str, Settings] = {}

    def take(self, key: str, default: Any = None) -> Any:
        """A raw value; the default where it is absent or stands for "not given"."""
        self._read.add(key)
        value = self.values.get(key)
        return default if value is None or value == "" else value

    def number(self, key: str, default: float = 0) -> float:
        """A finite number. Raises UserError for anything else."""
        value = self.take(key, default)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError.of(
                f"{self.name}{key}", f"expects a number, got {str(value)[:60]!r}", "mend it there"
            )
        return int(number) if number.is_integer() else number

    def text(self, key: str) -> str:
        """A value as text; empty where it is not given."""
        value = self.take(key, "")
        return value.strip() if isinstance(value, str) else str(value)

    def is_on(self, key: str, default: bool = False) -> bool:
        """Whether a switch is on: programs write true, 1 or their texts."""
        return str(self.take(key, default)).lower() in ("true", "1", "1.0")

    def table(self, key: str) -> Settings:
        """A table inside; empty if there is none."""
        if key not in self._tables:
            self._tables[key] = Settings(self.take(key), f"{self.name}{key}.")
            self._inner.append(self._tables[key])
        return self._tables[key]

    def tables(self, key: str) -> list[Settings]:
        """A list of tables inside."""
        inner = [Settings(row, f"{self.name}{key}[{number}].") for number, row in enumerate(self.rows(key))]
        self._inner += inner
        return inner

    def ignore(self, *keys: str) -> None:
        """These change nothing here. They are named as such where they ask for something."""
        self._ignored.update(keys)

    def unchosen(self, values: Mapping[str, object]) -> None:
        """What the program writes where nothing was chosen: a key with this value asks for nothing."""
        self._unchosen |= values

    def rows(self, key: str) -> list[Any]:
        """A list of anything; empty if it is none."""
        value = self.take(key)
        return value if isinstance(value, list) else []

    def unread(self) -> list[str]:
        """The keys that nobody read or ignored and that ask for something, with their tables' names."""
        return self._asking(is_ignored=False)

    def idle(self) -> list[str]:
        """The ignored keys that ask for something, with their tables' names."""
        return self._asking(is_ignored=True)

    def _asking(self, *, is_ignored: bool) -> list[str]:
        own = [
            f"{self.name}{key}"
            for key, value in self.values.items()
            if key not in self._read
            and (key in self._ignored) is is_ignored
            and not asks_nothing(value)
            and not is_same(value, self._unchosen.get(key))
        ]
        inner = [table._asking(is_ignored=is_ignored) for table in self._inner]
        return own + [key for keys in inner for key in keys]


def is_same(value: object, other: object) -> bool:
    """Whether two values are equal, where numbers may be texts."""
    return value == other or str(value).lower().removesuffix(".0") == str(other).lower().removesuffix(".0")
