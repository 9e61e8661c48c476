"""A stand-in for the Hugging Face hub: the few endpoints that uploads and downloads need, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_canarycanarycanary"
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass
class Repository:
    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])  # the files after each
    names: dict[str, str] = field(default_factory=dict)  # revision -> sha

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        shas = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(len(self.commits))]
        sha = shas[-1] if revision == "main" else self.names.get(revision, revision)
        return sha, self.commits[shas.index(sha)]


@dataclass
class Hub:
    """What the stand-in holds, and what it is to do wrong.

    faults: [method and part of the path, what happens, how often]: a status, "drop" (the connection), or
    seconds to wait.
    """

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: list[list[Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    role: str = "write"
    url: str = ""

    def fault_of(self, request: str) -> Any:
        for fault in self.faults:
            if fault[2] > 0 and all(part in request for part in fault[0].split()):
                fault[2] -= 1
                return fault[1]
        return None


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A running stand-in."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = self.hub.fault_of(request)
        if fault == "drop":
            self.connection.close()
            self.close_connection = True
            return
        if isinstance(fault, float):
            time.sleep(fault)
        known = path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if isinstance(fault, int):
            self._send(fault, {"error": "made to fail"})
        elif not known:
            self._send(401, {"error": "Invalid credentials"})
        else:
            self._route(path, body)

    def _route(self, path: str, body: bytes) -> None:
        repo = r"(?P<kinds>datasets/|spaces/)?(?P<id>[^/]+/[^/]+)"
        api = r"/api/(?P<kinds>\w+)/(?P<id>[^/]+/[^/]+)"
        routes = {
            r"/api/whoami-v2": self._whoami,
            r"/api/repos/create": self._create,
            r"/lfs/(?P<oid>.*)": self._store,
            rf"/{repo}\.git/info/lfs/objects/batch": self._batch,
            rf"{api}/preupload/(?P<revision>.+)": self._preupload,
            rf"{api}/commit/(?P<revision>.+)": self._commit,
            rf"{api}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?": self._tree,
            rf"{api}(/revision/(?P<revision>[^/]+))?": self._info,
            rf"/{repo}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": self._file,
        }
        for pattern, act in routes.items():
            if found := re.fullmatch(pattern, path):
                act(body, found.groupdict())
                return
        self._send(404, {"error": f"no endpoint {path}"})

    def _repository(self, names: dict[str, str | None]) -> Repository | None:
        kind = KINDS[(names.get("kinds") or "models").strip("/")]
        found = self.hub.repositories.get((kind, str(names["id"])))
        if found is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return found

    def _commit_of(self, names: dict[str, str | None]) -> tuple[str, dict[str, bytes]] | None:
        repository = self._repository(names)
        if repository is None:
            return None
        try:
            return repository.at(names.get("revision") or "main")
        except ValueError:
            self._send(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
            return None

    def _whoami(self, body: bytes, names: dict) -> None:
        self._send(200, {"name": "me", "auth": {"accessToken": {"role": self.hub.role}}})

    def _create(self, body: bytes, names: dict) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        key = (asked.get("type") or "model", name)
        self.hub.repositories.setdefault(
            key, Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
        )
        self._send(200, {"url": f"{self.hub.url}/{name}", "id": name})

    def _info(self, body: bytes, names: dict) -> None:
        if found := self._commit_of(names):
            siblings = [{"rfilename": path} for path in found[1]]
            self._send(200, {"id": names["id"], "sha": found[0], "siblings": siblings, "private": True})

    def _tree(self, body: bytes, names: dict) -> None:
        if found := self._commit_of(names):
            within = names["folder"] or ""
            self._send(
                200,
                [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in found[1].items()
                    if path.startswith(within)
                ],
            )

    def _file(self, body: bytes, names: dict) -> None:
        found = self._commit_of(names)
        if found is None:
            return
        data = found[1].get(names["path"])
        if data is None:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        digest = hashlib.sha256(data).hexdigest()
        self._send_bytes(200, data, {"ETag": f'"{digest}"', "X-Repo-Commit": found[0]})

    def _preupload(self, body: bytes, names: dict) -> None:
        if self._repository(names):
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "regular" if path.endswith(".json") else "lfs" for path in paths}
            answer = [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]
            self._send(200, {"files": answer})

    def _batch(self, body: bytes, names: dict) -> None:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, names: dict) -> None:
        assert hashlib.sha256(body).hexdigest() == names["oid"]
        self.hub.blobs[names["oid"]] = body
        self._send(200, {})

    def _commit(self, body: bytes, names: dict) -> None:
        repository = self._repository(names)
        if repository is None:
            return
        files = dict(repository.files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        repository.commits.append(files)
        sha = repository.at("main")[0]
        url = f"{self.hub.url}/{names['id']}/commit/{sha}"
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(
            status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {})
        )

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
