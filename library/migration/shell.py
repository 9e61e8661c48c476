"""Commands of sd-scripts' users as bash, PowerShell or batch text -> the words of the command.

Nothing is run. Plain assignments are followed, lists of arguments too; of conditions only comparisons of such
variables are. What could not be resolved is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Dialect = Literal["bash", "powershell", "batch"]
_ESCAPES: dict[Dialect, str] = {"bash": "\\", "powershell": "`", "batch": "^"}
_VARIABLE: dict[Dialect, str] = {
    "bash": r"\$(?:\{(\w+)(?:\[[@*]\]|:?-(?P<default>[^{}]*))?\}|(\w+))",
    "powershell": r"[$@](?:\{(\w+)\}|(?:env:)?(\w+))",
    "batch": r"%(\w+)%|!(\w+)!",
}
# What a console shows in front of a command, copied with it.
_PROMPT = re.compile(
    r"^[ \t]*(\([\w.-]+\)[ \t]*)?"
    r"(PS [^>\n]*>|[A-Za-z]:\\[^>\n]*>|[\w.-]+@[\w.-]+:[^$#\n]*[$#] |[$>] )(?=[ \t]*[\w.])",
    re.M,
)
_LONGEST = 1_000_000  # characters that variables may grow to


@dataclass
class Script:
    """What was found in a text.

    commands: the words of each command, variables replaced.
    unresolved: variables and conditions that could not be followed, each once.
    """

    commands: list[list[str]] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    _variables: dict[str, list[str]] = field(default_factory=dict)
    _branches: list[bool | None] = field(default_factory=list)

    def note(self, what: str) -> None:
        if what not in self.unresolved:
            self.unresolved.append(what)


def read_script(text: str, within: Script | None = None) -> Script:
    """The commands of a script or of a single line. within: the script whose variables it knows."""
    text = _PROMPT.sub("", text)
    dialect = dialect_of(text)
    script = Script() if within is None else Script(_variables=dict(within._variables))
    for line in _statements(text, dialect):
        _read_statement(line, dialect, script)
    return script


def dialect_of(text: str) -> Dialect:
    """Which shell a text is written for."""
    if re.search(r"^\s*(@?echo off|rem |set \"?\w+=|call )|\^\s*$|%\w+%", text, re.M | re.I):
        return "batch"
    if re.search(r"`\s*$|^\s*\$[\w:]+\s*\+?=|\.Add\(|^\s*param\(", text, re.M):
        return "powershell"
    if re.search(r"(^|[\s=\"'])([A-Za-z]:\\|\.\\)", text) and not re.search(r"\\\s*$", text.rstrip(), re.M):
        return "batch"  # a line copied from a Windows prompt
    return "bash"


def _statements(text: str, dialect: Dialect) -> list[str]:
    """The text's statements: continued lines and lists over several lines in one."""
    escape = re.escape(_ESCAPES[dialect])
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if dialect == "powershell":
        text = re.sub(r"<#.*?#>", "", text, flags=re.S)
        text = re.sub(r"\" *\+ *(\$\w+)", r'\1"', text)  # "--a=" + $b
    text = re.sub(rf"(?<!{escape}){escape}[ \t]*\n", " ", text)
    opens = r"\$\w+\s*\+?=\s*@\(" if dialect == "powershell" else r"(?:local |export )?\w+\+?=\("
    statements: list[str] = []
    in_list = False
    for line in text.split("\n"):
        line = line.strip()
        if in_list:
            statements[-1] += "" if line.startswith("#") else " " + line
        elif line:
            statements.append(line)
        if dialect != "batch" and line and re.match(opens, statements[-1]):
            in_list = ")" not in re.sub(r"\"[^\"]*\"|'[^']*'", "", statements[-1].split("(", 1)[1])
    return statements


def _read_statement(line: str, dialect: Dialect, script: Script) -> None:
    if re.match(r"#|::|rem\b", line, re.I) or _follow_branch(line, dialect, script):
        return
    if any(branch is not True for branch in script._branches) or _assign(line, dialect, script):
        return
    for words in split_words(line, dialect, script):
        if words and words[0] == "unset":
            for name in words[1:]:
                script._variables.pop(name.lower(), None)
        elif words:
            script.commands.append(words)


