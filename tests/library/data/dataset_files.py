"""Dataset files for tests, of each kind."""

import pytest

from library.problems import UserError

KINDS = {
    "dreambooth": {"image_dir": "a"},
    "finetuning": {"metadata_file": "m.json"},
    "controlnet": {"image_dir": "a", "conditioning_data_dir": "c"},
}
SIZE = ((64, 64),)


def complaints(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


def tables(kind, *, general=None, dataset=None, subset=None):
    """A dataset file of one subset."""
    subsets = [KINDS[kind] | (subset or {})]
    return {"general": general or {}, "datasets": [(dataset or {}) | {"subsets": subsets}]}
