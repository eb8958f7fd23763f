import os
import re

# Several processes run the tests (pytest-xdist): one thread for each, and for what they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """The 8x8 digits, ``[1797, 1, 8, 8]`` in [0, 1]."""
    return (load_digits().images[:, None] / 16).astype(np.float32)


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """A VAE of latent dimension 2, trained for a few seconds by pythae's pipeline."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    config = BaseTrainerConfig(
        output_dir=str(tmp_path_factory.mktemp("training")),
        num_epochs=5,
        learning_rate=1e-3,
        per_device_train_batch_size=100,
    )
    TrainingPipeline(model=model, training_config=config)(digits[:1000])
    return model.eval()


_refused = set()


@pytest.fixture
def refused(request):
    """Check that a bad input gives an error that names the argument, and count it."""

    def check(errors, words, call):
        with pytest.raises(errors) as raised:
            call()
        message = str(raised.value)
        assert re.search(words, message), message
        assert len(message.split()) >= 5, message  # a sentence, not a word
        _refused.add((request.node.nodeid, words))

    return check


def pytest_sessionfinish(session):
    """A process of several (pytest-xdist) hands its count on."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["refused"] = sorted(_refused)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _refused.update(map(tuple, getattr(node, "workeroutput", {}).get("refused", [])))


def pytest_terminal_summary(terminalreporter):
    if _refused:
        terminalreporter.write_line(f"{len(_refused)} distinct bad inputs were refused.")
