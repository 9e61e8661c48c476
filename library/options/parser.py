"""Command line and config file -> a Run, a frozen dataclass of option sections. argparse is used here only.

    @dataclass(frozen=True)
    class Run:
        model: ModelOptions
        data: DataOptions

    run = parse(Run, __doc__)

A script's Run names the sections it has. `--config_file x.toml` gives values, the command line wins, and
everything that is wrong is found in one go.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from library import console
from library.options.console import ConsoleOptions
from library.options.fields import OptionSpec, option, sections_of, specs_of, title_of
from library.problems import Problem, UserError, warn_idle, warnings_in_order, without_warnings
from library.secrets import hide_words
from library.wording import shortened

R = TypeVar("R")

# Option name -> (where the user gave it, the raw value: a word, a list of words or a TOML value).
Given = dict[str, tuple[str, Any]]
_MOST_UNKNOWN = 10  # keys of a file that each have a message
# (section class, the sections before it, by name) -> values of its fields that are no options.
Facts = Callable[[type, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class ConfigFileOptions:
    """Options from a file."""

    config_file: str | None = option(None, "TOML file with options; the command line wins", metavar="FILE")
    output_config: bool = option(False, "write the options to --config_file and stop")


def parse(run_type: type[R], doc: str | None = None, argv: Sequence[str] | None = None) -> R:
    """The Run that the command line asks for. Raises UserError with every problem of the command line and the
    config file; --help and --output_config end the program.

    doc: the script's docstring, which --help shows.
    argv: the words after the program's name; None: those of sys.argv.
    """
    with warnings_in_order():
        reading = read_command_line(run_type, doc, argv)
        if reading.problems:
            raise UserError(reading.problems)
        return reading.run


@dataclass
class Reading(Generic[R]):
    """What a command line gave.

    run_type: the class of the Run.
    sections: those without problems, by field name.
    problems: what is wrong with the others.
    """

    run_type: type[R]
    sections: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def run(self) -> R:
        """The Run; there must be no problems. Raises UserError if its sections do not fit together."""
        assert not self.problems
        return self.run_type(**self.sections)


def read_command_line(
    run_type: type[R],
    doc: str | None = None,
    argv: Sequence[str] | None = None,
    *,
    facts: Facts = lambda section, earlier: {},
) -> Reading[R]:
    """Like `parse`, but returns problems instead of raising them, so that a caller can look for more.

    facts: what a section's checks need to know besides its options, such as what the model takes.
    """
    reading: Reading[R] = Reading(run_type)
    specs = [spec for section in all_sections(run_type) for spec in specs_of(section)]
    given = _split_words(sys.argv[1:] if argv is None else argv, specs, reading.problems)
    if "help" in given:
        _help_parser(run_type, doc).print_help()
        sys.exit(0)
    by_name = {spec.name: spec for section in sections_of(run_type).values() for spec in specs_of(section)}
    _hide_tokens(sys.argv, given, by_name)

    config_file = given.pop("config_file", ("", None))[1]
    output_config = given.pop("output_config", None)
    from_file: Given | None = {}
    if config_file and not output_config:
        from_file = _from_config_file(config_file, by_name, reading.problems)
    before = len(reading.problems)
    _build_sections(reading, (from_file or {}) | given, facts)
    if from_file is None:  # what seems to be missing may stand in it
        named = {where for where, _ in given.values()}
        reading.problems[before:] = [p for p in reading.problems[before:] if p.where in named]
    if output_config and not reading.problems:
        from library.options.config_file import write_config_file

        target = write_config_file(config_file, reading.sections)
        print(f"wrote {target}; run it with --config_file {target}")
        sys.exit(0)
    return reading


def all_sections(run_type: type) -> list[type]:
    """The section classes of a Run class, with --config_file unless it has positional options."""
    sections = list(sections_of(run_type).values())
    has_positional = any(spec.positional for section in sections for spec in specs_of(section))
    return sections if has_positional else [*sections, ConfigFileOptions]


def _split_words(words: Sequence[str], specs: list[OptionSpec], problems: list[Problem]) -> Given:
    """Sort the words of a command line by option; only "help" if it asks for that. The values stay texts;
    `OptionSpec.read` converts them later.
    """
    by_flag = {flag: spec for spec in specs for flag in (spec.flag, *spec.aliases) if not spec.positional}
    positionals = [spec for spec in specs if spec.positional]
    given: Given = {}
    index = 0
    while index < len(words):
        word, index = words[index], index + 1
        if word in ("-h", "--help"):
            return {"help": (word, True)}
        flag, equals, value = word.partition("=")
        flag = _underscored(flag, by_flag)
        spec = by_flag.get(flag)
        # Up to the next option. One dash begins a value: a negative number.
        end = next((i for i in range(index, len(words)) if words[i].startswith("--")), len(words))
        if not word.startswith("--"):
            if positionals:
                spec = positionals.pop(0)
                given[spec.name] = (spec.flag, word)
            else:
                problems.append(
                    Problem(_shown(word), "is a value without an option", _meant_option(flag, by_flag))
                )
        elif spec is None:
            asked = value if equals else list(words[index:end]) or True
            beside = [other.partition("=")[0].removeprefix("--") for other in words]
            _explain_unknown(_shown(flag), flag[2:], asked, known=by_flag, beside=beside, problems=problems)
            index = end
        elif spec.is_switch:
            if not equals and index < end and words[index].lower() in ("true", "false"):
                equals, value, index = "=", words[index], index + 1
            given[spec.name] = (flag, value if equals else True)
        elif spec.is_list:
            given[spec.name] = (flag, [value] if equals else list(words[index:end]))
            index = index if equals else end
        elif equals or index < end:
            given[spec.name] = (flag, value if equals else words[index])
            index = index if equals else index + 1
        elif spec.bare is not None:
            given[spec.name] = (flag, spec.bare)
        else:
            problems.append(Problem(flag, "needs a value"))
    return given


def _shown(word: str) -> str:
    """A word that may be anything, as messages name it."""
    return shortened(word.replace("\n", "\\n"))


def _underscored(flag: str, by_flag: Mapping[str, OptionSpec]) -> str:
    """The flag with underscores where it was written with hyphens."""
    plain = "--" + flag[2:].replace("-", "_")
    return plain if flag.startswith("--") and flag not in by_flag and plain in by_flag else flag


def _meant_option(word: str, by_flag: Mapping[str, OptionSpec]) -> str:
    """What to do about a word that looks like an option with another dash (-x, –x, —x), or ""."""
    name = _underscored("--" + word.lstrip("-\u2010\u2011\u2012\u2013\u2014\u2212"), by_flag)
    return f"write {name}, with two plain hyphens" if name in by_flag else ""


def _hide_tokens(words: list[str], given: Given, by_name: dict[str, OptionSpec]) -> None:
    """Take tokens out of sys.argv, which trackers and other libraries write down."""
    tokens = [given[name] for name, spec in by_name.items() if spec.is_secret and name in given]
    hide_words(words, [(flag, str(token)) for flag, token in tokens])


def _from_config_file(
    config_file: str, by_name: dict[str, OptionSpec], problems: list[Problem]
) -> Given | None:
    """What a config file gives; None if it cannot be read."""
    from library.options.config_file import read_config_file
    from library.options.elsewhere import commands_with
    from library.options.foreign_config import IGNORED, is_not_set
    from library.options.unavailable import REFUSED
    from library.options.unset import asks_nothing
    from library.table_files import PATH_FIX

    try:
        path, values = read_config_file(config_file)
    except UserError as error:
        problems.extend(error.problems)
        return None
    by_key = {name: spec for name, spec in by_name.items() if not spec.positional}
    by_key |= {alias.removeprefix("--"): spec for spec in by_name.values() for alias in spec.aliases}
    given: Given = {}
    unknown: list[str] = []
    for key, value in values.items():
        where = f"{path.name}: {_shown(key)}"
        if key in by_key:
            spec = by_key[key]
            if spec.is_path and isinstance(value, str) and re.search(r"[\x08\t\n\x0c\r]", value):
                cause = f"is {shortened(repr(value))}: a \\ in double quotes begins a special character"
                problems.append(Problem(where, cause, PATH_FIX[".toml"]))
            elif not is_not_set(key, value):
                given[spec.name] = (where, value)
        elif is_not_set(key, value) or asks_nothing(value):
            continue
        elif key in IGNORED:
            warn_idle(f"{where}:", IGNORED[key])
        elif key not in REFUSED and (others := commands_with(key)):
            warn_idle(f"{where}:", f"it is for {others}")
        else:
            unknown.append(key)
    beside = [key for key, value in values.items() if not asks_nothing(value)]
    for key in unknown[:_MOST_UNKNOWN]:
        where = f"{path.name}: {_shown(key)}"
        _explain_unknown(where, key, values[key], known=by_key, beside=beside, problems=problems)
    if (more := len(unknown) - _MOST_UNKNOWN) > 0:
        problems.append(
            Problem(path.name, f"and {more:,} more keys: there are no such options", "see --help")
        )
    return given


def _explain_unknown(
    where: str,
    name: str,
    value: object,
    *,
    known: Collection[str],
    beside: Collection[str],
    problems: list[Problem],
) -> None:
    """Add the problem of an option that there is not; none if its value is its default in sd-scripts, or if
    it does nothing without another one. beside: the names of what is given with it.
    """
    from library.options.elsewhere import commands_with
    from library.options.foreign_config import IGNORED
    from library.options.unavailable import REFUSED, asks_for

    refusal = REFUSED.get(name)
    if refusal is None and (others := commands_with(name)):
        problems.append(Problem(where, f"is an option of {others}", "remove it"))
    elif refusal is None:
        word = where if where.startswith("--") else name
        close = difflib.get_close_matches(word[:100], known, n=1, cutoff=0.7)
        close = close or [option for option in known if len(name) > 3 and option.startswith(word)]
        hint = IGNORED.get(name) or (f"did you mean {close[0]}?" if close else "see --help")
        problems.append(Problem(where, "there is no such option", hint))
    elif refusal.only_with and refusal.only_with not in beside:
        if asks_for(value, refusal.default):
            warn_idle(where if where.startswith("--") else f"{where}:", f"without --{refusal.only_with}")
    elif asks_for(value, refusal.default):
        problems.append(Problem(where, refusal.cause, refusal.fix))


def _build_sections(reading: Reading[R], given: Given, facts: Facts) -> None:
    """Convert the raw values and construct each section, whose own checks add their problems.

    A section with a value that could not be read is left out.
    """
    console.set_up()
    classes = sections_of(reading.run_type)
    # The console first: the checks of the others may warn.
    for name, section in sorted(classes.items(), key=lambda item: item[1] is not ConsoleOptions):
        read, unread = _read_values(section, given, reading.problems)
        values = {**facts(section, reading.sections), **read}
        if unread:
            reading.problems.extend(_certain_problems(section, values, unread))
            continue
        try:
            reading.sections[name] = section(**values)
            if section is ConsoleOptions:
                _set_up_console(reading.sections[name])
        except UserError as error:
            reading.problems.extend(error.problems)


def _read_values(section: type, given: Given, problems: list[Problem]) -> tuple[dict[str, object], list[str]]:
    """A section's values by option name, and the flags of those that could not be read."""
    values: dict[str, object] = {}
    unread: list[str] = []
    for spec in specs_of(section):
        if spec.name in given:
            where, raw = given[spec.name]
            try:
                values[spec.name] = spec.read(raw)
            except ValueError as error:
                problems.append(Problem(where, str(error)))
                unread.append(spec.flag)
    return values, unread


