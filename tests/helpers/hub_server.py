"""A Hub of one's own: as much of the Hugging Face Hub's HTTP as publishing and fetching need."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Keeps what is uploaded.

    Attributes:
        files: Content by `owner/name/path`.
        asked: "METHOD path" of every request.
        made: The wishes of every repository that was to be made.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.made: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path.startswith("/api/"):  # only asked by who was refused before
            return self._json({"error": "Invalid user token"}, 401)
        owner, name, _, _, path = self.path.lstrip("/").split("/", 4)
        content = self.server.files.get(f"{owner}/{name}/{path}")
        if content is None:
            known = any(one.startswith(f"{owner}/{name}/") for one in self.server.files)
            return self._answer(404, b"", {"X-Error-Code": ("Repo", "Entry")[known] + "NotFound"})
        etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return self._answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_known":
            return self._json({"error": "Invalid user token"}, 401)
        if self.path == "/api/repos/create":
            wishes = json.loads(body)
            self.server.made.append(wishes)
            return self._json({"url": f"{self.server.address}/us/{wishes['name']}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        repo = self.path.removeprefix("/api/models/").rsplit("/", 2)[0]
        if self.path.endswith("/preupload/main"):
            paths = [one["path"] for one in json.loads(body)["files"]]
            kinds = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return self._json({"files": kinds})
        for line in body.splitlines():  # of .../commit/main
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.server.files[f"{repo}/{entry['value']['path']}"] = content
        url = f"{self.server.address}/{repo}/commit/{COMMIT}"
        return self._json({"success": True, "commitUrl": url, "commitOid": COMMIT})

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests have no use for it."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
