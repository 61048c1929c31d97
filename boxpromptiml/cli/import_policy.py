"""What a configuration may contain: our classes and Lightning's, in plain YAML.

A `class_path` in YAML imports a module and calls what it finds there, so an untrusted file could
run any code. jsonargparse checks every path against these lists, nested ones included, and checks
again where the object found was defined. The YAML itself is checked (`io.strict_yaml`), and older
names are accepted.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from boxpromptiml.errors import UserError
from boxpromptiml.io.old_names import renamed
from boxpromptiml.io.strict_yaml import check_yaml

_ALLOWED = (
    "boxpromptiml.DistillTask",
    "boxpromptiml.ImageLabelTask",
    "boxpromptiml.data",
    "boxpromptiml.segmenters.config",
    "boxpromptiml.tasks",
    "lightning.fabric.accelerators",  # where some of Lightning's classes are defined
    "lightning.fabric.plugins",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
)
_DENIED = (
    "*",
    "lightning.pytorch.callbacks.LambdaCallback",  # calls whatever function it is given
    "lightning.pytorch.callbacks.lambda_function",
)
_load_yaml = get_loader("yaml")
_REFUSAL = re.compile(r"Importing '([\w.]+)' is not allowed")  # jsonargparse's words


def restrict_imports(trusted: Sequence[str] = ()) -> None:
    """Refuse class paths in configurations and on the command line, except allowed ones.

    YAML with aliases, repeated keys or deep nesting is refused too (`strict_yaml.check_yaml`).

    This holds for the whole process and cannot be undone. Configurations are read from local
    files only.

    Args:
        trusted: Modules or classes to allow as well, such as `mylab.tasks`.

    Raises:
        UserError: If one of them is not an import path, or belongs to jsonargparse itself.
    """
    try:
        set_parsing_settings(
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,  # importing LightningCLI turns it on
            import_path_denylist=list(_DENIED),
            import_path_allowlist=[*_ALLOWED, *trusted],
        )
    except ValueError as error:
        raise UserError(f"--trust={','.join(trusted)}: {error}") from error
    set_loader("yaml", _load, (yaml.YAMLError,))


def _load(text: str) -> Any:
    """Parse a configuration file, or one value of the command line."""
    check_yaml(text)
    return renamed(_load_yaml(text))


def refusal(message: str) -> str | None:
    """A better message for jsonargparse's refusal of an import; None for other messages.

    Example:
        >>> refusal("Importing 'os.system' is not allowed, denied by ...")[:37]
        "the configuration names 'os.system', "
    """
    found = _REFUSAL.search(message)
    return found and (
        f"the configuration names {found[1]!r}, which is none of the classes of boxpromptiml or "
        "Lightning that it may name, and could run any code. If you know and trust it, add "
        f"--trust={found[1]}"
    )
