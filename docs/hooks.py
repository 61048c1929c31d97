"""Hooks of mkdocs: pages from outside docs/, the commands' reference, the list of decisions.

Every page keeps its path in the repository, so a relative link works in a checkout and in the site.
"""

import contextlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from boxpromptiml import cli
from data_prep import __main__ as data_prep

_ROOT = Path(__file__).parent.parent
_DECISIONS = sorted((_ROOT / "docs" / "decisions").glob("*.md"))
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(((?!https?:|mailto:|#)[^)#\s]+)(#[^)\s]*)?\)")
_COLUMNS = "84"  # what fits beside the navigation
_PREAMBLE = """Every option of every command, as `--help` prints it. `boxpromptiml validate`, `test`
and `predict` take the options of `fit`; the usual call is
`boxpromptiml test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt`.
`boxpromptiml data JOB` is the same as `python -m data_prep JOB`."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the entry of the decisions by a list of their pages."""
    pages = [_path(page) for page in _DECISIONS]
    config.nav[-1] = {"Decisions": ["docs/decisions/index.md", *pages]}  # type: ignore[index]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Move the files of docs/ below docs/, add READMEs of other folders and generated pages."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
            if not file.src_uri.endswith(".py"):
                _add(files, config, Path(config.docs_dir, file.src_uri))
    readmes = (path for path in _ROOT.glob("*/**/README.md") if _is_ours(path))
    for path in (*_ROOT.glob("*.md"), *readmes):
        _add(files, config, path)
    generated = {
        "docs/commands.md": _commands(),
        "docs/decisions/index.md": _decisions(),
        "examples/tour.md": _notebook(_ROOT / "examples" / "tour.ipynb"),
    }
    for name, content in generated.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files that are no pages into their text, links to folders into their index."""

    def replace(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        here = PurePosixPath(page.file.src_uri).parent
        path = os.path.normpath(here / target)
        if files.get_file_from_path(path) is not None:
            return match[0]
        if path.endswith(".ipynb"):
            return f"[{text}]({target.removesuffix('ipynb')}md)"
        for index in ("index.md", "README.md"):
            if files.get_file_from_path(f"{path}/{index}") is not None:
                return f"{image}[{text}]({target.rstrip('/')}/{index}{anchor or ''})"
        return text if (_ROOT / path).exists() else match[0]  # mkdocs reports what does not exist

    return _LINK.sub(replace, markdown)


def _path(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix()


def _is_ours(path: Path) -> bool:
    rooms = ("benchmarks", "boxpromptiml", "data_prep", "experiments", "tests")
    return path.relative_to(_ROOT).parts[0] in rooms


def _add(files: Files, config: MkDocsConfig, path: Path) -> None:
    files.append(File.generated(config, _path(path), abs_src_path=str(path)))


def _commands() -> str:
    """Markdown of every command's --help, as its parser writes it."""
    parts = ["# Commands", _PREAMBLE]
    for program, verbs in (
        ("boxpromptiml", [*cli._VERBS, "fit"]),
        ("python -m data_prep", list(data_prep._JOBS)),
    ):
        main = cli.main if program == "boxpromptiml" else data_prep.main
        parts += [f"## {program} {verb}\n\n```text\n{_help(main, verb)}```" for verb in verbs]
    return "\n\n".join(parts) + "\n"


def _help(main: Callable[[list[str]], int], verb: str) -> str:
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        main([verb, "--help"])
    if columns is None:
        del os.environ["COLUMNS"]
    else:
        os.environ["COLUMNS"] = columns
    return text.getvalue().replace(" \b", "").strip() + "\n"  # jsonargparse moves the cursor back


def _notebook(path: Path) -> str:
    """Markdown of a notebook without outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if code else text for text, code in texts)


def _decisions() -> str:
    lines = ["# Decisions", "", "What was chosen, why, and what else was considered.", ""]
    for path in _DECISIONS:
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)
