"""Command line and config file -> a Run: a frozen dataclass of frozen option sections. argparse lives here
and nowhere else.

    @dataclass(frozen=True)
    class Run:
        model: ModelOptions
        data: DataOptions

    run = parse(Run, __doc__)

A script's Run names the sections it has. `--config_file x.toml` gives values, the command line wins, and
everything
that is wrong is found in one go.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from library import console
from library.options.config_file import read_config_file, write_config_file
from library.options.console import ConsoleOptions
from library.options.fields import OptionSpec, option, sections_of, specs_of, title_of
from library.options.foreign_config import IGNORED, is_not_set
from library.options.unavailable import asks_for, refusal_of
from library.problems import Problem, UserError, warn
from library.secrets import hide_words

R = TypeVar("R")

Given = dict[str, tuple[str, Any]]  # option name -> (where the user said it, the raw value)
# (section class, the sections before it, by name) -> values of its fields that are no options
Facts = Callable[[type, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class ConfigFileOptions:
    """Options from a file."""

    config_file: str | None = option(None, "TOML file with options; the command line wins", metavar="FILE")
    output_config: bool = option(False, "write the options to --config_file and stop")


def parse(run_type: type[R], doc: str | None = None, argv: Sequence[str] | None = None) -> R:
    """The Run that the command line asks for.

    doc: the script's docstring, shown by --help. argv: words after the program's name, default sys.argv's.
    Raises UserError with every problem of the command line and the config file. --help and --output_config
    end the program.
    """
    reading = read_command_line(run_type, doc, argv)
    if reading.problems:
        raise UserError(reading.problems)
    return reading.run


@dataclass
class Reading(Generic[R]):
    """What a command line gave: the sections that are whole, and what is wrong with the others."""

    run_type: type[R]
    sections: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def run(self) -> R:
        """The Run. Only when there are no problems."""
        assert not self.problems
        return self.run_type(**self.sections)


def read_command_line(
    run_type: type[R],
    doc: str | None = None,
    argv: Sequence[str] | None = None,
    *,
    facts: Facts = lambda section, earlier: {},
) -> Reading[R]:
    """Like `parse`, but gives problems back instead of raising them, so that a caller can look for further
    ones.

    facts: what a section's checks need to know besides its options, such as what the model takes.
    """
    by_name = {spec.name: spec for section in sections_of(run_type).values() for spec in specs_of(section)}
    commands = [] if any(spec.positional for spec in by_name.values()) else specs_of(ConfigFileOptions)
    reading: Reading[R] = Reading(run_type)
    words = list(sys.argv[1:] if argv is None else argv)
    given = _split_words(words, [*by_name.values(), *commands], run_type, doc, reading.problems)
    _hide_tokens(sys.argv, given, by_name)

    config_file = given.pop("config_file", ("", None))[1]
    output_config = given.pop("output_config", None)
    if config_file and not output_config:
        given = _from_config_file(config_file, by_name, reading.problems) | given
    _build_sections(reading, given, facts)
    if output_config and not reading.problems:
        target = write_config_file(config_file, reading.sections)
        print(f"wrote {target}; run it with --config_file {target}")
        sys.exit(0)
    return reading


def _split_words(
    words: list[str], specs: list[OptionSpec], run_type: type, doc: str | None, problems: list[Problem]
) -> Given:
    """Sort the words of a command line by option. All stays text; `OptionSpec.read` converts it later."""
    by_flag = {flag: spec for spec in specs for flag in (spec.flag, *spec.aliases) if not spec.positional}
    positionals = [spec for spec in specs if spec.positional]
    given: Given = {}
    index = 0
    while index < len(words):
        word, index = words[index], index + 1
        if word in ("-h", "--help"):
            _help_parser(run_type, doc).print_help()
            sys.exit(0)
        flag, equals, value = word.partition("=")
        spec = by_flag.get(flag)
        end = next((i for i in range(index, len(words)) if words[i].startswith("--")), len(words))
        if not word.startswith("--"):
            if positionals:
                spec = positionals.pop(0)
                given[spec.name] = (spec.flag, word)
            else:
                problems.append(Problem(word, "is a value without an option"))
        elif spec is None:
            _explain_unknown(flag, flag[2:], value if equals else words[index:end] or True, by_flag, problems)
            index = end
        elif spec.is_switch:
            given[spec.name] = (flag, True)
            if equals:
                problems.append(Problem(flag, "takes no value"))
        elif spec.is_list:
            given[spec.name] = (flag, [value] if equals else words[index:end])
            index = index if equals else end
        elif equals or index < end:
            given[spec.name] = (flag, value if equals else words[index])
            index = index if equals else index + 1
        elif spec.bare is not None:
            given[spec.name] = (flag, spec.bare)
        else:
            problems.append(Problem(flag, "needs a value"))
    return given


def _hide_tokens(words: list[str], given: Given, by_name: dict[str, OptionSpec]) -> None:
    """Take tokens out of the program's own words, which trackers and other libraries write down."""
    tokens = [given[name] for name, spec in by_name.items() if spec.is_secret and name in given]
    hide_words(words, [(flag, str(token)) for flag, token in tokens])


