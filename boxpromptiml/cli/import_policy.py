"""What a configuration may name: our classes and Lightning's, nothing else.

A `class_path` in YAML imports a module and calls what it finds there, so a file from a stranger
could run any code. jsonargparse checks every path against these lists, nested ones included, and
checks again where the object found was defined.
"""

import re
from collections.abc import Sequence

from jsonargparse import set_parsing_settings

from boxpromptiml.errors import UserError

_ALLOWED = (
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
_REFUSAL = re.compile(r"Importing '([\w.]+)' is not allowed")  # jsonargparse's words


def restrict_imports(trusted: Sequence[str] = ()) -> None:
    """Refuse class paths in configurations and on the command line, but for the allowed ones.

    It holds for the whole process and is never taken back. Configurations are read from local
    files only.

    Args:
        trusted: Modules or classes that the user allows as well, such as `mylab.tasks`.

    Raises:
        UserError: If one of them is no import path, or belongs to jsonargparse itself.
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


def refusal(message: str) -> str | None:
    """If a message of jsonargparse's is about an import that is not allowed, what to say instead.

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
