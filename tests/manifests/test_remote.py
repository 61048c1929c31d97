"""Images in object stores, on fsspec's store in memory and with the failures of real ones."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import sha256_file
from boxpromptiml.io.images import DEFAULT_LIMITS
from boxpromptiml.manifests import remote
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.manifests.remote import check_root, fetched
from data_prep.__main__ import main

ROOT = "memory://bucket/photos"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty store and an empty folder of copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_silences", Counter())
    system = fsspec.filesystem("memory")
    yield system
    if system.exists("/bucket"):
        system.rm("/bucket", recursive=True)


def uploaded(store: Any, data_root: Path, folder: Path) -> Path:
    """The manifest of the training images, which are in the store now."""
    manifest = read_manifest(data_root / "train.jsonl")
    root = manifest.path.parent / manifest.header.image_root
    for path in root.rglob("*"):
        if path.is_file() and path.suffix != ".jsonl":
            store.pipe_file(f"{ROOT}/{path.relative_to(root).as_posix()}", path.read_bytes())
    header = replace(manifest.header, image_root=ROOT)
    write_manifest(folder / "train.jsonl", header, manifest.samples)
    return folder / "train.jsonl"


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "masks").rglob("*.*")}


def job(manifest: Path, out: Path) -> int:
    return main(["pseudo-masks", f"--manifest={manifest}", f"--out={out}", "--allow_remote=true"])


def test_a_remote_job_makes_the_masks_of_a_local_one_and_fetches_once(
    store: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = uploaded(store, data_root, tmp_path)
    assert job(manifest, tmp_path / "remote") == 0
    assert job(data_root / "train.jsonl", tmp_path / "local") == 0
    assert masks(tmp_path / "remote") == masks(tmp_path / "local") != {}
    made = read_manifest(tmp_path / "remote" / "manifest.jsonl", allow_remote=True)
    assert made.header.image_root == ROOT
    checked = ["check", f"--manifest={made.path}", "--verify=true", "--allow_remote=true"]
    assert main([*checked, f"--out={tmp_path / 'check'}"]) == 0

    monkeypatch.setattr(type(store), "cat_file", None)  # all is here already
    assert job(manifest, tmp_path / "again") == 0
    assert masks(tmp_path / "again") == masks(tmp_path / "local")


def test_a_remote_root_needs_the_option_and_a_known_store(
    store: Any, data_root: Path, tmp_path: Path
) -> None:
    manifest = uploaded(store, data_root, tmp_path)
    with pytest.raises(UserError, match=r"train.jsonl:1: its images are in memory://.*--allow_rem"):
        read_manifest(manifest)
    for root in (
        "http://host/x", "file:///etc", "s3://", "s3://bucket/../other", "zip://a::s3://b/c",
        "simplecache::s3://bucket/x",
    ):  # fmt: skip
        with pytest.raises(UserError, match="is no address of a folder below s3://"):
            check_root(root)
        header = replace(read_manifest(data_root / "train.jsonl").header, image_root=root)
        write_manifest(tmp_path / "bad.jsonl", header, [])
        with pytest.raises(UserError, match=r"bad.jsonl:1: image_root"):
            read_manifest(tmp_path / "bad.jsonl", allow_remote=True)
    write_manifest(tmp_path / "bad.jsonl", replace(header, image_root=".", pseudo_root=ROOT), [])
    with pytest.raises(UserError, match="pseudo_root must be a folder"):
        read_manifest(tmp_path / "bad.jsonl", allow_remote=True)


def test_a_package_that_is_missing_is_one_error_before_the_job(
    store: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = uploaded(store, data_root, tmp_path)
    missing = failing(ImportError("Install s3fs to access S3"))
    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    assert job(manifest, tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()


def failing(error: Exception) -> Any:
    def fail(*args: Any, **options: Any) -> bytes:
        raise error

    return fail


@pytest.mark.parametrize(
    ("method", "answer", "reason"),
    [
        ("cat_file", lambda *args, **options: b"\xff\xd8", "cut"),
        ("cat_file", failing(OSError("503 SlowDown")), "unreachable"),
        ("cat_file", failing(TimeoutError("no answer")), "unreachable"),
        ("cat_file", failing(RuntimeError("a bug of the store's package")), "unreachable"),
        ("info", failing(PermissionError("403 Forbidden")), "permission"),
        ("info", lambda *args: {"size": DEFAULT_LIMITS.max_bytes + 1}, "too_many_bytes"),
        ("info", lambda *args: {"size": 0}, "empty"),
    ],
)
def test_a_fault_of_the_store_rejects_the_image_and_keeps_nothing(
    store: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    answer: Any,
    reason: str,
) -> None:
    store.pipe_file(f"{ROOT}/a.jpg", b"\xff\xd8 and more")
    with monkeypatch.context() as broken:
        broken.setattr(type(store), method, answer)
        with pytest.raises(RejectedInput, match=f"{ROOT}/a.jpg: ") as caught:
            fetched(ROOT, "a.jpg", None)
    assert caught.value.reason == reason
    assert not list((tmp_path / "cache").rglob("*.*"))
    assert fetched(ROOT, "a.jpg", None).read_bytes() == b"\xff\xd8 and more"


def test_a_store_that_does_not_answer_is_not_waited_for_at_every_image(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Silent(AsyncFileSystem):  # type: ignore[misc]
        cachable = False

        async def _info(self, path: str, **_: object) -> None:
            asked.append(path)
            await asyncio.sleep(60)

    monkeypatch.setattr(fsspec, "filesystem", lambda _: Silent())
    monkeypatch.setattr(remote, "_SECONDS", 0.05)
    for number in range(5):
        said = "no answer in 0.05 s" if number < 3 else "left 3 requests unanswered"
        with pytest.raises(RejectedInput, match=said) as caught:
            fetched(ROOT, f"{number}.jpg", None)
        assert caught.value.reason == "unreachable"
    assert len(asked) == 3


def test_what_changed_in_the_store_or_here_is_not_used(store: Any, tmp_path: Path) -> None:
    store.pipe_file(f"{ROOT}/a.jpg", b"one")
    first = fetched(ROOT, "a.jpg", None)
    known = sha256_file(first)
    copy = fetched(ROOT, "a.jpg", known)
    copy.write_bytes(b"two")
    assert fetched(ROOT, "a.jpg", known).read_bytes() == b"one"
    copy.unlink()
    store.pipe_file(f"{ROOT}/a.jpg", b"six")
    with pytest.raises(RejectedInput, match=r"\[changed\]"):
        fetched(ROOT, "a.jpg", known)
    assert fetched(ROOT, "a.jpg", None).read_bytes() == b"six"
    with pytest.raises(RejectedInput, match=r"\[missing\]"):
        fetched(ROOT, "b.jpg", None)


def test_a_failed_image_is_listed_by_its_address_and_made_by_the_next_run(
    store: Any, data_root: Path, tmp_path: Path
) -> None:
    manifest = uploaded(store, data_root, tmp_path)
    sample, other, *_ = (one for one in read_manifest(manifest, True).samples if one.boxes)
    address = f"{ROOT}/{sample.image}"
    data = store.cat_file(address)
    store.rm_file(address)
    store.rm_file(f"{ROOT}/{other.mask}")  # the audit leaves it out
    assert job(manifest, tmp_path / "out") == 3
    assert f'"{address}"' in (tmp_path / "out" / "errors.jsonl").read_text()
    store.pipe_file(address, data)
    assert job(manifest, tmp_path / "out") == 0
    assert (tmp_path / "out" / "errors.jsonl").read_text() == ""
