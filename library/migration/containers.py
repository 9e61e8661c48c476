"""Commands in files of containers (Dockerfile, compose, Kubernetes) -> a bash script with the same ones."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

_KEYS = ("entrypoint", "command", "args")


def is_container_file(text: str) -> bool:
    """Whether a text is YAML that starts containers."""
    return re.search(rf"^\s*(- )?({'|'.join(_KEYS)}):", text, re.M) is not None


def script_of_containers(document: object) -> str:
    """The commands of all containers in a YAML document, a line each."""
    return "\n".join(" ".join(words) for words in _commands(document))


def script_of_dockerfile(text: str) -> str | None:
    """The commands of a Dockerfile; None if the text is none."""
    if not re.search(r"^FROM\s+\S", text, re.M | re.I):
        return None
    text = re.sub(r"\\[ \t]*\r?\n", " ", text)
    lines = []
    for line in text.splitlines():
        if match := re.match(r"\s*(ENV|WORKDIR|RUN|CMD|ENTRYPOINT)\s+(.*)", line, re.I):
            lines.append(_shell_line(match[1].upper(), match[2].strip()))
    return "\n".join(lines)


def _shell_line(instruction: str, rest: str) -> str:
    if instruction == "WORKDIR":
        return f"cd {rest}"
    if instruction == "ENV":
        return "export " + re.sub(r"^(\w+)\s+(?!=)", r"\1=", rest)
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except (ValueError, RecursionError):
            return rest
        return shlex.join(map(str, words)) if isinstance(words, list) else rest
    return rest


def _commands(document: object) -> Iterator[list[str]]:
    """The shell words of each container: its entrypoint, command and args together."""
    waiting = [document]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, dict):
            if words := [part for key in _KEYS for part in _quoted(value.get(key))]:
                yield words
            waiting.extend(inner for key, inner in value.items() if key not in _KEYS)
        elif isinstance(value, list):
            waiting.extend(value)


def _quoted(value: Any) -> list[str]:
    if isinstance(value, list):
        return [shlex.quote(str(word)) for word in value]
    return [" ".join(value.split("\n"))] if isinstance(value, str) else []
