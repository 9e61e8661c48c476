"""What is added is checked as its trainer would check it, and frozen; what cannot be added is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call, make_pictures
from queue_stubs import states

from library.options.fields import sections_of, specs_of
from library.problems import UserError
from library.queue.adding import FROZEN
from library.queue.folder import Queue
from library.table_files import read_tables
from tools import run_queue


class Given:
    """A queue, a model, pictures and an option file to add.

    options: of the file; `write` writes them.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.queue, self.file = folder, Queue(folder / "queue"), folder / "cat.toml"
        self.options: dict[str, object] = {
            "pretrained_model_name_or_path": str(model),
            "train_data_dir": str(make_pictures(folder / "data" / "1_sks cat", 1).parent),
            "resolution": 64,
            "output_dir": str(folder / "out"),
            "output_name": "cat",
            "network_module": "networks.lora",
            "network_dim": 4,
            "max_train_steps": 2,
        }

    def write(self, file: Path | None = None, **more: object) -> Path:
        options = {key: value for key, value in (self.options | more).items() if value is not None}
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        (file or self.file).write_text("\n".join(lines), encoding="utf-8")
        return file or self.file

    def add(self, *words: object) -> None:
        run(self.queue, "add", *words)

    def kept(self, number: int) -> dict[str, object]:
        """The options of a run."""
        tables = read_tables(self.queue.run_folder(number) / "options.toml")
        return {key: value for table in tables.values() for key, value in table.items()}


def run(queue: Queue, *words: object) -> None:
    call(run_queue.main, "run_queue.py", "--queue", queue.folder, *words)


