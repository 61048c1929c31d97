"""The notebook of the tour runs from top to bottom and shows what it promises."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "save it without outputs"
    NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    texts = "".join(output.get("text", "") for output in outputs)
    assert re.search(r"^\(400, 600\) float32", texts, re.MULTILINE)
    assert re.search(r"^loss \d\.\d\d$", texts, re.MULTILINE)
