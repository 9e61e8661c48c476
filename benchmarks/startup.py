"""How fast `--help` answers, and what is imported until a model is loaded.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402

_OURS = "from library.models import load_model; load_model(sys.argv[1], dtype='stored')"
# As programs import them: what these libraries find installed comes with them.
_PLAIN = (
    "import accelerate; from transformers import CLIPTextModel, CLIPTextModelWithProjection; "
    "from diffusers import AutoencoderKL, UNet2DConditionModel"
)
_COUNT = "import json, sys, time; {}; print(json.dumps([len(sys.modules), time.process_time()]))"


def main(folder: Path) -> None:
    """`train_network.py --help` against an empty Python program; a small model loaded against plain imports
    of the classes that it consists of.
    """

    def start(*words: str) -> float:
        return seconds(
            lambda: subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)
        )

    start("train_network.py", "--help")  # fills the file cache
    ratio, ours, empty = in_turns(lambda: start("train_network.py", "--help"), lambda: start("-c", "pass"))
    say("help", seconds=ours, empty_program_seconds=empty, ratio=ratio, target_seconds=0.3)
    _loading(folder / "tiny.safetensors")


def _loading(model: Path) -> None:
    from library.models.saving import Saving
    from tools.make_tiny_model import tiny_model

    tiny_model("sd1").save(model, Saving("safetensors"))

    def count(code: str) -> tuple[int, float]:
        words = [sys.executable, "-c", _COUNT.format(code), str(model)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True)
        modules, cpu = json.loads(done.stdout.splitlines()[-1])
        return modules, cpu

    (modules, _), (plain_modules, _) = count(_OURS), count(_PLAIN)
    ratio, ours, plain = in_turns(lambda: count(_OURS)[1], lambda: count(_PLAIN)[1])
    say(
        "loading",
        modules=modules,
        plain_modules=plain_modules,
        cpu_seconds=ours,
        plain_cpu_seconds=plain,
        ratio=ratio,
        target_modules=3000,
    )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
