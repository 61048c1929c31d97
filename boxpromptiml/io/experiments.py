"""The experiments that travel with the package: the YAML files of the repository's experiments/.

A wheel installs them under share/boxpromptiml/experiments; in a checkout they lie beside the
package.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

_SHARE = "share/boxpromptiml/experiments"


def packaged_experiments() -> dict[str, Path]:
    """The packaged files by name, such as `native` and `studies/supervision`, sorted by name."""
    folder = _folder()
    if folder is None:
        return {}
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in _below(folder)}
    return dict(sorted(found.items()))


def find_experiment(text: str) -> str:
    """The path that a configuration's name means.

    Args:
        text: A path, or the name of a packaged experiment with or without the leading
            `experiments/` and the ending.

    Returns:
        `text` itself if there is such a file or no packaged experiment of the name, else the path
        of the packaged one.
    """
    if Path(text).is_file():
        return text
    name = text.removeprefix("experiments/").removesuffix(".yaml")
    return str(packaged_experiments().get(name, text))


def _folder() -> Path | None:
    checkout = Path(__file__).parents[2] / "experiments"
    if (checkout / "base.yaml").is_file():
        return checkout
    try:
        installed = files("boxpromptiml") or []
    except PackageNotFoundError:
        return None
    base = next((f for f in installed if f.as_posix().endswith(f"{_SHARE}/base.yaml")), None)
    return None if base is None else Path(str(base.locate())).resolve().parent


def _below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.yaml") if path.is_file()]
