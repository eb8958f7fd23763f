"""The examples in the docstrings of the geometry library do what they show."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import pythae_geometric.geometry
from pythae_geometric import registry

MODULES = [
    registry,
    *(
        importlib.import_module(f"pythae_geometric.geometry.{module.name}")
        for module in pkgutil.iter_modules(pythae_geometric.geometry.__path__)
    ),
]
EXAMPLES = [
    pytest.param(example, id=example.name)
    for module in MODULES
    for example in doctest.DocTestFinder().find(module, extraglobs={"torch": torch})
    if example.examples
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, monkeypatch):
    for name in ("_classes", "_configs"):  # the example of register adds a model
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    torch.manual_seed(0)
    assert doctest.DocTestRunner().run(example).failed == 0