def _follow_branch(line: str, dialect: Dialect, script: Script) -> bool:
    """Whether the line opens, turns or closes a condition, which is remembered."""
    if dialect == "powershell":
        opened = re.match(r"(\})?\s*(else\s*if|elseif|if)\s*\((.*)\)\s*\{(.*)$", line, re.I)
        turned, closed = re.match(r"\}?\s*else\s*\{?$", line, re.I), line == "}"
        again = bool(opened and opened[2].lower() != "if")
    elif dialect == "bash":
        opened = re.match(r"()(if|elif)\s+(.*?)\s*(?:;?\s*\bthen\b(.*))?$", line)
        turned, closed = re.match(r"else$", line), line == "fi"
        again = bool(opened and opened[2] == "elif")
    else:
        opened = re.match(r"()(if)\s+(.*)\s*\($", line, re.I)
        turned, closed, again = re.match(r"\)?\s*else\s*\($", line, re.I), line == ")", False
    if opened:
        earlier = script._branches.pop() if again and script._branches else False
        is_true = False if earlier else _holds(opened[3], dialect, script)
        script._branches.append(is_true if earlier is False else None)
        rest = ((opened[4] or "") if dialect != "batch" else "").strip()
        end = "}" if dialect == "powershell" else "fi"
        if rest.endswith(end):  # all in one line
            _read_statement(rest.removesuffix(end).strip().rstrip(";"), dialect, script)
            script._branches.pop()
        return True
    if turned:
        if script._branches:
            last = script._branches.pop()
            script._branches.append(None if last is None else not last)
        return True
    if closed and script._branches:
        script._branches.pop()
    return closed or (dialect == "bash" and line == "then")


def _holds(condition: str, dialect: Dialect, script: Script) -> bool | None:
    """Whether a condition is true; None if it cannot be told, which is noted."""
    if dialect == "bash":
        condition = re.sub(r"^\[\[?\s+|\s+\]\]?$", "", condition)
    parts = _flat(split_words(condition.replace("==", " == ").replace("  ", " "), dialect, script))
    operators = {"-eq", "==", "=", "-ne", "!=", "equ", "neq"}
    if len(parts) == 3 and parts[1].lower() in operators:
        is_same = parts[0].lower().strip('"') == parts[2].lower().strip('"')
        return is_same is (parts[1].lower() in ("-eq", "==", "=", "equ"))
    if len(parts) == 2 and parts[0] in ("-n", "-z"):
        return bool(parts[1]) is (parts[0] == "-n")
    if dialect == "powershell" and re.fullmatch(r"\$\w+", condition.strip()):
        return bool(parts and parts[0] and parts[0].lower() not in ("0", "false", "$false"))
    script.note(f"if {condition}")
    return None


def _assign(line: str, dialect: Dialect, script: Script) -> bool:
    """Whether the line is a plain assignment, or adds to a list of arguments."""
    if dialect == "powershell":
        if added := re.match(r"(?:\[void\]\s*)?\$(\w+)\.Add\((.*)\)\s*;?$", line, re.I):
            _store(script, added[1], _flat(split_words(added[2], dialect, script)), adds=True)
            return True
        match = re.match(r"\$(?:env:|global:|script:)?(\w+)\s*(\+?)=\s*(.*)$", line, re.I)
    elif dialect == "batch":
        match = re.match(r"@?set\s+(?:/a\s+)?\"?(\w+)()=(.*?)\"?$", line, re.I)
    else:
        match = re.match(
            r"(?:export\s+|local\s+|readonly\s+)?([A-Za-z_]\w*)(\+?)=((?:\(.*|\"[^\"]*\"|'[^']*'|\S*))\s*;?(?:\s+#.*)?$",
            line,
        )
    if match is None:
        return False
    name, adds, value = match[1], bool(match[2]), match[3].strip()
    if dialect == "batch":
        values = [_expand(value, dialect, script)]
    elif is_list := re.match(r"@?\((.*)\)\s*;?(?:#.*)?$", value, re.S):
        items = (
            is_list[1].replace(",", " ") if dialect == "powershell" and '"' not in is_list[1] else is_list[1]
        )
        values = [word for word in _flat(split_words(items, dialect, script)) if word != ","]
    elif re.match(r"\[System|New-Object", value, re.I):
        values = []
    else:
        value = {"$true": "1", "$false": "0", "$null": '""'}.get(value.lower(), value)
        values = [" ".join(_flat(split_words(value, dialect, script)))]
    _store(script, name, values, adds=adds)
    return True


