"""What is wrong with a user's inputs, said in one line each: *file: cause; fix*.

Checks collect `Problem`s instead of stopping at the first; a command shows them all together and exits with
code 2.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from library import console
from library.secrets import hide_tokens
from library.stopping import Stopped, exit_code, signals_stop

T = TypeVar("T")

EXIT_CODE = 2


@dataclass(frozen=True)
class Problem:
    """One thing the user has to mend.

    where: the file, folder or option it is about; cause: what is wrong with it; fix: what to do next, may be
    empty.
    """

    where: str
    cause: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.cause}"
        return f"{text}; {self.fix}" if self.fix else text


class UserError(Exception):
    """Inputs that cannot be used. Carries the problems to show; never shown as a traceback."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    @classmethod
    def of(cls, where: object, cause: str, fix: str = "") -> UserError:
        """A UserError with a single problem."""
        return cls([Problem(str(where), cause, fix)])


@dataclass
class Problems:
    """A collector. `attempt` runs a check and keeps what it complains about, so that the next check still
    runs.
    """

    found: list[Problem] = field(default_factory=list)

    def add(self, where: object, cause: str, fix: str = "") -> None:
        self.found.append(Problem(str(where), cause, fix))

    def attempt(self, check: Callable[..., T], *args, **kwargs) -> T | None:
        """The check's result, or None after its problems were kept."""
        try:
            return check(*args, **kwargs)
        except UserError as error:
            self.found.extend(error.problems)
            return None

    def raise_if_any(self) -> None:
        """Raises UserError with everything found so far, each line once."""
        if self.found:
            raise UserError(dict.fromkeys(self.found))


def run_command(main: Callable[[], None], *, unfinished: str = "") -> None:
    """Run a command's main() the way its user should see it: problems as lines on stderr, exit code 2, no
    traceback.

    Ctrl-C and SIGTERM end it with one line and code 130 or 143. unfinished: what to say about its work then.
    Of several processes only the first on each machine prints.
    """
    quiet_libraries()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console or pipe that cannot show every file name
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with signals_stop():
            main()
    except KeyboardInterrupt as stop:
        if is_first:
            kept = (stop.kept if isinstance(stop, Stopped) else "") or unfinished
            console.fail(f"\nstopped: {kept}" if kept else "\nstopped")
        sys.exit(exit_code(stop))
    except UserError as error:
        if is_first:
            count = len(error.problems)
            console.fail(f"{count} problem{'s' if count > 1 else ''} found:")
            for problem in error.problems:
                console.fail(f"  {hide_tokens(str(problem))}")
        sys.exit(EXIT_CODE)


def quiet_libraries() -> None:
    """Libraries warn about things our users did not ask for; these say nothing about a run."""
    # bitsandbytes, on every import without a GPU: an optional kernel for 4-bit layers, which are not used
    # here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # bitsandbytes again: we say it in our own words.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    # Pillow, about images that it reads all the same; what it cannot read is a Problem.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # transformers, when diffusers looks at it: image processors that would rather have torchvision.
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)


def warn(message: str) -> None:
    """One line about something the user may not expect, from the first process only."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        console.warn(hide_tokens(message))
