"""What a command prints while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.console import Level
from library.options.fields import option


@dataclass(frozen=True)
class ConsoleOptions:
    """Console."""

    console_log_level: Level | None = option(
        None, "say only what is at least as grave (default INFO); progress bars are INFO"
    )
    console_log_file: Path | None = option(
        None, "write lines and warnings to this file instead of the console", metavar="FILE"
    )
    console_log_simple: bool = option(False, "progress as lines, for logs and terminals that cannot redraw")
    debug: bool = option(
        False,
        "also lines for finding bugs, as --console_log_level DEBUG; if the program fails, where in its code",
    )
