"""Commands and option files of sd-scripts -> Found. lora-scripts and LoRA_Easy_Training_Scripts write option
files too: the first with tables whose names mean nothing, the second with tables in tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from library.migration.found import Found, Settings, Table
from library.migration.shell import Script, read_script
from library.options.foreign_config import is_easy_training
from library.options.unset import asks_nothing
from library.problems import UserError
from library.table_files import read_tables

TRAINERS = (
    *("train_network.py", "sdxl_train_network.py", "train_db.py", "fine_tune.py", "sdxl_train.py"),
    *("train_textual_inversion.py", "train_textual_inversion_XTI.py", "sdxl_train_textual_inversion.py"),
    *("train_control_net.py", "sdxl_train_control_net.py"),
    *("train_control_net_lllite.py", "sdxl_train_control_net_lllite.py"),
    *("train_leco.py", "sdxl_train_leco.py"),
)
OLD_NAMES = {
    "train_db_fixed.py": "train_db.py",
    "train_db_fixed_mod.py": "train_db.py",
    "train_controlnet.py": "train_control_net.py",
    "sdxl_train_control_net_lllite_old.py": "sdxl_train_control_net_lllite.py",
}
_LATER = re.compile(r"hypernetwork\w*\.py")
_OTHER_FAMILIES = re.compile(r"(flux|sd3|lumina|hunyuan\w*|anima|zimage|stable_cascade|qwen\w*|wan)_\w+\.py")
# What LoRA_Easy_Training_Scripts keeps for its own page.
_EASY_PAGE = ("save_toml", "save_toml_location", "log_prefix_mode", "run_name_mode", "tag_occurrence")
# Switches of other families' networks and of programs around them.
OTHER_FAMILY_KEYS = ("flux1_checkbox", "sd3_checkbox", "flux1", "sd3", "lumina", "hunyuan", "anima")


def read_command(text: str, folder: Path) -> Found | None:
    """The first trainer's command in a text, with the settings of its --config_file; None if it has none.

    folder: where the text's file is; files are looked for there too.
    Raises UserError for a trainer of another family or one that is not available yet, and for a config file
    that cannot be read.
    """
    script = read_script(text)
    runs = _runs(script)
    if not runs:
        return None
    words, workdir = runs[0]
    place = _trainer_place(words)
    assert place is not None
    name = _file_name(words[place])
    found = Found("sd-scripts", trainer_of(name), read_words(words[place + 1 :]))
    found.launch = _launch(words[:place])
    if name in OLD_NAMES:
        found.changes.append(f"{name} is called {OLD_NAMES[name]}")
    found.missing += [
        f"{what} could not be followed; look at what it stands for" for what in script.unresolved
    ]
    if len(runs) > 1:
        found.missing.append(f"{len(runs) - 1} more commands stand in it; give them one by one")
    if workdir:
        found.changes.append(f"relative paths are meant from {workdir}, where the command ran")
    _add_config_file(found, [Path.cwd() / workdir, folder / workdir, Path.cwd(), folder])
    return found


def _runs(script: Script) -> list[tuple[list[str], str]]:
    """The words of each command that runs a trainer, and the folder it runs in, "" if none was changed to."""
    runs: list[tuple[list[str], str]] = []
    workdir = ""
    for words in script.commands:
        if words[0].lower() in ("cd", "pushd", "set-location", "chdir") and len(words) > 1:
            target = words[-1].replace("\\", "/")
            workdir = target if target.startswith(("/", "~")) or ":" in target else f"{workdir}{target}"
            workdir = workdir.rstrip("/") + "/"
        elif _trainer_place(words) is not None:
            runs.append((words, workdir.removesuffix("/")))
        elif inner := next((word for word in words if " " in word and ".py" in word), None):  # bash -c "..."
            within = read_script(inner, script)
            runs += [(words, place or workdir.removesuffix("/")) for words, place in _runs(within)]
            script.unresolved += [what for what in within.unresolved if what not in script.unresolved]
    return runs


def _add_config_file(found: Found, folders: list[Path]) -> None:
    """Add what the command's --config_file has; what the command itself says wins. sd-scripts looks for the
    file from the folder in which the command runs.
    """
    target = found.options.pop("config_file", None)
    found.options.pop("output_config", None)
    if not isinstance(target, str) or not target:
        return
    name = target if target.endswith(".toml") else f"{target}.toml"
    path = next((place for folder in folders if _is_file(place := folder / name)), None)
    if path is None:
        found.missing.append(f"config_file {target} was not found; what it asks for is not in the new file")
        return
    inner = _options_in(read_tables(path), found)
    _refuse_families(inner)
    same = [key for key in inner if key in found.options]
    found.options = {**inner, **found.options}
    found.changes.append(f"the settings of {path.name} stand in the new file")
    if same:
        found.changes.append(f"the command's own value wins over the file's: {', '.join(same)}")


def _is_file(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def trainer_of(name: str) -> str:
    """Our trainer of that name. Raises UserError if there is none."""
    if _OTHER_FAMILIES.fullmatch(name):
        raise refused_family(name)
    if _LATER.fullmatch(name):
        raise UserError.of(name, "is not available yet", "see docs/options.md for what is")
    return OLD_NAMES.get(name, name)


def refused_family(where: str) -> UserError:
    """The error about a run of another family of models."""
    return UserError.of(where, "is for another family of models", "Atelier trains SD 1.x, SD 2.x and SDXL")


def read_words(words: Iterable[str]) -> Table:
    """Options of a command line by name: True for one without a value, a text or a list of texts."""
    options: Table = {}
    name = ""
    for word in words:
        word = re.sub("^[\u2013\u2014]", "--", word)
        if match := re.match(r"--([A-Za-z][\w-]*)(?:=(.*))?$", word, re.S):
            name = match[1].replace("-", "_")
            options[name] = True if match[2] is None else match[2]
        elif name and word.strip():
            earlier = options[name]
            if earlier is True:
                options[name] = word
            else:
                options[name] = [*(earlier if isinstance(earlier, list) else [earlier]), word]
    return options


def read_option_file(document: Mapping[str, Any]) -> Found | None:
    """A TOML option file of sd-scripts, kohya_ss, lora-scripts or LoRA_Easy_Training_Scripts; None if the
    document is none.
    """
    if is_easy_training(document):
        return _read_easy_scripts(document)
    found = Found("sd-scripts")
    options = found.options = _options_in(document, found)
    if (
        not {"pretrained_model_name_or_path", "output_dir", "network_module", "train_data_dir"}
        & options.keys()
    ):
        return None
    _refuse_families(options)
    if {"model_train_type", "lr_restart_cycles"} & _keys_in(document):
        found.program = "lora-scripts"
    kind = str(options.get("model_train_type", ""))
    if kind and not kind.startswith(("sd-", "sdxl-")):
        raise refused_family(f"model_train_type {kind}")
    is_sdxl = kind.startswith("sdxl") or Settings(options).is_on("sdxl")
    _choose_trainer(found, is_sdxl, is_network=bool(options.get("network_module")) or kind.endswith("lora"))
    for key in ("model_train_type", "sdxl"):
        options.pop(key, None)  # read above
    return found


def _options_in(document: Mapping[str, Any], found: Found) -> Table:
    """The options of a file, out of its tables; its dataset goes to `found`."""
    if is_easy_training(document):
        return _easy_options(document, found)
    options: Table = {}
    for key, value in document.items():
        options |= value if isinstance(value, dict) else {key: value}
    options = {key.removeprefix("--").replace("-", "_"): value for key, value in options.items()}
    cycles = options.pop("lr_restart_cycles", None)
    if cycles and "lr_scheduler_num_cycles" not in options and cycles != 1:
        options["lr_scheduler_num_cycles"] = cycles
        found.changes.append("lr_restart_cycles is called lr_scheduler_num_cycles (sd-scripts ignored it)")
    return options


def drop(found: Found, names: Iterable[str]) -> None:
    """Take options without meaning out; those that ask for something are listed."""
    for name in names:
        if not asks_nothing(found.options.pop(name, None)):
            found.idle.append(name)


def _keys_in(document: Mapping[str, Any]) -> set[str]:
    """The keys of a document and of its tables."""
    return {*document, *(key for table in document.values() if isinstance(table, dict) for key in table)}


def _read_easy_scripts(document: Mapping[str, Any]) -> Found:
    found = Found("LoRA_Easy_Training_Scripts")
    found.options = _easy_options(document, found)
    _refuse_families(found.options)
    _choose_trainer(found, Settings(found.options).is_on("sdxl"), is_network=True)
    found.options.pop("sdxl", None)
    return found


def _easy_options(document: Mapping[str, Any], found: Found) -> Table:
    """The options of the program's tabs; its pictures go to `found`."""
    options: Table = {}
    dataset: Table = {}
    for name, tab in document.items():
        if isinstance(tab, dict):
            options |= Settings(tab.get("args")).values
            dataset |= Settings(tab.get("dataset_args")).values
            stray = [key for key in tab if key not in ("args", "dataset_args", "train_mode")]
            found.missing += [f"{name}.{key} is not known" for key in stray]
        elif name != "subsets" and not asks_nothing(tab):
            found.missing.append(f"{name} is not known, and left out")
    subsets = document.get("subsets", [])
    if isinstance(subsets, list) and subsets:
        found.datasets = [{**dataset, "subsets": [_subset(row) for row in subsets if isinstance(row, dict)]}]
    else:
        options |= {"train_batch_size" if key == "batch_size" else key: dataset[key] for key in dataset}
    mode = document.get("train_mode", {})
    if isinstance(mode, dict) and mode.get("train_mode", "lora") != "lora":
        raise UserError.of(f"train_mode {mode['train_mode']}", "is not available yet", "see docs/options.md")
    ratio = options.pop("warmup_ratio", None)
    if ratio and not options.get("lr_warmup_steps"):
        options["lr_warmup_steps"] = ratio
        found.changes.append(f"warmup_ratio {ratio} is lr_warmup_steps {ratio}: a share of all steps")
    page = Settings({key: options.pop(key) for key in _EASY_PAGE if key in options})
    page.ignore(*_EASY_PAGE)
    page.unchosen({"log_prefix_mode": "disabled", "run_name_mode": "default"})
    found.idle += page.idle()
    return options


