"""What libraries import for features that are not used here is hidden from them, and from nobody else."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import run

from library.unused_packages import UNUSED, hidden_from

_LOAD = """
import json, sys
from library.models import load_model
from library.generation.samplers import Sampler
load_model(sys.argv[1], dtype="stored")
modules = len(sys.modules)
Sampler("lms", "epsilon", 4)
unused = [name for name in sys.argv[2].split(",") if name in sys.modules]
import scipy, peft
print(json.dumps([modules, unused]))
"""


def test_no_more_is_imported_for_a_model_than_is_needed(tiny_model_file: Path) -> None:
    modules, unused = json.loads(run("-c", _LOAD, tiny_model_file, ",".join(UNUSED)).stdout)
    assert unused == []
    assert modules <= 3000


def test_a_library_that_is_not_imported_yet_finds_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diffusers")
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    with hidden_from("diffusers"):
        assert find_spec("peft") is None
        with pytest.raises(ModuleNotFoundError):
            import_module("peft")
    assert find_spec("peft") is not None


def test_a_library_that_has_found_them_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", sys)
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    with hidden_from("diffusers"):
        assert find_spec("peft") is not None


def test_what_the_program_has_imported_itself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    monkeypatch.setitem(sys.modules, "bitsandbytes", sys)
    with hidden_from("diffusers"):
        import bitsandbytes

        assert bitsandbytes is sys
    assert sys.modules["bitsandbytes"] is sys


def test_other_names_are_left_alone_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    before = dict(sys.modules)
    with pytest.raises(ZeroDivisionError), hidden_from("diffusers"):
        _ = 1 / 0
    assert dict(sys.modules) == before