def _from_config_file(config_file: str, by_name: dict[str, OptionSpec], problems: list[Problem]) -> Given:
    try:
        path, values = read_config_file(Path(config_file))
    except UserError as error:
        problems.extend(error.problems)
        return {}
    by_key = {name: spec for name, spec in by_name.items() if not spec.positional}
    by_key |= {alias.removeprefix("--"): spec for spec in by_name.values() for alias in spec.aliases}
    given: Given = {}
    for key, value in values.items():
        where = f"{path.name}: {key}"
        if is_not_set(key, value):
            continue
        if key in by_key:
            given[by_key[key].name] = (where, value)
        elif key in IGNORED:
            warn(f"{where} is passed over: {IGNORED[key]}")
        else:
            _explain_unknown(where, key, value, by_key, problems)
    return given


def _explain_unknown(
    where: str, name: str, value: Any, known: Iterable[str], problems: list[Problem]
) -> None:
    refusal = refusal_of(name)
    if refusal is None:
        word = where if where.startswith("--") else name
        close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
        close = close or [option for option in known if option.startswith(word)]
        hint = f"did you mean {close[0]}?" if close else "see --help"
        problems.append(Problem(where, "there is no such option", hint))
    elif asks_for(value, refusal.default):
        problems.append(Problem(where, refusal.cause, refusal.fix))


def _build_sections(reading: Reading, given: Given, facts: Facts) -> None:
    """Convert the raw values and construct each section, whose own checks add their problems.

    A section with a value that could not be read is left out.
    """
    console.set_up()
    classes = sections_of(reading.run_type)
    # The console first: the others may have something to say.
    for name, section in sorted(classes.items(), key=lambda item: item[1] is not ConsoleOptions):
        values, unread = dict(facts(section, reading.sections)), set()
        for spec in specs_of(section):
            if spec.name not in given:
                continue
            where, raw = given[spec.name]
            try:
                values[spec.name] = spec.read(raw)
            except ValueError as error:
                reading.problems.append(Problem(where, str(error)))
                unread.add(spec.flag)
        if unread:
            reading.problems.extend(_certain_problems(section, values, unread))
            continue
        try:
            reading.sections[name] = section(**values)
            if section is ConsoleOptions:
                _set_up_console(reading.sections[name])
        except UserError as error:
            reading.problems.extend(error.problems)


def _set_up_console(options: ConsoleOptions) -> None:
    level, file = options.console_log_level or "INFO", options.console_log_file
    try:
        console.set_up(level, file, is_simple=options.console_log_simple)
    except OSError as error:
        cause = f"cannot be written to ({error.strerror})"
        raise UserError.of(f"--console_log_file {file}", cause, "choose another file") from None


def _certain_problems(section: type, values: dict[str, Any], unread: set[str]) -> list[Problem]:
    """What is wrong with a section's values besides those that could not be read: problems that speak of one
    of these, in whose place the default stands, may be untrue.
    """
    try:
        with redirect_stderr(io.StringIO()):  # so may warnings
            section(**values)
    except UserError as error:
        named = [re.compile(rf"{re.escape(flag)}(?!\w)") for flag in unread]
        return [problem for problem in error.problems if not any(p.search(str(problem)) for p in named)]
    return []


def _help_parser(run_type: type, doc: str | None) -> argparse.ArgumentParser:
    """argparse lays out --help; the words themselves are read above, so that every mistake is found, not the
    first.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=_HelpFormatter, add_help=False)
    sections = list(sections_of(run_type).values())
    if not any(spec.positional for section in sections for spec in specs_of(section)):
        sections.append(ConfigFileOptions)
    for section in sections:
        group = parser.add_argument_group(title_of(section))
        for spec in specs_of(section):
            _describe(group, spec)
    return parser


def _describe(group: argparse._ArgumentGroup, spec: OptionSpec) -> None:
    text = spec.help
    if spec.default not in (None, "", (), False, dataclasses.MISSING):
        text += f" (default {spec.default})"
    text = text.replace("%", "%%")
    metavar = "{" + ",".join(map(str, spec.choices)) + "}" if spec.choices else spec.metavar or "TEXT"
    if spec.positional:
        group.add_argument(spec.name, metavar=spec.metavar or spec.name, help=text)
    elif spec.is_switch:
        group.add_argument(spec.flag, *spec.aliases, action="store_true", help=text)
    else:
        group.add_argument(spec.flag, *spec.aliases, metavar=metavar, help=text)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the script's docstring as written and gives option names room."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=110)

    def _format_usage(self, usage, actions, groups, prefix) -> str:
        positionals = " ".join(str(action.metavar) for action in actions if not action.option_strings)
        return f"usage: python {self._prog} [options] {positionals}".rstrip() + "\n\n"
