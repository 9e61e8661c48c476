import subprocess
import sys
from pathlib import Path

from library.options.fields import sections_of, specs_of
from tools.make_option_docs import PAGE, find_runs, render

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make docs`"


def test_every_option_of_every_command_is_on_the_page() -> None:
    page = render()
    sections = [section for run in find_runs().values() for section in sections_of(run).values()]
    specs = [spec for section in sections for spec in specs_of(section)]
    assert [spec.name for spec in specs if f"`{spec.flag}`" not in page and not spec.positional] == []


def test_all_commands_are_found() -> None:
    assert list(find_runs())[:4] == [
        "train_network.py",
        "train_db.py",
        "fine_tune.py",
        "gen_img.py",
    ]


def test_making_the_page_imports_no_torch() -> None:
    code = (
        "import sys; from tools.make_option_docs import render; render();"
        "print([m for m in ('torch', 'transformers', 'diffusers', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