def _set_up_console(options: ConsoleOptions) -> None:
    level: console.Level = "DEBUG" if options.debug else options.console_log_level or "INFO"
    file = options.console_log_file
    try:
        console.set_up(level, file, is_simple=options.console_log_simple)
    except OSError as error:
        cause = f"cannot be written to ({error.strerror})"
        raise UserError.of(f"--console_log_file {file}", cause, "choose another file") from None


def _certain_problems(section: type, values: dict[str, object], unread: list[str]) -> list[Problem]:
    """What else is wrong with a section of which some values could not be read. Their defaults stand in for
    them, so a problem that names one of these options may not be one.
    """
    try:
        with without_warnings():  # which need not be true either
            section(**values)
    except UserError as error:
        named = [re.compile(rf"{re.escape(flag)}(?!\w)") for flag in unread]
        return [problem for problem in error.problems if not any(p.search(str(problem)) for p in named)]
    return []


def _help_parser(run_type: type, doc: str | None) -> argparse.ArgumentParser:
    """argparse only lays out --help. The words are read above, for argparse stops at the first mistake."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=_HelpFormatter, add_help=False)
    for section in all_sections(run_type):
        group = parser.add_argument_group(title_of(section))
        for spec in specs_of(section):
            _describe(group, spec)
    return parser


def _describe(group: argparse._ArgumentGroup, spec: OptionSpec) -> None:
    text = spec.help
    if spec.default_text is not None:
        text += f" (default {spec.default_text})"
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

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        positionals = " ".join(str(action.metavar) for action in actions if not action.option_strings)
        return f"usage: python {self._prog} [options] {positionals}".rstrip() + "\n\n"
