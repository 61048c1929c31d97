"""A11: the tests have no network, nor do the processes that they start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offline import sitecustomize

TRY = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.connect(("192.0.2.1", 9))  # sends nothing, whatever happens
"""


def test_other_machines_cannot_be_reached() -> None:
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            with pytest.raises(OSError, match="no network"):
                out.connect((address, 9))
            with pytest.raises(OSError, match="no network"):
                out.connect_ex((address, 9))
    with pytest.raises(OSError, match="no network"):
        socket.getaddrinfo("example.invalid", 443)


def test_nor_by_a_process_that_a_test_starts() -> None:
    folder = Path(sitecustomize.__file__).parent  # as conftest has it; other tests may change it
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", TRY], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert "no network" in done.stderr


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_server_of_the_test_can_be(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection((name, server.getsockname()[1])) as out:
            out.sendall(b"here")
        taken, _ = server.accept()
        with taken:
            assert taken.recv(4) == b"here"


def test_a_unix_socket_can_be(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as out:
        server.bind(str(tmp_path / "s"))
        server.listen()
        out.connect(str(tmp_path / "s"))
