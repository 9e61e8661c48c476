"""Uploads to the hub and states from it, against a stand-in on this machine."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT, environment, make_pictures, run_here
from hub_server import TOKEN, Hub, Repository, serve_hub

from library.options.hub import HubOptions
from library.problems import UserError
from library.training.saving import hub as training_hub
from library.training.saving.hub import HubFolder, check_hub, state_from_hub
from library.training.saving.uploads import Uploads


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_fish", 3)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in that huggingface_hub takes for the hub, with a token in the environment."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serve_hub() as stand_in:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        place = stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        impatient = SimpleNamespace(time=time.time, sleep=lambda seconds: None)  # between its own attempts
        monkeypatch.setattr(_http, "time", impatient)
        training_hub._download.cache_clear()
        yield stand_in


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--seed", 3, "--output_name", "x"),
        *("--max_data_loader_n_workers", 0, "--network_module", "networks.lora", "--network_dim", 2),
        *("--learning_rate", 1e-3, *more),
    ]


def test_results_and_states_go_up_and_a_run_goes_on_from_there_exactly(
    hub: Hub, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    def train(out: str, *more: object) -> bytes:
        run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / out, *more))
        return (tmp_path / out / "x.safetensors").read_bytes()

    place = ("--huggingface_repo_id", "me/loras", "--huggingface_path_in_repo", "fish")
    saving = ("--save_every_n_steps", 2, "--save_state", "--save_state_to_huggingface")
    whole = train("whole", *place, *saving, "--max_train_steps", 4, "--no_metadata")
    repository = hub.repositories["model", "me/loras"]
    assert repository.private
    folders = ["x-state", "x-step00000002-state", "x-step00000004-state"]
    states = [path for folder in folders for path in (tmp_path / "whole" / folder).iterdir()]
    assert len(states) >= 9
    assert sorted(repository.files) == sorted(
        ["fish/x.safetensors", "fish/x-step00000002.safetensors", "fish/x-step00000004.safetensors"]
        + [f"fish/{path.parent.name}/{path.name}" for path in states]
    )
    for path, content in repository.files.items():
        assert (tmp_path / "whole" / path.removeprefix("fish/")).read_bytes() == content

    repository.names["v1"] = repository.at("main")[0]
    repository.commits.append({})  # a later commit without it
    resume = ("--resume_from_huggingface", "--resume", "me/loras/fish/x-step00000002-state:v1:model")
    resumed = train("resumed", *resume, "--max_train_steps", 4, "--no_metadata")
    assert tensors(resumed) == tensors(whole)


def tensors(data: bytes) -> bytes:
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.mark.parametrize(
    ("script", "more", "names"),
    [
        (
            "train_db.py",
            ["--save_model_as", "diffusers_safetensors"],
            {"x/model_index.json", "x/unet/config.json"},
        ),
        ("fine_tune.py", [], {"x.safetensors"}),
    ],
)
def test_models_go_up_as_files_or_folders(
    hub: Hub,
    script: str,
    more: list[object],
    names: set[str],
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
) -> None:
    common = words(shallow_model_file, pictures, tmp_path / "out")
    network = common.index("--network_module")
    common = common[:network] + common[network + 4 :]
    place = ("--huggingface_repo_id", "me/x", "--huggingface_repo_type", "dataset", "--async_upload")
    public = ("--huggingface_repo_visibility", "public", "--huggingface_token", TOKEN)
    run_here(script, *common, *place, *public, "--max_train_steps", 1, *more)
    repository = hub.repositories["dataset", "me/x"]
    assert not repository.private
    assert names <= repository.files.keys()


@pytest.mark.parametrize(
    ("fault", "mode"), [(500, []), (401, ["--async_upload"]), ("drop", ["--async_upload"])]
)
def test_a_failed_upload_is_told_tried_again_at_the_end_and_costs_nothing(
    hub: Hub,
    fault: int | str,
    mode: list[str],
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.faults.append(["POST commit", fault, 1])  # its own library tries some of these again
    hub.faults.append(["POST preupload", fault, 6])
    common = words(shallow_model_file, pictures, tmp_path, "--save_every_n_steps", 1, "--max_train_steps", 2)
    run_here("train_network.py", *common, "--huggingface_repo_id", "me/loras", *mode)
    files = hub.repositories["model", "me/loras"].files
    names = ["x-step00000001.safetensors", "x-step00000002.safetensors", "x.safetensors"]
    told = re.findall(r"warning: (\S+) was not uploaded \((.*)\); it is in (.*)", capsys.readouterr().err)
    assert all((tmp_path / name).is_file() for name in names)
    assert told
    assert {name for name, _, _ in told} <= set(names)
    missing = set(names) - files.keys()
    assert missing <= {name for name, _, _ in told}


def test_what_is_not_up_at_the_end_is_told_with_the_command_that_uploads_it(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.append(["POST commit", 403, 1000])
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    with Uploads(
        HubOptions(huggingface_repo_id="me/loras", huggingface_path_in_repo="a/b"), lambda: False
    ) as uploads:
        uploads.add(tmp_path / "x.safetensors")
    path = tmp_path / "x.safetensors"
    reason = "the token may not do that, 403"
    told = f"warning: x.safetensors was not uploaded ({reason}); it is in {tmp_path}"
    command = f'hf upload me/loras "{path}" "a/b/x.safetensors"'
    assert capsys.readouterr().err.splitlines() == [
        told,
        f"warning: x.safetensors is not on the hub ({reason}); upload it with: {command}",
    ]


def test_asynchronous_uploads_do_not_hold_the_run_up_and_old_files_wait_for_them(
    hub: Hub, tmp_path: Path
) -> None:
    hub.faults.append(["PUT lfs", 1.0, 1])
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    begin = time.monotonic()
    with Uploads(HubOptions(huggingface_repo_id="me/loras", async_upload=True), lambda: False) as uploads:
        uploads.add(old)
        uploads.add(new)
        uploads.remove(old)
        assert time.monotonic() - begin < 0.9
        assert old.is_file()
    assert hub.repositories["model", "me/loras"].files == {
        "old.safetensors": b"old",
        "new.safetensors": b"new",
    }
    assert not old.exists()
    assert new.is_file()


def test_states_go_up_only_when_asked_for(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "x-state").mkdir()
    (tmp_path / "x-state" / "train_state.json").write_text("{}")
    with Uploads(HubOptions(huggingface_repo_id="me/loras"), lambda: False) as uploads:
        uploads.add(tmp_path / "x-state", is_state=True)
    assert hub.requests == []


def test_a_run_that_is_stopped_does_not_wait_for_a_hub_that_hangs(
    hub: Hub, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    hub.faults.append(["PUT lfs", 60.0, 1000])
    more = ("--save_every_n_steps", 2, "--max_train_steps", 10000, "--huggingface_repo_id", "me/loras")
    command = [
        sys.executable,
        "train_network.py",
        *map(str, words(shallow_model_file, pictures, tmp_path, *more)),
    ]
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "h"),
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment() | own, stdout=log, stderr=log)
        deadline = time.monotonic() + 40
        while not any(request.startswith("PUT") for request in hub.requests):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 10
    text = (tmp_path / "log").read_text()
    assert "x-step00000002.safetensors is not on the hub (not done in time)" in text
    (state,) = tmp_path.glob("x-step*-state")
    assert f"go on with --resume {state}" in text


def test_tokens_are_checked_before_the_start(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = HubOptions(huggingface_repo_id="me/loras")
    check_hub(options)
    check_hub(HubOptions())
    assert hub.requests == ["GET /api/whoami-v2"]
    hub.role = "read"
    with pytest.raises(UserError, match="the token can only read"):
        check_hub(options)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    with pytest.raises(UserError, match=r"the hub does not accept the token \(401\)") as caught:
        check_hub(options)
    assert "wrongwrong" not in str(caught.value)
    hub.faults.append(["whoami", 500, 1000])
    check_hub(options)
    assert capsys.readouterr().err == (
        "warning: the hub answered with an error (500): the token was not checked; uploads will be tried\n"
    )
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="there is no token for the hub; set HF_TOKEN"):
        check_hub(options)


def test_a_hub_out_of_reach_is_a_warning(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    check_hub(HubOptions(huggingface_repo_id="me/loras"))
    told = "the hub cannot be reached (ConnectError): the token was not checked; uploads will be tried"
    assert capsys.readouterr().err == f"warning: {told}\n"


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("me/loras/x-state", HubFolder("me/loras", "x-state", None, "model")),
        ("me/loras/a/b/x-state/", HubFolder("me/loras", "a/b/x-state", None, "model")),
        ("me/loras/x-state:v2", HubFolder("me/loras", "x-state", "v2", "model")),
        ("me/loras/x-state:v2:dataset", HubFolder("me/loras", "x-state", "v2", "dataset")),
        ("me/loras/x-state::dataset", HubFolder("me/loras", "x-state", None, "dataset")),
    ],
)
def test_states_on_the_hub_are_named_as_in_sd_scripts(text: str, folder: HubFolder) -> None:
    assert HubFolder.parse(text) == folder


@pytest.mark.parametrize(
    "text", ["x-state", "me/loras", "me/loras/x:main:thing", "me/loras/x:a:model:b", "/a/b/c"]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="it is OWNER/NAME/FOLDER"):
        HubFolder.parse(text)


def test_what_is_not_there_to_resume_from_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def complaint(text: str) -> str:
        with pytest.raises(UserError) as caught:
            state_from_hub(text, None)
        return str(caught.value)

    hub.repositories["model", "me/loras"] = Repository(private=True, commits=[{"a.json": b"{}"}])
    assert complaint("me/none/x") == (
        "--resume me/none/x: there is no model repository me/none, or the token does not open it; "
        "check the name; for private ones set HF_TOKEN or run: hf auth login"
    )
    assert (
        complaint("me/loras/x:v9") == "--resume me/loras/x: the repository has no revision v9; check its name"
    )
    assert complaint("me/loras/x") == (
        "--resume me/loras/x: there is no such state folder in the repository; check the path"
    )
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert complaint("me/other/x") == (
        "--resume me/other/x: the hub cannot be reached, and it is not in the hub's cache; "
        "check the connection"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"huggingface_repo_id": "loras"},
        {"huggingface_repo_id": "me/lo ras"},
        {"huggingface_repo_id": "me/x/y"},
        {"huggingface_repo_id": "me/x", "huggingface_path_in_repo": "a/../.."},
    ],
)
def test_names_that_the_hub_does_not_have_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UserError, match="is written OWNER/NAME|must be a folder inside"):
        HubOptions(**options)


def test_options_without_a_repository_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    HubOptions(async_upload=True, huggingface_path_in_repo="a")
    assert capsys.readouterr().err.splitlines() == [
        "warning: --huggingface_path_in_repo has no effect without --huggingface_repo_id",
        "warning: --async_upload has no effect without --huggingface_repo_id",
    ]
