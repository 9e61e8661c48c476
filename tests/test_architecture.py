"""The rules of the house (docs/architecture.md), held by tests."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from library.options.fields import sections_of, specs_of, title_of

ROOT = Path(__file__).parents[1]
FOLDERS = ("library", "networks", "tools", "finetune", "examples", "benchmarks", "notebooks")
SOURCES = sorted(
    [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))],
)
SCRIPTS = sorted(
    path.stem
    for path in ROOT.glob("*.py")
    if "class Run(" in path.read_text() or "class Run:" in path.read_text()
)

# A package may import itself and the packages in its row.
BOTTOM = {
    "library.byte_locks",
    "library.console",
    "library.faults",
    "library.files",
    "library.latent_space",
    "library.launcher",
    "library.locks",
    "library.param_groups",
    "library.problems",
    "library.queued",
    "library.randomness",
    "library.secrets",
    "library.sharing",
    "library.stopping",
    "library.table_files",
    "library.text_files",
    "library.unused_packages",
    "library.wording",
}
ALLOWED = {
    "library.secrets": set(),
    "library.console": set(),
    "library.faults": {"library.secrets"},
    "library.launcher": set(),
    "library.byte_locks": set(),
    "library.locks": {"library.byte_locks", "library.problems"},
    "library.queued": {"library.byte_locks"},
    "library.problems": {
        "library.queued",
        "library.console",
        "library.faults",
        "library.launcher",
        "library.secrets",
        "library.stopping",
        "library.wording",
    },
    "library.files": {"library.problems"},
    "library.randomness": set(),
    "library.text_files": {"library.problems"},
    "library.table_files": {"library.problems", "library.text_files", "library.wording"},
    "library.stopping": {"library.launcher"},
    "library.unused_packages": set(),
    "library.wording": set(),
    "library.sharing": {"library.console", "library.problems"},
    "library.latent_space": set(),
    "library.param_groups": set(),
    "library.options": BOTTOM,
    "library.migration": BOTTOM | {"library.options"},
    "library.pages": BOTTOM,
    "library.data": BOTTOM | {"library.options", "library.pages"},
    "library.models": BOTTOM | {"library.options"},
    "library.network": BOTTOM | {"library.options", "library.models"},
    "library.network_tools": BOTTOM | {"library.options", "library.models", "library.network"},
    "library.generation": BOTTOM
    | {"library.options", "library.pages", "library.data", "library.models", "library.network"},
    "library.training": BOTTOM
    | {
        "library.options",
        "library.pages",
        "library.data",
        "library.models",
        "library.network",
        "library.generation",
    },
    "library.queue": BOTTOM | {"library.options", "library.migration", "library.pages", "library.training"},
    "library.preparation": BOTTOM | {"library.options", "library.pages", "library.data", "library.training"},
}
# The floors of library.training, from the top: a file imports from its own floor and those below it.
FLOORS = (
    {"full"},
    {"loop"},
    {"dry_run"},
    {"start", "milestones"},
    {"memory"},
    {"loss_log"},
    {"watching"},
    {"saving", "stepper"},
    {"learner"},
    {"optimization", "sharding"},
    {"pace"},
    {"job"},
    {"tasks"},
    {"diffusion"},
    {"batches", "interruption", "output", "position", "processes", "run", "run_plan", "session"},
)
LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines


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
    """The row of ALLOWED that a module belongs to."""
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


def test_no_two_test_files_have_one_name() -> None:
    """They are in no packages, so pytest would collect only the first."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_what_the_notebook_calls_needs_no_package() -> None:
    """It runs in any kernel, before anything is installed."""
    others = {
        (module_of(path), name)
        for path in SOURCES
        for name in imports_of(path)
        if module_of(path).startswith("notebooks")
        and name.split(".")[0] not in sys.stdlib_module_names | {"notebooks", "IPython"}
    }
    assert others == set()


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
        if word in line.replace("literal_eval(", "").replace(".eval(", "").replace("def eval(", "")
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


def test_training_is_a_stack_of_floors() -> None:
    floors = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    back = []
    for path in (ROOT / "library/training").rglob("*.py"):
        own = module_of(path).split(".")
        for name in imports_of(path):
            other = name.split(".")
            is_inside = len(own) > 2 and len(other) > 2 and other[:2] == ["library", "training"]
            if is_inside and floors[other[2]] < floors[own[2]]:
                back.append((module_of(path), name))
    assert back == []


def test_no_files_import_each_other() -> None:
    """Imports for types only count too: a circle of these shows that something is in the wrong room."""
    modules = {module_of(path): path for path in SOURCES}
    imports = {
        module: {name for name in imports_of(path) if name in modules and name != module}
        for module, path in modules.items()
    }
    while imports:  # remove modules that import none of the rest or are imported by none; circles remain
        imported = set().union(*imports.values())
        loose = {module for module, names in imports.items() if not names or module not in imported}
        if not loose:
            break
        imports = {module: names - loose for module, names in imports.items() if module not in loose}
    assert sorted(imports) == []


def test_files_and_functions_stay_short() -> None:
    long: list[tuple[str, int]] = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > LONGEST_FILE:
            long.append((module_of(path), lines))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append((f"{module_of(path)}.{node.name}", lines))
    assert long == []


def test_files_that_are_no_code_are_part_of_the_package() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (given,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "package_data"
    )
    packed = {
        path
        for package, patterns in given.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {
        path
        for path in (ROOT / "library").rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert others - packed == set()