def _subset(row: Mapping[str, Any]) -> Table:
    """The name is for the program's page."""
    return {key: value for key, value in row.items() if key != "name" and value not in ("", None)}


def _choose_trainer(found: Found, is_sdxl: bool, *, is_network: bool) -> None:
    if is_network:
        found.trainer = "sdxl_train_network.py" if is_sdxl else "train_network.py"
        found.options.setdefault("network_module", "networks.lora")
    elif is_sdxl:
        found.trainer = "sdxl_train.py"
    else:
        found.trainer = "fine_tune.py" if found.options.get("in_json") else "train_db.py"


def _refuse_families(options: Mapping[str, Any]) -> None:
    for key in OTHER_FAMILY_KEYS:
        if Settings(dict(options)).is_on(key):
            raise refused_family(key)
    module = str(options.get("network_module") or "")
    if re.search(r"lora_(flux|sd3|lumina|hunyuan\w*|anima|qwen\w*|wan)", module):
        raise refused_family(f"network_module {module}")


def _trainer_place(words: list[str]) -> int | None:
    known = {*TRAINERS, *OLD_NAMES}
    names = [_file_name(word) for word in words]
    return next(
        (
            i
            for i, name in enumerate(names)
            if name in known or _LATER.fullmatch(name) or _OTHER_FAMILIES.fullmatch(name)
        ),
        None,
    )


def _file_name(word: str) -> str:
    return PurePosixPath(word.replace("\\", "/")).name


def _launch(words: list[str]) -> list[str]:
    """The words before the trainer: accelerate's are kept, of others only python."""
    for place, word in enumerate(words):
        if word == "launch" or word.endswith("accelerate.commands.launch"):
            return ["accelerate", "launch", *words[place + 1 :]]
        if _file_name(word).removesuffix(".exe") == "torchrun":
            return ["torchrun", *words[place + 1 :]]
    return ["python"]
