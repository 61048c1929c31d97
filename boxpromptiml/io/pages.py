"""Pages for a browser, made of Jinja templates."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from boxpromptiml.io.plain_text import visible


def page_environment(package: str, folder: str = "templates") -> Environment:
    """Templates that escape what they print, and spell out its control characters by `visible`.

    A name that a template uses and nobody gives is an error.

    Args:
        package: Import path of the package.
        folder: Of the templates, below the package.
    """
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
