"""Where the notebook runs: whose machine it is, where files last, which Python and which GPU there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from notebooks.failure import CellStopped
from notebooks.running import follow

# Modules of the packages that the commands need; whoever has all of them needs to install nothing.
NEEDED = (
    *("torch", "accelerate", "bitsandbytes", "cv2", "dadaptation", "diffusers", "huggingface_hub"),
    *("lion_pytorch", "numpy", "onnxruntime", "PIL", "prodigyopt", "psutil", "safetensors"),
    *("schedulefree", "tensorboard", "tqdm", "transformers", "yaml"),
)
_LOOK = f"import importlib.util as u; print(*[m for m in {NEEDED!r} if u.find_spec(m) is None])"
_GPU = """
import json, torch
if torch.cuda.is_available():
    device = torch.cuda.get_device_properties(0)
    bf16 = torch.version.hip is not None or device.major >= 8
    print(json.dumps([device.name, device.total_memory / 2**30, "bf16" if bf16 else "fp16"]))
elif torch.backends.mps.is_available():
    print(json.dumps(["Apple GPU", 0, "no"]))
else:
    print(json.dumps(["", 0, "no"]))
"""


@dataclass(frozen=True)
class Place:
    """Where the notebook runs.

    name: Colab, Kaggle, RunPod or "this machine".
    storage: folder for everything it makes.
    warning: what to know about that folder; "": nothing.
    """

    name: str
    storage: Path
    warning: str = ""


def find_place(
    project: Path, *, use_drive: bool, storage: str = "", env: Mapping[str, str] = os.environ
) -> Place:
    """The place, by the environment variables that each provider sets; said in a line.

    use_drive: on Colab, keep files on Google Drive, which asks for leave.
    storage: a folder to use instead of the one that suits the place; "": none.
    """
    place = _place_of(project, env, use_drive)
    if storage:
        place = Place(place.name, Path(storage).expanduser().absolute())
    place.storage.mkdir(parents=True, exist_ok=True)
    print(f"{place.name}; files go to {place.storage}")
    if place.warning:
        print(f"warning: {place.warning}")
    return place


def _place_of(project: Path, env: Mapping[str, str], use_drive: bool) -> Place:
    if "COLAB_RELEASE_TAG" in env:
        if use_drive:
            import_module("google.colab.drive").mount("/content/drive")
            return Place("Colab", Path("/content/drive/MyDrive/atelier"))
        return Place("Colab", Path("/content/atelier_files"), "they are lost when the session ends")
    if "KAGGLE_KERNEL_RUN_TYPE" in env:
        return Place("Kaggle", Path("/kaggle/working/atelier"), "they last if you press Save Version")
    if "RUNPOD_POD_ID" in env:
        return Place("RunPod", Path("/workspace/atelier_files"), "they last as long as the pod's volume")
    return Place("this machine", project / "outputs" / "notebook")


def prepare_python(project: Path) -> Path:
    """The Python that runs the commands: that of the project's .venv or the notebook's own, if it has all
    packages; else .venv is made or completed, over the machine's own packages, so that a torch which is there
    stays and nothing outside the project changes.
    """
    own = project / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for python in (own, Path(sys.executable)):
        if python.exists() and not missing(python):
            print(f"{python} has all packages")
            return python
    if not own.exists():
        # Without pip, which some machines cannot give a new environment; that of the machine serves too.
        bare = ("--system-site-packages", "--without-pip", str(own.parents[1]))
        _do([sys.executable, "-m", "venv", *bare], project)
    if subprocess.run([own, "-m", "pip", "--version"], capture_output=True).returncode:
        _do([str(own), "-m", "ensurepip"], project)
    print(f"{own}: installing {', '.join(missing(own))} (minutes)")
    _do([str(own), "-m", "pip", "install", "--quiet", "--editable", f"{project}[tagging]"], project)
    return own


def missing(python: Path) -> list[str]:
    """The modules that the commands need and this Python does not have."""
    done = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else list(NEEDED)


def _do(command: list[str], folder: Path) -> None:
    if follow(command, folder):
        raise CellStopped("The packages could not be installed, for the reason above.")


@dataclass(frozen=True)
class Gpu:
    """What computes.

    name: "" without a GPU.
    gigabytes: of its memory; 0: unknown.
    precision: for --mixed_precision: bf16 where the GPU computes in it, else fp16; no on the CPU.
    """

    name: str
    gigabytes: float
    precision: str


def find_gpu(python: Path) -> Gpu:
    """The first GPU that torch can use, said in a line."""
    done = subprocess.run([python, "-c", _GPU], capture_output=True, text=True)
    if done.returncode:
        raise CellStopped(f"torch does not start: {done.stderr.strip().splitlines()[-1]}")
    gpu = Gpu(*json.loads(done.stdout))
    memory = f", {gpu.gigabytes:.0f} GB" if gpu.gigabytes else ""
    print(f"{gpu.name}{memory}, precision {gpu.precision}" if gpu.name else "no GPU: the CPU, in float32")
    return gpu
