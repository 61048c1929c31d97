"""Public datasets, one module each: every `DatasetLayout` that is defined in a module here."""

import importlib
import pkgutil

from data_prep.importers.layout import DatasetLayout

_MODULES = [
    importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
]
PUBLIC: dict[str, DatasetLayout] = {
    layout.name: layout
    for module in _MODULES
    for layout in vars(module).values()
    if isinstance(layout, DatasetLayout)
}
