"""The commands train, generate and compare: what they do, and what they say to a newcomer."""

import json
import os
import pathlib
import re
import runpy
import shlex
import sys
import warnings

import numpy as np
import pytest
import torch
from pythae.models import VAE, AutoModel, VAEConfig
from pythae.models.nn.benchmarks import mnist
from pythae.samplers import BaseSampler, NormalSamplerConfig
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from torch.distributed import run as torchrun

from pythae_geometric import __main__, __version__
from pythae_geometric.commands import compare, files, models
from pythae_geometric.commands.data import load_data
from pythae_geometric.commands.measures import Newness, reconstructions
from pythae_geometric.commands.sampling import draw, make_pipeline
from pythae_geometric.commands.tables import publish, table
from pythae_geometric.evaluation import train_feature_network

pytest.importorskip("matplotlib")
ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_bars(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def run(*arguments):
    __main__.main([str(argument) for argument in arguments])


def error_of(capsys, *arguments):
    """The one sentence with which a command ends, be it the parser's or its own."""
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    printed = capsys.readouterr().err
    return printed.splitlines()[-1] if raised.value.code == 2 else str(raised.value)


def last_line(capsys):
    return capsys.readouterr().out.splitlines()[-1]


@pytest.fixture
def folder(trained, tmp_path):
    """The folder of a trained VAE of the digits."""
    trained.save(str(tmp_path / "VAE"))
    return tmp_path / "VAE"


# The program


def test_version_and_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pythae-geometric", "--version"])
    with pytest.raises(SystemExit, match="0"):
        __main__.main()
    assert capsys.readouterr().out == f"pythae-geometric {__version__}\n"
    with pytest.raises(SystemExit, match="0"):
        run("generate", "--help")
    help_text = capsys.readouterr().out
    assert help_text.startswith("usage: pythae-geometric generate ")
    assert "torchrun --nproc_per_node 2 examples/generate.py " in help_text
    assert "torchrun --nproc_per_node 2 -m pythae_geometric generate " in help_text


def test_lines_that_users_copy_are_accepted():
    texts = [module.__doc__ for module in __main__.COMMANDS.values()]
    paths = (ROOT / "README.md", ROOT / "docs" / "getting_started.md")
    texts += [path.read_text(encoding="utf-8") for path in paths if path.exists()]
    lines = re.findall(
        r"(?:^ *pythae-geometric|-m pythae_geometric) ((?:.*\\\n)*.*)$", "\n".join(texts), re.M
    )
    assert len(lines) >= 9
    for line in lines:
        name, *arguments = shlex.split(line.replace("\\\n", " "))
        __main__.COMMANDS[name].parse(arguments)


# What they share


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "row.json"
    files.write_json(str(path), [1])
    with pytest.raises(KeyError), files.replaced(str(path)) as beside:
        pathlib.Path(beside).write_text("half of a")
        raise KeyError
    assert json.loads(path.read_text()) == [1]
    assert list(path.parent.iterdir()) == [path]


def test_rows_are_computed_once(tmp_path):
    path = files.row_path(str(tmp_path), "VAE", "N(0, I)", 0)
    assert path == str(tmp_path / "rows" / "VAE-N(0,_I)-0.json")
    calls = []
    for _ in range(2):
        assert files.kept(path, lambda x: calls.append(x) or {"x": x}, 3) == {"x": 3}
    assert calls == [3]


def test_tensors_are_computed_once(tmp_path):
    calls, path = [], str(tmp_path / "folder" / "tensor.pt")
    for _ in range(2):
        found = files.kept_tensors(path, lambda: calls.append(1) or torch.arange(3))
        assert torch.equal(found, torch.arange(3))
    assert calls == [1]


def test_first_images_of_each_part():
    data = load_data("digits").first(30, 20)
    assert [len(part) for part in data] == [30, 30, 20, 20, 400, 400]


def test_tables(tmp_path):
    found = table(["a", "b"], [["1", 2]])
    assert found == ["| a | b |", "|---|---|", "| 1 | 2 |"]
    assert publish(str(tmp_path / "out"), "one", "text — of", [1]) == "text — of"
    assert (tmp_path / "out" / "one.md").read_text(encoding="utf-8") == "text — of"
    assert json.loads((tmp_path / "out" / "one.json").read_text()) == [1]


# Train and generate


def script(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_train_resume_and_generate(tmp_path, monkeypatch, capsys):
    """By the scripts, which read the arguments of the process."""
    script(monkeypatch, "train.py", "--quick", "--model", "VAE", "--latent-dim", 2,
           "--save-every", 1, "--output-dir", tmp_path)  # fmt: skip
    folder = pathlib.Path(last_line(capsys))
    checkpoint = folder.parent / "checkpoint_epoch_1"
    run("train", "--quick", "--resume", checkpoint, "--save-every", 1,
        "--output-dir", tmp_path / "more")  # fmt: skip
    resumed = pathlib.Path(last_line(capsys))
    assert json.loads((resumed / "training_config.json").read_text())["num_epochs"] == 1
    # Adam's state came along: its count of steps goes on from that of the checkpoint.
    steps = [
        next(iter(torch.load(path / "optimizer.pt")["state"].values()))["step"]
        for path in (checkpoint, resumed.parent / "checkpoint_epoch_1")
    ]
    assert steps == [2, 4]
    error = error_of(capsys, "train", "--quick", "--resume", folder.parent / "checkpoint_epoch_2")
    assert "has all of its 2 epochs" in error

    out = tmp_path / "images"
    script(monkeypatch, "generate.py", "--quick", "--model-folder", folder, "--output-dir", out)
    assert last_line(capsys).startswith("16 images in")
    assert len(list(out.glob("0*.png"))) == 16
    assert (out / "grid.png").stat().st_size > 1000


@pytest.mark.filterwarnings("error:The posterior")
def test_a_vae_of_the_digits_learns_by_the_defaults(tmp_path, capsys):
    """By pythae's default error, half the squared one, it gives the mean image for every digit."""
    run("train", "--epochs", 20, "--output-dir", tmp_path)
    folder = last_line(capsys)
    data = load_data("digits")
    recon = reconstructions(AutoModel.load_from_folder(folder).eval(), data.test)
    left = (recon - data.test).square().sum() / (data.test - data.train.mean(0)).square().sum()
    assert left < 0.8
    # Here the warning of a collapsed posterior would be an error.
    run("generate", "--model-folder", folder, "--sampler", "MetricUniformHMC", "--num-samples", 20)


def test_the_hvae_keeps_the_squared_error():
    fields = models.image_fields(load_data("digits").train, 2, 1)
    assert models.make_config("HVAE", **fields)[1].reconstruction_loss == "mse"
    assert models.make_config("BetaVAE", **fields)[1].reconstruction_loss == "bce"


def test_warnings_have_no_line_of_code(monkeypatch):
    def command(arguments):
        shown.append(warnings.formatwarning("Look here.", UserWarning, "main.py", 3))

    shown, before = [], warnings.formatwarning
    monkeypatch.setattr(__main__.train, "main", command)
    run("train")
    assert shown == ["UserWarning: Look here.\n"]
    assert warnings.formatwarning is before


def test_configs_are_read_from_files(tmp_path, capsys):
    (tmp_path / "model.json").write_text('{"name": "RicciAEConfig", "latent_dim": 3}')
    (tmp_path / "training.json").write_text(
        '{"name": "BaseTrainerConfig", "num_epochs": 1, "per_device_train_batch_size": 100}'
    )
    run("train", "--quick", "--model", tmp_path / "model.json", "--training-config",
        tmp_path / "training.json", "--output-dir", tmp_path)  # fmt: skip
    folder = pathlib.Path(last_line(capsys))
    assert json.loads((folder / "model_config.json").read_text())["latent_dim"] == 3
    assert json.loads((folder / "training_config.json").read_text())["num_epochs"] == 1

    def generate(**fields):
        config = {"name": "MetricUniformHMCSamplerConfig", **fields}
        (tmp_path / "sampler.json").write_text(json.dumps(config))
        return ("generate", "--quick", "--model-folder", folder, "--sampler",
                tmp_path / "sampler.json", "--output-dir", tmp_path / "generated")  # fmt: skip

    run(*generate(num_centroids=5))
    assert last_line(capsys).startswith("16 images in")
    assert "has no field 'colour'" in error_of(capsys, *generate(colour="green"))
    error = error_of(capsys, *generate(decay=1.0))
    assert "decay=1.0 belongs to metric='posteriors'" in error and "\n" not in error


@pytest.fixture
def faces(tmp_path):
    """A folder of data sets with one of the user's own, by the name of my_faces, without labels."""
    random = np.random.default_rng(0)
    (tmp_path / "my_faces").mkdir()
    for part, count in (("train", 60), ("eval", 20)):
        images = random.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        np.savez_compressed(tmp_path / "my_faces" / f"{part}_data.npz", data=images)
    return tmp_path


def test_data_of_the_users_own_and_benchmark_networks(faces, capsys):
    run("train", "--quick", "--data", "my_faces", "--data-dir", faces, "--networks", "resnet",
        "--model", "VAE", "--output-dir", faces / "out")  # fmt: skip
    out = capsys.readouterr().out
    assert "54 images [1, 28, 28]" in out  # the last tenth is for validation
    assert (pathlib.Path(out.splitlines()[-1]) / "encoder.pkl").exists()


def test_benchmark_networks_of_an_autoencoder():
    cls, config = models.make_config("AE", input_dim=(1, 28, 28), latent_dim=3)
    model = models.make_model(cls, config, "convnet").eval()
    assert isinstance(model.encoder, mnist.Encoder_Conv_AE_MNIST)
    assert isinstance(model.decoder, mnist.Decoder_Conv_AE_MNIST)
    x = torch.rand(2, 1, 28, 28)
    assert model({"data": x}).recon_x.shape == x.shape


# Samplers of pythae that take these models only.
OF_MODELS = {"VAMP": "VAMP", "RHVAE": "RHVAE", "SVAE": "HypersphereUniform"}
OF_MODELS |= {"PoincareVAE": "PoincareDisk", "VQVAE": "PixelCNN"}


def generates(capsys, folder, sampler, out):
    run("generate", "--quick", "--model-folder", folder, "--sampler", sampler, "--output-dir", out)
    assert last_line(capsys).startswith("16 images in")
    assert len(list(out.glob("0*.png"))) == 16


@pytest.mark.parametrize("model", sorted(models.classes()))
def test_every_model_by_name_and_its_sampler(model, tmp_path, capsys):
    run("train", "--quick", "--model", model, "--output-dir", tmp_path)
    folder = pathlib.Path(last_line(capsys))
    config = json.loads((folder / "model_config.json").read_text())
    assert config["latent_dim"] == 8 and config["name"].startswith(model)
    assert json.loads((folder / "training_config.json").read_text())["num_epochs"] == 2
    if model in OF_MODELS:
        generates(capsys, folder, OF_MODELS[model], tmp_path / "images")


SAMPLERS = {name.removesuffix("Sampler") for name in models.classes(BaseSampler)}


@pytest.mark.parametrize("sampler", sorted(SAMPLERS - set(OF_MODELS.values())))
def test_every_sampler_by_name(sampler, folder, tmp_path, capsys):
    generates(capsys, folder, sampler, tmp_path / "images")


def test_without_matplotlib_there_is_no_grid(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    out = tmp_path / "images"
    run("generate", "--quick", "--model-folder", folder, "--sampler", "Normal",
        "--output-dir", out)  # fmt: skip
    assert "No grid.png: This needs matplotlib" in (printed := capsys.readouterr().out)
    assert '"pythae-geometric[viz]"' in printed
    assert sorted(path.name for path in out.iterdir()) == [f"{k:08d}.png" for k in range(16)]


def test_two_processes_write_the_images_of_one(folder, tmp_path, capfd):
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ("generate", "--quick", "--model-folder", str(folder), "--output-dir")
    run(*arguments, one)
    launch = ("--standalone", "--nproc_per_node", "2", "-m", "pythae_geometric")
    torchrun.main([*launch, *arguments, str(two)])
    assert capfd.readouterr().out.count("16 images in") == 2  # once each
    names = sorted(os.listdir(one))
    assert len(names) == 17 and sorted(os.listdir(two)) == names
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_pythaes_samplers_draw_in_one_process(folder, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    error = error_of(capsys, "generate", "--model-folder", folder, "--sampler", "GaussianMixture")
    assert "GaussianMixture is pythae's, and draws in one process: start it without" in error


# Compare


def rows_of(out):
    return json.loads((out / "compare.json").read_text(encoding="utf-8"))["rows"]


def test_the_table_and_how_a_run_goes_on(folder, trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    first = ("compare", "--quick", "--model-folders", folder, "--output-dir", out, "--samplers")
    run(*first, "Normal", "VAMP")
    training, rebuilt, normal, vamp = rows_of(out)

    # The same by scipy and sklearn, in the features of the network that the command trains.
    data = load_data("digits").first(300, 60, 60)
    network = train_feature_network(data.train, data.train_labels, seed=0)
    pipeline = make_pipeline(trained, NormalSamplerConfig(), seed=0)
    drawn = draw(pipeline, data, 60, epochs=1, folder=str(tmp_path)).clamp(0, 1)
    decoded = reconstructions(trained, data.test)
    flat = [images.flatten(1).double().numpy() for images in (data.train, data.test)]
    new = np.quantile(cdist(flat[1], flat[0]).min(1), 0.5, method="lower")
    real = network.features(data.test).double().numpy()
    ball = NearestNeighbors(n_neighbors=6).fit(real).kneighbors(real)[0][:, -1]
    for row, images in ((rebuilt, decoded), (normal, drawn)):
        found = network.features(images).double().numpy()
        apart = real.mean(0) - found.mean(0)
        S, T = np.cov(real.T), np.cov(found.T)
        frechet = apart @ apart + np.trace(S + T) - 2 * np.trace(sqrtm(S @ T).real)
        assert row["frechet"] == pytest.approx(frechet, rel=1e-3)
        assert row["coverage"] == ((cdist(found, real) < ball).any(0)).mean()
        distances = cdist(images.flatten(1).double().numpy(), flat[0]).min(1)
        median = np.quantile(distances, 0.5, method="lower")
        assert row["nearest"] == pytest.approx(median / new, rel=1e-4)
        assert row["images"] == 60 and row["acceptance"] is None
    assert (training["nearest"], training["copies"]) == (0, 1)
    assert vamp["error"] == "This sampler is only suitable for VAMP model"
    text = (out / "compare.md").read_text(encoding="utf-8")
    assert "| VAE | VAMP | failed: This sampler is only suitable for VAMP model | — |" in text
    assert f"| VAE | Normal | 60 | {normal['frechet']:.2f} |" in text
    assert capsys.readouterr().out.endswith(f"\n{text}\n")

    # Another sampler is added, and what there is is not computed again.
    kept = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    assert len(kept) == 3
    (tmp_path / "chains.json").write_text(
        '{"name": "MetricUniformHMCSamplerConfig", "num_centroids": 5}'
    )
    run(*first, "Normal", "VAMP", tmp_path / "chains.json")
    now = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    assert kept.items() < now.items() and len(now) == len(kept) + 1
    assert rows_of(out)[:4] == [training, rebuilt, normal, vamp]
    assert 0 < rows_of(out)[4]["acceptance"] <= 1
    monkeypatch.setattr(compare, "train_feature_network", None)  # a run that has all needs none
    run(*first, "Normal", tmp_path / "chains.json")
    assert len(rows_of(out)) == 4
    # Of another seed it has none, and a row that failed is not kept.
    run(*first, "Normal", "--seed", "1")
    assert "not callable" in rows_of(out)[2]["error"]
    assert len(list((out / "rows").iterdir())) == len(now)


def test_copies_are_counted(trained):
    data = load_data("digits").first(300, 60, 60)
    found = Newness(data, trained)(torch.cat([data.train[:20], data.test]))
    assert found["copies"] == 0.25 and 0 < found["nearest"] < 1
    # What a model gives back of a training image is one too.
    assert Newness(data, trained)(reconstructions(trained, data.train))["copies"] == 1


def test_models_of_one_name_are_numbered_and_mistakes_come_first(folder, faces, capsys):
    torch.manual_seed(0)
    VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2)).save(str(faces / "other"))
    out, arguments = faces / "out", ("--quick", "--model-folders", folder, faces / "other")
    error = error_of(capsys, "compare", *arguments, "--samplers", "Normall", "--output-dir", out)
    assert "Did you mean NormalSampler?" in error
    error = error_of(
        capsys,
        "compare",
        *arguments,
        "--data",
        "my_faces",
        "--data-dir",
        faces,
        "--output-dir",
        out,
    )
    assert "my_faces has no labels for the classifier" in error and not out.exists()
    run("compare", *arguments, "--samplers", "Normal", "--num-samples", 40, "--output-dir", out)
    found = [(row["model"], row["sampler"], row["images"]) for row in rows_of(out)]
    reached = "(test images, reconstructed)"
    of_models = [(f"VAE {n}", name, 40) for n in (1, 2) for name in (reached, "Normal")]
    assert found == [("—", "(training images)", 40), *of_models]
    assert rows_of(out)[1]["frechet"] != rows_of(out)[3]["frechet"]


# Mistakes


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian"], "invalid choice: 'trian'"),
        ([], "the following arguments are required: command"),
        (["train", "--data", "mnist"], "train_data.npz"),
        (["train", "--data", "mnist"], "np.savez_compressed(path, data=images"),
        (["train", "--data", "imagenet"], "take --data digits, which is built in"),
        (["train", "--model", "BrownianVAE"], "Did you mean BrownianRVAE?"),
        (["train", "--networks", "convnet"], "take --networks default"),
        (["train", "--model", "missing.json"], "missing.json cannot be read"),
        (["train", "--training-config", "missing.json"], "missing.json cannot be read"),
        (["train", "--resume", "nowhere"], "checkpoint_epoch_N"),
        (["train", "--epochs", "0"], "--epochs: '0' is not a whole number of at least 1"),
        (["train", "--latent-dim", "-3"], "--latent-dim: '-3' is not a whole number"),
        (["train", "--save-every", "0"], "--save-every: '0' is not a whole number"),
        (["train", "--learning-rate", "nan"], "'nan' is not a number above 0"),
        (["train", "--model", "ERManifoldVAE", "--manifold", "circel"], "'circel' is not known"),
        (["generate", "--model-folder", "nowhere"], "nowhere holds no model"),
        (["generate", "--model-folder", "nowhere", "--num-samples", "0"], "'0' is not a whole"),
        (["compare", "--model-folders", "nowhere"], "nowhere holds no model"),
        (["compare", "--model-folders", "nowhere", "--num-samples", "0"], "'0' is not a whole"),
        (["compare", "--model-folders", "nowhere", "--data", "mnist"], "train_data.npz"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_mistakes_are_named_in_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    error = error_of(capsys, *arguments)
    assert message in error and "\n" not in error


def test_a_model_of_other_data_is_refused(folder, faces, capsys):
    error = error_of(
        capsys, "generate", "--model-folder", folder, "--data", "my_faces", "--data-dir", faces
    )
    assert "is of data [1, 8, 8], but my_faces is [1, 28, 28]: name the data" in error


def test_unknown_fields_of_a_training_config_are_named(tmp_path, capsys):
    (tmp_path / "training.json").write_text('{"name": "BaseTrainerConfig", "num_epoch": 1}')
    arguments = "train", "--quick", "--training-config", tmp_path / "training.json"
    error = error_of(capsys, *arguments)
    assert "BaseTrainerConfig has no field 'num_epoch': did you mean 'num_epochs'?" in error
