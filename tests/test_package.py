"""The package as others meet it: its types, its distributions, how to cite it and to extend it."""

import importlib.metadata
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
import yaml
from processes import run_code
from pythae.models import VAE, AutoModel, VAEConfig
from pythae.pipelines import GenerationPipeline

from pythae_geometric import registry

ROOT = pathlib.Path(__file__).parent.parent
needs_checkout = pytest.mark.skipif(
    not (ROOT / "setup.cfg").exists(), reason="needs the files beside the tests"
)
pytestmark = needs_checkout


def output_of(*command, cwd=ROOT):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Types


def test_a_type_checker_accepts_the_package_and_a_program_that_uses_it(tmp_path):
    pytest.importorskip("mypy")
    cache = ("--cache-dir", str(tmp_path))
    assert "no issues found" in output_of(sys.executable, "-m", "mypy", *cache)
    # It sees the types: what is wrong is found.
    text = (ROOT / "tests" / "consumer.py").read_text(encoding="utf-8")
    wrong = {
        "metrics(z: torch.Tensor)": "metrics(z: str)",
        "num_centers=50": 'num_centers="many"',
        "-> tuple[int, float | None, torch.Tensor]": "-> tuple[str, float | None, torch.Tensor]",
    }
    for old, new in wrong.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "consumer.py").write_text(text, encoding="utf-8")
    command = (sys.executable, "-m", "mypy", *cache, str(tmp_path / "consumer.py"))
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = {int(line) for line in re.findall(r"consumer\.py:(\d+): error", checked.stdout)}
    places = [i for i, line in enumerate(text.splitlines(), 1) if 'num_centers="many"' in line]
    assert len(lines) >= 3 and set(places) <= lines, checked.stdout


# Distributions


def files_of(archive):
    """The names of the files of an sdist, without its folder, or of a wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}


def build(folder):
    """The sdist, and the wheel that is built from it, with the setuptools that is there."""
    pytest.importorskip("build")
    version = importlib.metadata.version("setuptools")
    if tuple(map(int, version.split(".")[:2])) < (70, 1):
        pytest.skip(f"setuptools {version} cannot build wheels by itself")
    # A copy, since builds leave files behind and other tests run at the same time.
    skipped = shutil.ignore_patterns(".git", ".venv*", "outputs", "build", "_build", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=skipped)
    command = ("-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "source"))
    output_of(sys.executable, *command)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


# What the console script of an installed wheel does, three times in a row.
PROGRAM = """
import importlib.metadata, pathlib, sys

