"""What the names of CASIA v1 and v2 say: `<prefix>_<..>_cha00063_art00014_11818`."""

import re
from collections.abc import Mapping

from data_prep.importers.layout import connected

_SOURCE = re.compile(r"_([a-z]{3})_?(\d+)(?=[_.]|$)", re.IGNORECASE)
KINDS = {"D": "splice", "S": "copymove"}  # from Different images, from the Same image


def groups(dataset: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Group of every key, so that images of one source photograph stay together.

    A splice joins its two photographs, so groups are the connected components; `xxx00000` stands
    for a photograph that is not in the dataset and joins nothing.

    Args:
        names: Names that carry the sources, by key.
    """
    chains = {key: [s for name in names[key] for s in sources(name)] or [key] for key in names}
    component = connected(chains.values())
    return {key: f"{dataset}/{component[chain[0]]}" for key, chain in chains.items()}


def sources(name: str) -> list[str]:
    """Photographs that a name refers to, `cha00063` and `cha0063` being the same."""
    found = [(kind.lower(), int(number)) for kind, number in _SOURCE.findall(name)]
    return [f"{kind}{number}" for kind, number in found if (kind, number) != ("xxx", 0)]