def _store(script: Script, name: str, values: list[str], *, adds: bool) -> None:
    stored = script._variables.get(name.lower(), []) + values if adds else values
    if sum(map(len, stored)) > _LONGEST:
        script.note(f"${name}, which grows too long")
        stored = []
    script._variables[name.lower()] = stored


def _flat(statements: list[list[str]]) -> list[str]:
    return [word for words in statements for word in words]


def split_words(line: str, dialect: Dialect, script: Script) -> list[list[str]]:
    """The words of each command of a line, with quotes removed and variables replaced."""
    commands: list[list[str]] = [[]]
    word: str | None = None
    quote = ""
    place = 0
    while place < len(line):
        sign, place = line[place], place + 1
        variable = re.compile(_VARIABLE[dialect]).match(line, place - 1) if quote != "'" else None
        if sign == _ESCAPES[dialect] and quote != "'" and place < len(line):
            keeps = dialect == "bash" and quote and line[place] not in '$`"\\'
            word, place = (word or "") + ("\\" if keeps else "") + line[place], place + 1
        elif quote:
            if sign == quote:
                quote = ""
            elif variable:
                word, place = (word or "") + " ".join(_value(variable, script)), variable.end()
            else:
                word = (word or "") + sign
        elif sign == '"' or (sign == "'" and dialect != "batch"):
            whole = re.match(r'"\$\{(\w+)\[@\]\}"', line[place - 1 :])
            if whole and dialect == "bash":  # a list keeps its words
                commands[-1] += script._variables.get(whole[1].lower(), [])
                place += whole.end() - 1
            else:
                quote, word = sign, word or ""
        elif variable:
            values, place = _value(variable, script), variable.end()
            if word is None and (dialect != "powershell" or len(values) != 1):
                values = [
                    part
                    for value in values
                    for part in (value.split() if dialect != "powershell" else [value])
                ]
                commands[-1] += values[:-1]
                word = values[-1] if values else None
            else:
                word = (word or "") + " ".join(values)
        elif sign.isspace() or (
            sign == "," and dialect == "powershell" and word is not None and line[place : place + 1] in ' "'
        ):
            if word is not None:
                commands[-1].append(word)
            word = None
        elif sign == "#" and word is None and dialect != "batch":
            break
        elif (sign == ";" and dialect != "batch") or (sign in "&|<>" and sign * 2 != "<<"):
            if word is not None and not (sign in "<>" and word.isdigit()):
                commands[-1].append(word)
            word = None
            if sign in "<>":
                place = len(line)  # redirected output says nothing about training
            commands.append([])
        else:
            word = (word or "") + sign
            if sign == "$" and line[place : place + 1] == "(":
                script.note("$(...)")
    if word is not None:
        commands[-1].append(word)
    return commands


def _expand(text: str, dialect: Dialect, script: Script) -> str:
    return re.sub(_VARIABLE[dialect], lambda match: " ".join(_value(match, script)), text)[:_LONGEST]


def _value(variable: re.Match[str], script: Script) -> list[str]:
    default = variable.groupdict().get("default")
    name = next(name for name in (variable[1], *variable.groups()[::-1]) if name)
    if name.lower() in ("true", "false"):
        return ["1" if name.lower() == "true" else "0"]
    if name.lower() not in script._variables:
        if default is not None:
            return [default.strip("'\"")]
        script.note(variable[0])
        return [variable[0]]
    return script._variables[name.lower()]
