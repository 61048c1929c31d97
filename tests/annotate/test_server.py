"""The server over real sockets: who is refused, what is bounded, how it ends."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import cast

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from boxpromptiml.annotate.desk import Desk
from boxpromptiml.annotate.server import Guard, serve
from boxpromptiml.annotate.storage import read_saved
from boxpromptiml.io import images
from boxpromptiml.io.processes import child_environment, python_command
from boxpromptiml.manifests.manifest import read_manifest
from tests.annotate.test_layers import scene

JSON = {"content-type": "application/json"}


@dataclass
class Running:
    """A page in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    said: str = ""

    @property
    def port(self) -> int:
        return int(self.address.split("/")[2].partition(":")[2])

    @property
    def root(self) -> str:
        return self.address.partition(f":{self.port}")[2]

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        root: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request; POSTs come from the page unless told else."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        own = {"Host": f"127.0.0.1:{self.port}"}
        if method == "POST":
            own["Origin"] = f"http://127.0.0.1:{self.port}"
        sent = {name: value for name, value in (own | (headers or {})).items() if value}
        connection.putrequest(method, (self.root if root is None else root) + path,
                              skip_host=True, skip_accept_encoding=True)  # fmt: skip
        if body is not None and "Content-Length" not in sent:
            sent["Content-Length"] = str(len(body))
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body is not None:
            connection.send(body)
        answer = connection.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        self.said = self.process.communicate(timeout=60)[0]
        return self.process.returncode


def start(*words: str, environment: dict[str, str] | None = None) -> Running:
    return started(python_command("-m", "boxpromptiml", *words), environment)


def started(command: list[str], environment: dict[str, str] | None = None) -> Running:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=child_environment() | (environment or {}),
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line.startswith("http://"):
            return Running(process, line.split()[0])
        lines.append(line)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for name in ("a.png", "b.png"):
        images.write_png(root / name, scene())
    (root.parent / "secret.png").write_bytes((root / "a.png").read_bytes())
    return root


@pytest.fixture(scope="module")
def annotate(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    out = tmp_path_factory.mktemp("out") / "boxes.json"
    running = start("annotate", "--images", str(folder), "--out", str(out))
    yield running
    running.process.kill()
    running.process.wait()


def test_it_listens_on_this_machine_only(annotate: Running) -> None:
    assert annotate.address.startswith("http://127.0.0.1:")
    with (
        pytest.raises(OSError, match="refused"),
        socket.create_connection(("127.0.0.2", annotate.port), 5),
    ):  # the same machine by another address
        pass


def test_the_page_is_served_with_its_policy(annotate: Running) -> None:
    for path in ("", "page.js", "view.js", "requests.js", "style.css", "icon.svg", "state"):
        status, headers, body = annotate.ask(path)
        assert (status, len(body) > 90) == (200, True), path
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert b"http:" not in annotate.ask("")[2]
    assert annotate.ask("photographs/0/picture")[2][:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "root", ["/", "/state", "/x/", "//", "/%C3%A9/", "/%00/", "/" + "x" * 5000 + "/"]
)
def test_nothing_without_the_token(annotate: Running, root: str) -> None:
    status, _, body = annotate.ask("", root=root)
    assert status in (400, 404)
    assert b"<html" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "", "127.0.0.1:1"]
)
def test_other_names_of_this_machine_are_refused(annotate: Running, host: str) -> None:
    """A site whose name was made to point here (DNS rebinding) sends its own name."""
    assert annotate.ask("state", headers={"Host": host})[0] in (400, 421)
    assert annotate.ask("state", headers={"Host": f"localhost:{annotate.port}"})[0] == 200


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"Origin": "http://evil.example"}),
        ("POST", {"Origin": "null"}),
        ("POST", {"Origin": ""}),
        ("POST", {"Origin": "http://127.0.0.1"}),
        ("GET", {"Origin": "http://evil.example"}),
        ("GET", {"Sec-Fetch-Site": "cross-site"}),
        ("GET", {"Sec-Fetch-Site": "same-site"}),  # another port of this machine
    ],
)
def test_other_sites_are_refused(annotate: Running, method: str, headers: dict[str, str]) -> None:
    body = b"{}" if method == "POST" else None
    path = "photographs/0" if body else "state"
    assert annotate.ask(path, method, body, headers=headers)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png", "photographs/../../secret.png", "photographs/..%2f..%2fsecret.png/picture",
        "photographs/-1", "photographs/2", "photographs/99999999999999999999/picture",
        "photographs/0/picture/../../../secret.png", "static/page.js", "page.py", "desk.py",
    ],
)  # fmt: skip
def test_no_file_outside_is_reachable(annotate: Running, path: str) -> None:
    assert annotate.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(annotate: Running, method: str) -> None:
    assert annotate.ask("photographs/0", method)[0] in (403, 405)