sys.path.insert(0, {site!r})
points = importlib.metadata.distribution("pythae-geometric").entry_points
(script,) = points.select(group="console_scripts", name="pythae-geometric")
main = script.load()
main(["train", "--quick", "--latent-dim", "2", "--output-dir", "model"])
(folder,) = map(str, pathlib.Path("model").rglob("final_model"))
main(["generate", "--quick", "--model-folder", folder, "--output-dir", "images"])
main(["compare", "--quick", "--model-folders", folder, "--samplers", "Normal"])
print(sys.modules["pythae_geometric"].__file__)
"""


def test_what_sdist_and_wheel_hold_and_that_the_wheel_works_by_itself(tmp_path):
    sdist, wheel = build(tmp_path)
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pythae_geometric").rglob("*")
        if path.suffix in (".py", ".typed")
    }
    beside = {
        path.relative_to(ROOT).as_posix()
        for folder in ("tests", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "outputs" not in path.parts
    }
    beside |= {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md"}
    beside |= {"setup.cfg", "pyproject.toml", ".ci/run"}
    held = files_of(sdist)
    assert not (package | beside) - held
    assert not [name for name in held if name.endswith(".pyc") or "/_build/" in name]

    held = files_of(wheel)
    assert {name for name in held if ".dist-info/" not in name} == package
    assert [name for name in held if ".dist-info/" in name and name.endswith("/LICENSE")]

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = PROGRAM.format(site=str(tmp_path / "site"))
    printed = output_of(sys.executable, "-c", code, cwd=tmp_path / "empty")
    assert str(tmp_path / "site") in printed.splitlines()[-1]
    assert len(list((tmp_path / "empty" / "images").glob("0*.png"))) == 16
    table = (tmp_path / "empty" / "outputs" / "compare_digits" / "compare.md").read_text("utf-8")
    assert table in printed and "\n| VAE | Normal | 60 | " in table


# Citation


def test_the_citation_names_the_sources_and_the_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    sources = " ".join(
        str(author.get("family-names")) for r in citation["references"] for author in r["authors"]
    )
    for name in ("Chadebec", "Kalatzis", "Gracyk", "Lazarev", "Golikov"):
        assert name in sources
    # The addresses are those that the docstrings give.
    docstrings = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "pythae_geometric").rglob("*.py")
    )
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()
        assert reference.get("url", "") in docstrings


# How to extend it


@pytest.fixture
def examples(monkeypatch):
    """What the blocks of CONTRIBUTING.md define, by the titles of their sections."""
    for name in ("_classes", "_configs"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    defined = {}
    for title, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.M):
        for code in re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.M):
            module = importlib.util.module_from_spec(
                importlib.util.spec_from_loader(re.sub(r"\W", "_", title), loader=None)
            )
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
            defined[title] = module
    assert len(defined) == 3
    return defined


def test_the_metric_is_hyperbolic(examples):
    metric = examples["Add a metric"]
    np.testing.assert_allclose(metric.length.detach(), np.log(2), rtol=1e-4)


def test_the_model_trains_by_its_loss_and_loads(examples, digits, tmp_path):
    module = examples["Add a model"]
    with pytest.raises(ValueError, match="volume_weight"):
        module.VolumeVAEConfig(input_dim=(1, 8, 8), latent_dim=2, volume_weight=-1)
    config = module.VolumeVAEConfig(input_dim=(1, 8, 8), latent_dim=2, volume_weight=0.5)
    torch.manual_seed(0)
    model = module.VolumeVAE(config)
    x = torch.as_tensor(digits[:20])
    output = model({"data": x})
    total = output.recon_loss + output.reg_loss + 0.5 * output.volume_loss
    torch.testing.assert_close(output.loss, total)
    output.loss.backward()
    # The term alone moves the decoder: it has a gradient in it.
    assert any(p.grad.abs().sum() > 0 for p in model.decoder.parameters())
    model.save(str(tmp_path))
    loaded = AutoModel.load_from_folder(str(tmp_path))
    assert isinstance(loaded, module.VolumeVAE) and loaded.model_config.volume_weight == 0.5
    z = torch.zeros(3, 2)
    torch.testing.assert_close(loaded.decoder(z)["reconstruction"], model.decoder(z).reconstruction)


def test_the_sampler_has_the_moments_of_the_codes_and_loads(examples, digits, tmp_path):
    module = examples["Add a sampler"]
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2)).eval()
    pipeline = GenerationPipeline(model, module.OneGaussianSamplerConfig(seed=0))
    pipeline(num_samples=2, train_data=digits[:500])
    sampler = pipeline.sampler
    codes = model.encoder(torch.as_tensor(digits[:500])).embedding.detach().numpy()
    z = sampler.sample_latent(20_000).numpy()
    deviation = codes.std(0)
    np.testing.assert_allclose(z.mean(0), codes.mean(0), atol=4 * deviation.max() / 20_000**0.5)
    np.testing.assert_allclose(
        np.cov(z.T), np.cov(codes.T), atol=6 * deviation.max() ** 2 / 20_000**0.5
    )
    sampler.save(tmp_path)
    loaded = module.OneGaussianSampler.load(tmp_path, model)
    sampler._restart()
    assert torch.equal(loaded.sample_latent(5), sampler.sample_latent(5))


def test_a_plain_import_has_the_modules_that_users_name():
    code = (
        "import sys, pythae_geometric as pg\n"
        "pg.evaluation.frechet_distance, pg.plotting.image_grid\n"
        "assert 'matplotlib' not in sys.modules, 'an extra is imported'"
    )
    exit_code, errors = run_code(code, {})
    assert exit_code == 0, errors
