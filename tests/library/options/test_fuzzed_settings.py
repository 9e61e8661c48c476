"""Whatever stands on a command line or in a file of settings: a Run, or one typed error."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from library.data.config.datasets import collect_datasets
from library.data.config.specs import DATASET_KEYS, SUBSET_KEYS
from library.migration.fitting import fit
from library.migration.reading import read_content
from library.options.data import DataOptions
from library.options.fields import sections_of, specs_of
from library.options.parser import read_command_line
from library.problems import Problems, UserError, without_warnings
from train_network import Run

SAMPLES = Path(__file__).parents[2] / "data" / "migration"
FLAGS = [spec.flag for section in sections_of(Run).values() for spec in specs_of(section)]


def fuzz(examples: int) -> settings:
    """About a minute of examples; FUZZ_TIMES multiplies them."""
    times = float(os.environ.get("FUZZ_TIMES", "1"))
    checks = list(HealthCheck)
    return settings(
        max_examples=max(1, int(examples * times)), deadline=None, suppress_health_check=checks, database=None
    )


WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(FLAGS).map(lambda flag: flag.replace("_", "-")),
    st.sampled_from(
        ["0", "1", "-1", "1e400", "nan", "None", "true", "512,512", "a=1", "[1, 2]", "=", "--", ""]
    ),
    st.tuples(st.sampled_from(FLAGS), st.text(max_size=20)).map("=".join),
    st.text(max_size=20),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def read(words: list[str]) -> None:
    with without_warnings():
        try:
            reading = read_command_line(Run, argv=words)
            if not reading.problems:
                _ = reading.run
        except UserError as error:
            assert error.problems
        except SystemExit as ended:
            assert ended.code in (0, 2)


@pytest.mark.long
@fuzz(1000)
@given(st.lists(WORDS, max_size=12))
def test_any_words_are_a_run_or_problems(words: list[str]) -> None:
    read(words)


def toml(value: Any) -> str:
    """TOML of a value; what it has no words for is a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("null", '"None"')


NAMES = st.one_of(st.sampled_from([flag[2:] for flag in FLAGS]), st.text(max_size=8))


@pytest.mark.long
@fuzz(1000)
@given(st.one_of(st.binary(max_size=200), st.dictionaries(NAMES, VALUES, max_size=8)))
def test_any_option_file_is_a_run_or_problems(content: bytes | dict[str, Any]) -> None:
    if isinstance(content, dict):
        lines = (f"{json.dumps(key)} = {toml(value)}\n" for key, value in content.items())
        content = "".join(lines).encode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.toml")
        path.write_bytes(content)
        read(["--config_file", str(path)])


KEYS = st.one_of(
    st.sampled_from([*DATASET_KEYS, *SUBSET_KEYS, "general", "datasets", "subsets"]), st.text(max_size=8)
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=5)


@pytest.mark.long
@fuzz(1000)
@given(
    st.one_of(
        st.binary(max_size=200),
        VALUES,
        st.builds(
            lambda general, dataset, subset: {
                "general": general,
                "datasets": [{**dataset, "subsets": [subset]}],
            },
            TABLES,
            TABLES,
            TABLES,
        ),
    )
)
def test_any_dataset_file_is_datasets_or_problems(content: Any) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    with tempfile.TemporaryDirectory() as folder, without_warnings():
        path = Path(folder, "d.json")
        path.write_bytes(text)
        collect_datasets(DataOptions(dataset_config=path), Problems(), pixel_multiple=8)


DOCUMENTS = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.glob("*.json"))]
TEXTS = [path.read_text(encoding="utf-8") for path in sorted(SAMPLES.iterdir()) if path.is_file()]


def migrate(text: str) -> None:
    try:
        found = read_content(text, "file", SAMPLES)
        run_type = importlib.import_module(found.trainer.removesuffix(".py")).Run
        fit(found, run_type, [run_type])
    except UserError as error:
        assert error.problems


@pytest.mark.long
@fuzz(800)
@given(st.data())
def test_any_change_of_a_programs_file_is_read_or_refused(data: st.DataObject) -> None:
    document = dict(data.draw(st.sampled_from(DOCUMENTS)))
    for key in data.draw(st.lists(st.sampled_from(sorted(document)), max_size=4)):
        document[key] = data.draw(VALUES)
    migrate(json.dumps(document))


@pytest.mark.long
@fuzz(800)
@given(st.data())
def test_any_cut_of_a_script_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    migrate(text[:start] + data.draw(st.text(max_size=20)) + text[end:])
