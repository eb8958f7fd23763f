"""The tutorials: valid notebooks, run from top to bottom in small form, with pictures."""

import json
import logging
import pathlib
import runpy

import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "examples" / "notebooks"
pytest.importorskip("matplotlib")


@pytest.fixture(params=sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def outputs(notebook, kind):
    return [o for c in notebook["cells"] for o in c.get("outputs", []) if o["output_type"] == kind]


def test_format(notebook):
    """The fields that nbformat 4.5 requires, and outputs of one whole run."""
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(len(name) <= 64 for name in ids)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len(outputs(notebook, "display_data")) >= 1
    assert len(outputs(notebook, "stream")) >= 1
    assert len(json.dumps(notebook)) < 600_000


def test_runs(notebook, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    execute = runpy.run_path(str(NOTEBOOKS / "run.py"))["execute"]
    pictures = len(outputs(notebook, "display_data"))
    try:
        run = execute(notebook, quick=True)
    finally:
        logging.disable(logging.NOTSET)
    assert len(outputs(run, "display_data")) == pictures


def test_a_cell_that_fails_is_named():
    execute = runpy.run_path(str(NOTEBOOKS / "run.py"))["execute"]
    cells = [{"cell_type": "code", "metadata": {}, "source": ["a = 1\n", "print(a)"]}]
    run = execute({"cells": cells, "metadata": {}})
    assert run["cells"][0]["outputs"][0]["text"] == ["1\n"]
    cells.append({"cell_type": "code", "metadata": {}, "source": ["b = a + missing"]})
    with pytest.raises(RuntimeError, match=r"Cell 2 failed .*missing"):
        execute({"cells": cells, "metadata": {}})
