"""Killed while caching: a short run of the soak test, with two real processes."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT


@pytest.mark.skipif(os.name == "nt", reason="it forks")
def test_caching_by_two_processes_survives_kills_and_goes_on():
    command = [sys.executable, "benchmarks/soak_caching.py", "3", "60"]
    soak = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert soak.stderr == "" and soak.returncode == 0
    assert json.loads(soak.stdout)["kills"] == 3
