"""Scripts run in the process of the tests, where torch is imported already."""

import importlib
import logging
import pathlib
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture
def lib(monkeypatch):
    """The modules that the scripts share, by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return lambda name: importlib.import_module(f"lib.{name}")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script in its small form; what it printed."""
    pytest.importorskip("matplotlib")

    def run(script, *arguments):
        path = EXAMPLES / script
        # As if it were started: processes that it starts find its functions by its name.
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.setenv("TQDM_DISABLE", "1")
        monkeypatch.setattr(sys, "argv", [script, "--quick", *map(str, arguments)])
        try:
            importlib.import_module(path.stem).main()
        finally:
            logging.disable(logging.NOTSET)
        return capsys.readouterr().out

    return run
