"""Cells of notebooks -> a bash script with the same commands. Nothing is run: of the Python around them plain
assignments, conditions on such variables and functions without arguments are followed.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SHELL_LINE = re.compile(r"^(\s*)([!%])(?!%)\s*(.*)$")
_CALL = "__shell_line__"
_UNKNOWN = object()
_LONGEST = 100_000  # characters that a text may grow to
_DEEPEST = 4  # calls in calls


def is_notebook(text: str) -> bool:
    """Whether a text was copied from cells: it has lines that begin with `!` or `%cd`."""
    return re.search(r"^\s*(!\s*\S|%cd\s|%env\s|%%(bash|sh|shell)\b)", text, re.M) is not None


def cells_of(document: Mapping[str, Any]) -> list[str] | None:
    """The texts of a notebook file's code cells; None if the JSON document is none."""
    cells = document.get("cells")
    if not isinstance(cells, list) or "nbformat" not in document:
        return None
    sources = [
        cell.get("source") for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"
    ]
    return ["".join(map(str, source)) if isinstance(source, list) else str(source) for source in sources]


def script_of(cells: list[str]) -> str:
    """The commands of cells as bash: variables are assignments, `{name}` is `${name}`."""
    follower = _Follower()
    for cell in cells:
        if magic := re.match(r"\s*%%(bash|sh|shell)\b.*\n", cell):
            follower.lines += cell[magic.end() :].splitlines()
        else:
            follower.follow_cell(cell)
    return "\n".join(follower.lines)


@dataclass
class _Follower:
    """Follows cells one after the other.

    lines: of the bash script. values: what is known of variables; the others are not in it.
    """

    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, list[ast.stmt]] = field(default_factory=dict)

    def follow_cell(self, cell: str) -> None:
        try:
            statements = ast.parse(_as_python(cell)).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # no Python: its commands alone
            statements = [*map(_shell_statement, _shell_lines(cell))]
        self._follow(statements, depth=0)

    def _follow(self, statements: list[ast.stmt], *, depth: int) -> None:
        for statement in statements:
            if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
                self._assign(statement)
            elif isinstance(statement, ast.If):
                truth = self._value(statement.test)
                if truth is _UNKNOWN:
                    self._forget(statement)
                else:
                    self._follow(statement.body if truth else statement.orelse, depth=depth)
            elif isinstance(statement, ast.With | ast.Try):
                self._follow(statement.body, depth=depth)
            elif isinstance(statement, ast.FunctionDef):
                self.functions[statement.name] = statement.body
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                self._call(statement.value, depth=depth)
            else:
                self._forget(statement)

    def _call(self, call: ast.Call, *, depth: int) -> None:
        if not isinstance(call.func, ast.Name):
            return
        if call.func.id == _CALL and isinstance(call.args[0], ast.Constant):
            self._add_line(str(call.args[0].value))
        elif call.func.id in self.functions and not call.args and depth < _DEEPEST:
            self._follow(self.functions[call.func.id], depth=depth + 1)

    def _assign(self, statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        value: Any = _UNKNOWN if statement.value is None else self._value(statement.value)
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            before = self.values.get(statement.target.id, _UNKNOWN)
            value = _sum(before, value) if isinstance(statement.op, ast.Add) else _UNKNOWN
        for target in targets:
            if isinstance(target, ast.Name):
                self._store(target.id, value)
            else:
                self._forget(target)

    def _store(self, name: str, value: Any) -> None:
        if value is _UNKNOWN:
            self.values.pop(name, None)
            self.lines.append(f"unset {name}")
        else:
            self.values[name] = value
            self.lines.append(f"{name}={shlex.quote(str(value))}")

    def _forget(self, node: ast.AST) -> None:
        """What is set where the way cannot be told is not known from there on."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id in self.values:
                self._store(inner.id, _UNKNOWN)

    def _add_line(self, line: str) -> None:
        for found in reversed(list(re.finditer(r"(?<![\\$])\{([^{}]+)\}", line))):
            name = found[1].strip()
            known = _UNKNOWN if name.isidentifier() else self._text_value(name)
            new = f"${{{name}}}" if name.isidentifier() else None if known is _UNKNOWN else str(known)
            line = line if new is None else line[: found.start()] + new + line[found.end() :]
        self.lines.append(line)

    def _text_value(self, text: str) -> Any:
        try:
            return self._value(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return _UNKNOWN

    def _value(self, node: ast.expr, depth: int = 0) -> Any:
        """The value of a plain expression: literals, known names, +, f-strings, comparisons, os.path.join."""
        if depth > 50:
            return _UNKNOWN
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.values.get(node.id, _UNKNOWN)
        parts = {
            ast.BinOp: lambda n: [n.left, n.right],
            ast.JoinedStr: lambda n: n.values,
            ast.FormattedValue: lambda n: [n.value],
            ast.Call: lambda n: n.args,
            ast.Compare: lambda n: [n.left, *n.comparators],
            ast.UnaryOp: lambda n: [n.operand],
            ast.BoolOp: lambda n: n.values,
            ast.IfExp: lambda n: [n.test, n.body, n.orelse],
        }.get(type(node))
        if parts is None:
            return _UNKNOWN
        values = [self._value(part, depth + 1) for part in parts(node)]
        return _UNKNOWN if any(value is _UNKNOWN for value in values) else _computed(node, values)


def _computed(node: ast.expr, values: list[Any]) -> Any:
    """The value of an expression whose parts have these values."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _sum(*values)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(str, values))[:_LONGEST]
    if isinstance(node, ast.FormattedValue):
        return values[0] if node.format_spec is None else _UNKNOWN
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.path.join" and not node.keywords:
        return "/".join(str(value).rstrip("/") for value in values)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "str" and len(values) == 1:
        return str(values[0])
    if isinstance(node, ast.Compare) and len(values) == 2 and isinstance(node.ops[0], ast.Eq | ast.NotEq):
        return (values[0] == values[1]) is isinstance(node.ops[0], ast.Eq)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not values[0]
    if isinstance(node, ast.BoolOp):
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.IfExp):
        return values[1] if values[0] else values[2]
    return _UNKNOWN


