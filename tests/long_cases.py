"""Cases of a parametrised test that only the long part runs."""

from __future__ import annotations

from typing import Any

import pytest


def long(*values: Any) -> Any:
    """These values as one case, for `make test-long`."""
    return pytest.param(*values, marks=pytest.mark.long)
