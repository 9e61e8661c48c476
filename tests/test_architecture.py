"""The rules of the house (docs/architecture.md), held by tests."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from library.options.fields import sections_of, specs_of, title_of

ROOT = Path(__file__).parents[1]
FOLDERS = ("library", "networks", "tools", "finetune", "examples", "benchmarks")
SOURCES = sorted(
    [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))],
)
SCRIPTS = sorted(
    path.stem
    for path in ROOT.glob("*.py")
    if "class Run(" in path.read_text() or "class Run:" in path.read_text()
)

# A package may import itself and what stands in its row.
ALLOWED = {
    "library.secrets": set(),
    "library.console": set(),
    "library.problems": {"library.console", "library.secrets"},
    "library.files": {"library.problems"},
    "library.randomness": set(),
    "library.text_files": {"library.problems"},
    "library.table_files": {"library.problems", "library.text_files"},
    "library.wording": set(),
    "library.sharing": {"library.console", "library.problems"},
    "library.latent_space": set(),
    "library.pages": {"library.wording"},
    "library.options": {
        "library.problems",
        "library.console",
        "library.files",
        "library.secrets",
        "library.table_files",
    },
    "library.data": {
        "library.options",
        "library.console",
        "library.problems",
        "library.files",
        "library.randomness",
        "library.text_files",
        "library.table_files",
        "library.wording",
        "library.sharing",
        "library.latent_space",
        "library.pages",
    },
    "library.models": {
        "library.options",
        "library.problems",
        "library.files",
        "library.randomness",
        "library.latent_space",
    },
    "library.network": {"library.models", "library.problems"},
    "library.generation": {
        "library.models",
        "library.options",
        "library.console",
        "library.problems",
        "library.files",
        "library.randomness",
        "library.text_files",
        "library.table_files",
        "library.network",
    },
    "library.training": {
        "library.data",
        "library.models",
        "library.generation",
        "library.options",
        "library.console",
        "library.problems",
        "library.secrets",
        "library.files",
        "library.randomness",
        "library.text_files",
        "library.table_files",
        "library.network",
        "library.wording",
        "library.sharing",
        "library.pages",
    },
}


def imports_of(path: Path) -> set[str]:
    """Every module a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(module: str) -> str | None:
    """The row of ALLOWED a module belongs to."""
    return next((room for room in ALLOWED if module == room or module.startswith(room + ".")), None)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(module_of(p))], ids=lambda p: module_of(p))
def test_library_imports_point_one_way(path: Path) -> None:
    room = room_of(module_of(path))
    rooms = {room_of(name) for name in imports_of(path)} - {None, room}
    assert rooms <= ALLOWED[room]


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if module_of(p).startswith("library")], ids=lambda p: module_of(p)
)
def test_library_names_no_network_and_no_script(path: Path) -> None:
    forbidden = {"networks", "tools", "finetune", *SCRIPTS}
    assert not {name.split(".")[0] for name in imports_of(path)} & forbidden


def test_argparse_is_imported_by_the_parser_only() -> None:
    users = {module_of(path) for path in SOURCES if "argparse" in imports_of(path)}
    assert users == {"library.options.parser"}


def test_no_function_takes_args() -> None:
    offenders = [
        f"{module_of(path)}.{node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and any(argument.arg == "args" for argument in node.args.args)
    ]
    assert offenders == []


def test_nothing_runs_pickles_or_shells() -> None:
    forbidden = (
        "pickle.load",
        "pickle.loads",
        "eval(",
        "exec(",
        "shell=True",
        "weights_only=False",
        "os.system(",
    )
    offenders = [
        (module_of(path), word)
        for path in SOURCES
        for word in forbidden
        for line in path.read_text(encoding="utf-8").splitlines()
        if word in line.replace("literal_eval(", "").replace(".eval(", "")
        and not line.strip().startswith("#")
    ]
    assert offenders == []


def test_options_import_no_torch() -> None:
    modules = [module_of(path) for path in SOURCES if module_of(path).startswith("library.options")]
    code = f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\n" + _HEAVY_CHECK
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
        == "[]\n"
    )


_HEAVY_CHECK = "print([m for m in ('torch', 'transformers', 'diffusers', 'cv2') if m in sys.modules])"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script: str) -> None:
    code = (
        f"import sys, io, contextlib, {script}\nsys.argv = ['{script}.py', '--help']\n"
        f"with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): {script}.main()\n"
        + _HEAVY_CHECK
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
        == "[]\n"
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_has_help_and_belongs_to_one_section(script: str) -> None:
    sections = sections_of(importlib.import_module(script).Run).values()
    specs = [spec for section in sections for spec in specs_of(section)]
    assert [spec.name for spec in specs if not spec.help.strip()] == []
    assert len({spec.name for spec in specs}) == len(specs)
    assert all(title_of(section) for section in sections)


def test_files_stay_short() -> None:
    assert {module_of(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 500} == {}
