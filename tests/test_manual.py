"""The manual: its code runs, its links lead somewhere, its reference is complete, and it builds."""

import importlib
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from processes import run_code
from test_hub import hub  # noqa: F401  (the fixture)

from pythae_geometric import registry

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*"))
    if path.suffix in (".md", ".rst") and "_build" not in path.parts
}

pytest.importorskip("matplotlib").use("Agg")


# Code


def code_of(page):
    """All blocks of a page, one after the other, at their lines."""
    text = PAGES[page]
    lines = [""] * text.count("\n")
    for block in re.finditer(r"^ *(?:- )?```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        first = text[: block.start(1)].count("\n")
        content = textwrap.dedent(block[1]).splitlines()
        lines[first : first + len(content)] = content
    return "\n".join(lines)


def run(page, prelude=""):
    names = {"__name__": "__main__"}
    exec(prelude, names)
    exec(compile(code_of(page), str(DOCS / page), "exec"), names)
    importlib.import_module("matplotlib.pyplot").close("all")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The folder that the page "Getting started" leaves behind."""
    folder = tmp_path_factory.mktemp("started")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("getting_started.md")
    return folder


@pytest.fixture
def here(started, tmp_path, monkeypatch):
    """The work of a reader who has just read "Getting started"."""
    folder = tmp_path / "work"
    shutil.copytree(started, folder)
    monkeypatch.chdir(folder)
    for name in ("_classes", "_configs"):  # a page registers classes
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    return folder


def test_getting_started(started):
    files = {"my_vae", "my_sampler", "digits.npz", "N(0, I).png", "metric-uniform HMC.png"}
    assert files <= {path.name for path in started.iterdir()}


# What the table of the first page takes for given.
GIVEN = """
import torch
from pythae.models import VAE, VAEConfig
from pythae.pipelines import GenerationPipeline
from pythae_geometric import *
from pythae_geometric import plotting
from pythae_geometric.geometry import PullbackMetric, distance_matrix
from pythae_geometric.models.foreign import autoencoder_of
plane = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2)).eval()
codes, x, y = torch.randn(5, 2), torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
encoder = decoder = torch.nn.Identity()
"""
WITH_CODE = [page for page in PAGES if code_of(page).strip()]
ELSEWHERE = ("getting_started.md", "guides/saving.md")


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page not in ELSEWHERE])
def test_code(page, here):
    run(page, GIVEN if page == "index.md" else "")


README = """
import numpy as np
data = np.load("digits.npz")
train_images, eval_images = data["train_images"], data["test_images"]
"""


def test_readme(here, monkeypatch):
    monkeypatch.setitem(PAGES, "README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    run("README.md", README)
    assert (here / "generated" / "00000099.png").is_file()


def test_links_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target


def test_sharing(here, hub):  # noqa: F811
    """The page that uses the Hub, with a Hub on the loopback address."""
    repos, environment = hub
    code = f"import os; os.chdir({str(here)!r})\n" + code_of("guides/saving.md")
    exit_code, errors = run_code(code, environment)
    assert exit_code == 0, errors
    assert "sampler.pt" in repos["my_lab/my_sampler"]


# Links


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    text, folder = PAGES[page], (DOCS / page).parent
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (folder / target).is_file(), target
    for target in re.findall(r"\{include\} (\S+)", text):
        assert (folder / target).is_file(), target
    for target in re.findall(r"\bexamples/[\w/]+(?:\.\w+)?", text):
        assert (ROOT / target).exists(), target
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), (file, test)


def test_every_page_says_what_it_is_for():
    for page, text in PAGES.items():
        if text.startswith("```{include}"):
            continue
        title = re.search(r"^# .*$|^=+$", text, re.MULTILINE)
        first = text[title.end() :].strip().splitlines()[0]
        assert first.startswith(("After", "Look up", "Each guide")) or page.startswith("api/"), page


# Reference

DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|exception):: (\S+)$", re.MULTILINE)
DOCUMENTED = {
    name
    for page, text in PAGES.items()
    if page.startswith("api/")
    for name in DIRECTIVE.findall(text)
}


def object_of(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public(module):
    """The names of a module's list; without one, what it defines."""
    module = importlib.import_module(module)
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize(
    "module",
    [
        "pythae_geometric",
        "pythae_geometric.models",
        "pythae_geometric.models.foreign",
        "pythae_geometric.samplers",
        "pythae_geometric.geometry",
        "pythae_geometric.evaluation",
        "pythae_geometric.plotting",
        "pythae_geometric.data.burgers",
        "pythae_geometric.data.symmetric",
        "pythae_geometric.data.synthetic",
        "pythae_geometric.data.trajectories",
    ],
)
def test_every_public_name_is_in_the_reference(module):
    objects = [object_of(name) for name in DOCUMENTED]
    for name in public(module):
        value = object_of(f"{module}.{name}")
        assert isinstance(value, int | float) or any(value is o for o in objects), name


# The build


def test_it_builds_without_a_warning_and_needs_no_network(tmp_path):
    for package in ("sphinx", "furo", "myst_parser", "latex2mathml"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    command += ["-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'(?:<script[^>]*src|<link[^>]*href|<img[^>]*src)="([^"]*)"', text)
        for address in loaded:
            assert not address.startswith(("http:", "https:", "//")), address
            path = address.split("?")[0].split("#")[0]
            assert not path or (page.parent / path).exists(), (page.name, address)
