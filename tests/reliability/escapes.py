"""A7: archives and annotations that try to write or read outside their folder."""

import stat
import zipfile
from pathlib import Path

from tests.helpers.commands import run
from tests.reliability.figures import Figure, judged
from tests.reliability.material import make_manifest, read_jsonl, row, write_mask, write_rows

_IMAGES, _MASKS = "label_in_wild/images/", "label_in_wild/masks/"
_NAMES = (
    "../evil.jpg", "../../evil.jpg", "/var/evil.jpg", "//server/evil.jpg", "..\\evil.jpg",
    "C:/evil.jpg",
    "C:\\evil.jpg", f"{_IMAGES}../../../evil.jpg", f"{_IMAGES}..", f"{_IMAGES}./../../../evil.jpg",
    f"{_IMAGES}..\\..\\..\\evil.jpg", f"{_IMAGES}a\0/../../../evil.jpg", "\\\\?\\C:\\evil.jpg",
    f"/{_IMAGES}evil.jpg", f"{_IMAGES}%2e%2e/%2e%2e/%2e%2e/%2e%2e/evil.jpg",
    f"{_IMAGES}\u2025/\u2025/evil.jpg",
    f"{_IMAGES}....//....//evil.jpg", "~/evil.jpg", "$HOME/evil.jpg",
)  # fmt: skip
_LINKS = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)


def nothing_escapes(work: Path) -> Figure:
    """Import archives with hostile members; read manifests with hostile paths.

    Every byte that appears outside the folder of an import is a fault, and so is a secret that an
    output holds.
    """
    make_manifest(work / "sound", 1)
    picture = next((work / "sound" / "tampered").iterdir()).read_bytes()
    write_mask(work / "sound" / "mask.png")
    mask = (work / "sound" / "mask.png").read_bytes()
    faults: list[str] = []
    cases = [(repr(name), name, picture, stat.S_IFREG) for name in _NAMES]
    link = f"{_IMAGES}l.jpg"
    cases += [(f"member of type {kind:o}", link, b"/etc/passwd", kind) for kind in _LINKS]
    for number, (what, name, data, kind) in enumerate(cases):
        home = work / f"case_{number:02d}"
        home.mkdir()
        with zipfile.ZipFile(home / "a.zip", "w") as stream:
            stream.writestr(f"{_IMAGES}sound.jpg", picture)
            stream.writestr(f"{_MASKS}sound.png", mask)
            _add(stream, name, data, kind)
        before = _files(work)
        out = home / "deep" / "er" / "out"
        ended = run(
            ["data_prep", "import", "--dataset=in_the_wild", f"--source={home / 'a.zip'}",
             f"--out={out / 'm.jsonl'}"],
        )  # fmt: skip
        new = _files(work) - before
        faults += [f"{what}: wrote {path}" for path in new if out not in path.parents]
        faults += [f"{what}: made a link" for path in new if path.is_symlink()]
        if ended.crashed or ended.status not in (0, 1, 3):
            faults.append(f"{what}: ended with {ended.status}: {ended.said[-200:]}")
    manifests, found = _manifests(work)
    outside = [path for path in (Path("/var/evil.jpg"), Path.home() / "evil.jpg") if path.exists()]
    faults += found + [f"{path} was written" for path in outside]
    reached = (
        f"{len(cases)} archives and {manifests} manifest paths: {len(faults)} bytes, links or "
        "reads outside"
    )
    return judged("A7", "archive and path escapes: 0 bytes outside the root", reached, faults)


def _add(stream: zipfile.ZipFile, name: str, data: bytes, kind: int) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    info.external_attr = (kind | 0o777) << 16
    stream.writestr(info, data)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _manifests(work: Path) -> tuple[int, list[str]]:
    """Rows whose image, mask or pseudo-mask lies outside; a secret beside the root."""
    root = work / "manifests" / "root"
    make_manifest(root, 1)
    picture = next((root / "tampered").iterdir())
    secret = root.parent / "secret.jpg"
    secret.write_bytes(picture.read_bytes())
    (root / "link.jpg").symlink_to(secret)
    (root / "out").symlink_to(root.parent)
    paths = ("../secret.jpg", str(secret), "tampered/../../secret.jpg", "link.jpg",
             "out/secret.jpg", "..\\secret.jpg", "a\0b", "", ".", "C:secret.jpg")  # fmt: skip
    faults: list[str] = []
    for number, path in enumerate(paths):
        for field in ("image", "mask"):
            manifest = root / f"{field}_{number}.jsonl"
            sound = f"tampered/{picture.name}"
            write_rows(manifest, [row("a", **({"image": sound} | {field: path}))])
            out = work / "manifests" / f"{field}_{number}"
            ended = run(
                ["data_prep", "check", f"--manifest={manifest}", f"--out={out}", "--verify"]
            )
            errors = read_jsonl(out / "errors.jsonl")
            if ended.crashed or ended.status != 3 or len(errors) != 1:
                faults.append(f"{field} {path!r}: {ended.status}: {errors} {ended.said[-200:]}")
    return 2 * len(paths), faults