def test_bodies_are_bounded(annotate: Running) -> None:
    large = {"Content-Length": str(2**40)}
    assert annotate.ask("photographs/0", "POST", b"", headers=large)[0] == 413
    assert annotate.ask("photographs/0", "POST", b"x" * (2**16 + 1))[0] == 413
    assert annotate.ask("uploads?name=a.png", "POST", b"", headers=large)[0] == 413
    chunked = {"Transfer-Encoding": "chunked", "Content-Length": ""}
    endless = b"10000\r\n" + b"x" * 2**16 + b"\r\n" + b"10000\r\n" + b"x" * 2**16 + b"\r\n0\r\n\r\n"
    assert annotate.ask("photographs/0", "POST", endless, headers=chunked)[0] == 413
    assert annotate.ask("state")[0] == 200


def test_mistakes_are_one_line(annotate: Running) -> None:
    for path in (
        "photographs/0/mask",
        "photographs/0/mask?box=1,2,3",
        "photographs/0/mask?box=a,b,c,d",
    ):
        assert annotate.ask(path)[0] == 400
    status, headers, body = annotate.ask("photographs/0/mask?box=nan,0,5,5")
    assert (status, headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert b"\n" not in body
    assert annotate.ask("uploads?name=a.png", "POST", b"x")[0] == 422  # annotate takes none
    assert annotate.ask("photographs/" + "9" * 5000)[0] == 414


def test_saving_and_conflicts(annotate: Running) -> None:
    change = {"revision": 0, "verdict": "manipulated", "boxes": [[40, 18, 120, 72]],
              "finished": False, "seconds": 3}  # fmt: skip
    body = json.dumps(change).encode()
    status, _, answer = annotate.ask("photographs/1", "POST", body, headers=JSON)
    assert (status, json.loads(answer)) == (200, {"revision": 1})
    assert annotate.ask("photographs/1", "POST", body, headers=JSON)[0] == 409
    assert json.loads(annotate.ask("summary")[2])["manipulated"] == 1
    about = json.loads(annotate.ask("photographs/1/mask?box=40,18,120,72")[1]["x-about"])
    assert about.keys() == {"window", "score", "area", "note"}


def test_a_slow_upload_stalls_no_other(folder: Path) -> None:
    running = start("page")
    data = (folder / "a.png").read_bytes()
    head = (
        f"POST {running.root}uploads?name=slow.png HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
        f"Origin: http://127.0.0.1:{running.port}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port)) as slow:
        slow.sendall(head.encode() + data[:100])
        assert running.ask("state")[0] == 200
        assert running.ask("uploads?name=a.png", "POST", data)[0] == 200
    assert running.end() == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_uploads_leave_nothing_on_the_disk(
    folder: Path, tmp_path: Path, number: int, status: int
) -> None:
    running = start("page", environment={"TMPDIR": str(tmp_path), "HOME": str(tmp_path)})
    data = (folder / "a.png").read_bytes()
    assert running.ask("uploads?name=a.png", "POST", data)[0] == 200
    assert running.ask("photographs/0/picture")[0] == 200
    assert running.end(number) == status
    assert "Traceback" not in running.said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(OSError, match="refused"):
        running.ask("state")


def test_it_ends_while_a_request_is_under_way(folder: Path) -> None:
    running = start("page", "--images", str(folder))
    with socket.create_connection(("127.0.0.1", running.port)) as waiting:
        waiting.sendall(f"GET {running.root}state HTTP/1.1\r\n".encode())  # and no more
        began = time.monotonic()
        assert running.end(signal.SIGTERM) == 143
        assert time.monotonic() - began < 30


STUCK = """
from threading import Event
from types import SimpleNamespace
from boxpromptiml.annotate.server import serve
stuck = lambda *_: Event().wait()
serve(SimpleNamespace(album=range(1), state=dict, map=stuck, mask=stuck), 0)
"""


def test_a_network_that_never_ends_stalls_neither_the_page_nor_its_end() -> None:
    running = started(python_command("-c", STUCK))
    with ExitStack() as stack:
        for what in 50 * ("map", "mask?box=0,0,9,9"):  # more than there are threads
            address = ("127.0.0.1", running.port)
            one = stack.enter_context(socket.create_connection(address))
            head = f"GET {running.root}photographs/0/{what} HTTP/1.1\r\n"
            one.sendall(f"{head}Host: 127.0.0.1:{running.port}\r\n\r\n".encode())
        assert running.ask("state")[0] == 200
        began = time.monotonic()
        assert running.end(signal.SIGTERM) == 143
        assert time.monotonic() - began < 30


def test_a_request_that_is_cut_off_at_the_end_leaves_no_traceback() -> None:
    sent: list[Message] = []

    async def cancelled(_: Scope, __: Receive, ___: Send) -> None:
        raise asyncio.CancelledError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/t/state",
             "headers": [(b"host", b"127.0.0.1:1")]}  # fmt: skip
    asyncio.run(Guard(cancelled, "t", 1)(scope, cast("Receive", None), send))
    assert sent[0]["status"] == 503


def test_a_body_that_ends_early_is_no_event(folder: Path, tmp_path: Path) -> None:
    running = start("annotate", "--images", str(folder), "--out", str(tmp_path / "boxes.json"))
    host = f"127.0.0.1:{running.port}"
    with socket.create_connection(("127.0.0.1", running.port)) as leaving:
        head = f"POST {running.root}photographs/0 HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}"
        leaving.sendall(f"{head}\r\nContent-Length: 100\r\n\r\n{{".encode())
        running.ask("state")  # the server has begun to read
    running.ask("state")
    running.end()
    assert "Traceback" not in running.said


def test_what_was_acknowledged_survives_kill_9(folder: Path, tmp_path: Path) -> None:
    """Two windows save as fast as they can; the process is killed among it."""
    out = tmp_path / "boxes.json"
    running = start("annotate", "--images", str(folder), "--out", str(out))
    acknowledged = {0: 0, 1: 0}

    def save(number: int) -> None:
        with suppress(OSError, http.client.HTTPException):
            while True:
                change = {"revision": acknowledged[number], "verdict": "authentic", "boxes": [],
                          "finished": True, "seconds": acknowledged[number] + 1}  # fmt: skip
                body = json.dumps(change).encode()
                if running.ask(f"photographs/{number}", "POST", body)[0] == 200:
                    acknowledged[number] += 1

    threads = [Thread(target=save, args=(number,)) for number in acknowledged]
    for thread in threads:
        thread.start()
    while min(acknowledged.values()) < 5:
        time.sleep(0.01)
    assert running.end(signal.SIGKILL) == -9
    for thread in threads:
        thread.join()
    found = list(read_saved(out).annotations.values())
    for number, count in acknowledged.items():
        assert count <= found[number].seconds <= count + 1  # the last may be saved unheard
    read_manifest(out.with_suffix(".jsonl"))
    again = start("annotate", "--images", str(folder), "--out", str(out))
    assert json.loads(again.ask("summary")[2])["authentic"] == 2
    again.end()
    assert list(tmp_path.glob(".*.tmp")) == []


def test_sigterm_while_the_event_loop_is_made_leaves_none_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def terminated() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        os.kill(os.getpid(), signal.SIGTERM)
        return made[0]

    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", lambda _: terminated)
    with pytest.raises(SystemExit) as ended:
        serve(cast(Desk, None), 0)
    assert ended.value.code == 143
    assert made[0].is_closed()