@pytest.fixture
def given(tmp_path: Path, shallow_model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.chdir(tmp_path)
    return Given(tmp_path, shallow_model_file)


def test_options_and_the_files_that_they_name_are_frozen(given: Given) -> None:
    given.folder.joinpath("prompts.txt").write_text("a cat --w 64 --h 64")
    given.folder.joinpath("preset.toml").write_text("x = 1")
    file = given.write(
        sample_prompts="prompts.txt",
        sample_every_n_steps=1,
        optimizer_args=["betas=0.9,0.99", "weight_decay=0.1"],
    )
    given.add("train_network.py", "--config_file", file, "--network_dim", 8)
    given.folder.joinpath("prompts.txt").write_text("a dog")
    given.write(network_dim=-1)

    kept = given.kept(1)
    assert kept["network_dim"] == 8
    assert kept["optimizer_args"] == ["betas=0.9,0.99", "weight_decay=0.1"]
    copy = given.queue.run_folder(1) / "files" / "sample_prompts" / "prompts.txt"
    assert Path(kept["sample_prompts"]) == copy and copy.read_text() == "a cat --w 64 --h 64"
    assert states(given.queue) == {1: "waiting"}


def test_every_option_of_trainers_that_names_a_small_file_is_frozen() -> None:
    """Files of others are data, weights, or written to."""
    import train_leco
    import train_network

    named = {
        spec.name
        for run_type in (train_network.Run, train_leco.Run)
        for section in sections_of(run_type).values()
        for spec in specs_of(section)
        if spec.metavar == "FILE"
    }
    large = {"network_weights", "base_weights", "embeddings", "in_json", "metadata_thumbnail"}
    written = {"console_log_file", "config_file"}
    assert named - large - written == {*FROZEN}


def test_a_sweep_is_a_run_for_each_combination_with_a_name_of_its_own(given: Given) -> None:
    sweep = (
        'network_dim=2,4; network_args=conv_dim=2 conv_alpha=1,conv_dim=4;resolution="64,96";flip_aug=true'
    )
    given.add("--sweep", sweep, given.write())
    kept = [given.kept(number) for number in states(given.queue)]
    assert [(run["network_dim"], run["network_args"]) for run in kept] == [
        (2, ["conv_dim=2", "conv_alpha=1"]),
        (2, ["conv_dim=4"]),
        (4, ["conv_dim=2", "conv_alpha=1"]),
        (4, ["conv_dim=4"]),
    ]
    assert all(run["resolution"] == [[64, 96]] and run["flip_aug"] for run in kept)
    first = "cat-network_dim-2-network_args-conv_dim_2_conv_alpha_1-resolution-64_96-flip_aug-true"
    assert kept[0]["output_name"] == first
    assert len({run["output_name"] for run in kept}) == 4


def test_an_option_file_tells_its_trainer(given: Given) -> None:
    folder = given.folder / "files"
    folder.mkdir()
    given.write(folder / "a.toml", output_name="a")
    word = {"network_module": None, "network_dim": None, "token_string": "<it>"}
    given.write(folder / "b.toml", output_name="b", **word)
    with pytest.raises(UserError, match="b.toml: --token_string: no caption contains '<it>'"):
        given.add(folder)
    given.write(folder / "b.toml", output_name="b", use_style_template=True, **word)
    given.add(folder)
    given.add(
        "--script",
        "train_db.py",
        "--config_file",
        given.write(output_name="c", network_module=None, network_dim=None),
    )
    scripts = [given.queue.added(number).script for number in states(given.queue)]
    assert scripts == ["train_network.py", "train_textual_inversion.py", "train_db.py"]


def test_words_of_accelerate_launch_are_kept(given: Given) -> None:
    launch = ("--num_processes", "2", "--multi_gpu")
    given.add("accelerate", "launch", *launch, "train_network.py", "--config_file", given.write())
    added = given.queue.added(1)
    assert added.launch == [*launch] and added.processes == 2


def test_wrong_additions_are_one_line_each_and_add_nothing(given: Given) -> None:
    file, plain = given.write(), given.write(given.folder / "plain.toml", network_module=None)
    (given.folder / "empty").mkdir()
    (given.folder / "broken.toml").write_text("network_dim = ")
    launch = ("accelerate", "launch")
    for words, line in [
        ((), "add: needs a command, an option file or a folder of these; add FILE.toml"),
        (("--sweep", "network_dim=2,x", file), "--network_dim: expects a whole number, got 'x'"),
        (("--sweep", "network_dim", file), "--sweep: 'network_dim' gives no values to an option; write "),
        (("--sweep", "output_name=a,b", file), "--sweep: output_name cannot be varied; leave it out"),
        (("--sweep", "seed=1;seed=2", file), "--sweep: seed is there twice; give all its values at once"),
        (("--sweep", "network_dmi=2", file), "--network_dmi: there is no such option; did you mean --netw"),
        (("--config_file",), "--config_file: is nothing that can be added; give a command (train_net"),
        (("--after", "7", file), "run 7: is not in this queue; see: list"),
        (("--after", "x", file), "--after: expects numbers of runs such as 3 or 1,2, got 'x'"),
        (("--gpus", "0", file), "--gpus: must be 1 or more"),
        (("--swep", "a=1", file), "--swep: there is no such option; did you mean --sweep?"),
        (("missing.toml",), "missing.toml: there is no such file"),
        (("broken.toml",), "broken.toml: is not valid TOML"),
        (("empty",), "empty: holds no option files (.toml)"),
        ((plain,), f"{plain}: does not tell its trainer; say which trainer it is for: --script train_db.py"),
        (("gen_img.py", "--prompt", "x"), "gen_img.py: is no trainer of Atelier; one of train_network.py, "),
        (("torchrun", "train_db.py"), "torchrun: cannot be kept with a run; give the trainer alone, or"),
        ((*launch, "--gpu_ids", "1", "train_db.py"), "accelerate launch --gpu_ids: is for the queue to dec"),
        ((*launch, "--nmu", "1", "train_db.py"), "accelerate launch: does not know all of"),
        (("train_network.py", "--config_file", file, "--dry_run"), "--dry_run: trains nothing; leave it out"),
        (("train_network.py", "--config_file", file, "--help"), "train_network.py: would end without train"),
        ((file, "--huggingface_token", "hf_secret12345", "--huggingface_repo_id", "a/b"),
         "--huggingface_token: is a token, which a queue does not keep; log in, or set it"),
        ((file, "--train_data_dir", "gone"), "gone: there is no such folder"),
    ]:  # fmt: skip
        with pytest.raises(UserError) as raised:
            given.add(*words)
        (problem,) = map(str, raised.value.problems)
        assert line in problem
    assert not given.queue.folder.exists() or states(given.queue) == {}


def test_two_runs_must_not_write_results_of_one_name(given: Given) -> None:
    given.add(given.write())
    with pytest.raises(
        UserError, match="cat: run 1 writes results of this name too; choose another --output_name"
    ):
        given.add(given.file)


def test_verbs_say_what_they_cannot_do(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="is no queue; begin one with: run_queue.py --queue FOLDER add"):
        run(given.queue, "list")
    given.add(given.write())
    given.add("--after", 1, "train_network.py", "--config_file", given.file, "--output_name", "dog")
    for words, line in [
        (("remove", 1), "run 1: run 2 waits for it; remove that first"),
        (("retry", 1), "run 1: is waiting; only what failed or was stopped is tried again"),
        (("stop", "1,9"), "run 9: is not in this queue; see: list"),
        (("stop",), "<runs>: is needed: a number that list shows, or several: 1,2"),
        (("move", 1), "run 1: is stopped; only what waits can be moved"),
        (("stop", 1), "run 1: is stopped; only what waits or runs can be stopped"),
        (("dance",), "dance: is no verb; one of add, run, list, "),
    ]:
        with pytest.raises(UserError) as raised:
            run(given.queue, *words)
        (problem,) = map(str, raised.value.problems)
        assert problem.startswith(line)
    with pytest.raises(UserError, match="--queue: is needed: the folder of the queue, before the verb"):
        call(run_queue.main, "run_queue.py", "list")
    run(given.queue, "remove", "2,1")
    with pytest.raises(UserError, match="run 1: was removed"):
        run(given.queue, "stop", 1)
    given.add(given.file)
    assert capsys.readouterr().out.splitlines()[-1] == "run 3: cat"  # no number is given twice
