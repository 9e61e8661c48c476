"""Dataset files that cannot be used: one Problem each, with the file, the cause and what to do."""

from pathlib import Path

import pytest
from bad_texts import bad_configs, make_good_images

from library.problems import UserError


@pytest.mark.parametrize("what", bad_configs(Path("images")))
def test_a_bad_dataset_file_is_one_problem_with_file_cause_and_fix(scan, tmp_path, what):
    make_good_images(tmp_path / "images")
    bad = bad_configs(tmp_path / "images")[what]
    path = tmp_path / bad.name
    path.write_bytes(bad.content)
    with pytest.raises(UserError) as caught:
        scan(dataset_config=path)
    (problem,) = caught.value.problems
    assert bad.name in problem.where or what in ("no size", "a folder that is not there")
    assert bad.cause in problem.cause
    assert bad.fix in problem.fix


def test_there_are_enough_of_them():
    assert len(bad_configs(Path("images"))) >= 9
