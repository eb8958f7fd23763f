"""The examples in the docstrings of the geometry library do what they show."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import pythae_geometric.geometry

MODULES = [
    "pythae_geometric.registry",
    *(
        f"pythae_geometric.geometry.{module.name}"
        for module in pkgutil.iter_modules(pythae_geometric.geometry.__path__)
    ),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    torch.manual_seed(0)
    failed = doctest.testmod(module, extraglobs={"torch": torch, **vars(module)}).failed
    pythae_geometric.registry._classes.pop("WarmVAEConfig", None)  # the example of register
    pythae_geometric.registry._configs.pop("WarmVAEConfig", None)
    assert failed == 0
