"""Every bad image is one line of file, cause and fix."""

import os
import sys

import pytest
from bad_files import bad_images, make_bad_images
from picture_files import encoded, photo

from library.data.pictures.images import load_image
from library.data.pictures.integrity import inspect
from library.problems import UserError


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return make_bad_images(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("name", [*bad_images(), "folder.png", "missing.png"])
def test_a_bad_image_gives_one_problem_with_its_file_a_cause_and_a_fix(bad, name):
    path, cause = next((path, cause) for path, cause in bad.items() if path.name == name)
    with pytest.raises(UserError) as caught:
        inspect(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert cause in problem.cause
    assert problem.fix


def test_the_decoder_refuses_what_the_structure_does_not_show(tmp_path):
    content = bytearray(encoded(photo((160, 120)), "PNG"))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    assert inspect(tmp_path / "a.png") == (160, 120)
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded: .*; copy or download it again"):
        load_image(tmp_path / "a.png")


def test_a_link_to_nothing_says_so(tmp_path):
    link = tmp_path / "a.png"
    try:
        link.symlink_to(tmp_path / "nowhere.png")
    except OSError:
        pytest.skip("this system does not let us make links")
    with pytest.raises(UserError, match="is a link to a file that does not exist; mend or remove the link"):
        inspect(link)


@pytest.mark.skipif(sys.platform == "win32" or not os.geteuid(), reason="everything may be read here")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check its permissions"):
        inspect(path)