def _sum(first: Any, second: Any) -> Any:
    if type(first) is not type(second) or not isinstance(first, str | int | float):
        return _UNKNOWN
    return (first + second)[:_LONGEST] if isinstance(first, str) else first + second


def _as_python(cell: str) -> str:
    """The cell with its shell lines as calls, and other magic lines left out."""
    lines = []
    for line in _joined(cell).split("\n"):
        found = _SHELL_LINE.match(line)
        shell = _shell_of(found[2], found[3]) if found else None
        if found:
            lines.append(f"{found[1]}{_CALL}({shell!r})")
        elif not line.lstrip().startswith("%%"):
            lines.append(line)
    return "\n".join(lines)


def _shell_of(sign: str, rest: str) -> str:
    """A `!` or `%` line in bash."""
    if sign == "!":
        return rest
    if match := re.match(r"env\s+(\w+)\s*=?\s*(.*)", rest):
        return f"export {match[1]}={shlex.quote(match[2])}"
    return rest if re.match(r"cd\s", rest) else ""


def _shell_lines(cell: str) -> list[str]:
    found = map(_SHELL_LINE.match, _joined(cell).split("\n"))
    return [_shell_of(match[2], match[3]) for match in found if match]


def _shell_statement(line: str) -> ast.stmt:
    return ast.Expr(ast.Call(ast.Name(_CALL, ast.Load()), [ast.Constant(line)], []))


def _joined(cell: str) -> str:
    """The cell with continued shell lines in one: after a blank, \\ before a line's end goes on."""
    return re.sub(r"[ \t]*\\[ \t]*\r?\n[ \t]*(?=\S)", " ", cell.replace("\r\n", "\n"))
