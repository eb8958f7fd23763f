"""Sharing, with the real huggingface_hub client, against a small server on the loopback address."""

import base64
import hashlib
import io
import json
import os
import pathlib
import pickle
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from processes import run_code
from pydantic.dataclasses import dataclass
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder

from pythae_geometric import (
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    register,
    registry,
)
from pythae_geometric.models import GeometricModel

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as creating, committing and downloading take."""

    repos: dict  # "namespace/name" -> {path: bytes}
    asked: list  # what was asked for in creating and committing, and with which token
    protocol_version = "HTTP/1.1"

    def answer(self, body=b"", status=200, **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.answer({"error": "Not found"}, 404, X_Error_Code="RepoNotFound")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            wanted = json.loads(body)
            # Without an organisation a repo belongs to the user who asks.
            repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            known = repo in self.repos
            self.repos.setdefault(repo, {})
            self.asked.append((wanted, self.headers["Authorization"]))
            self.answer({"url": f"{self.server.url}/{repo}"}, 409 if known else 200)
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(\w+/[\w-]+)/preupload/main", path):
            if match[1] not in self.repos:
                return self.missing()
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            self.answer({"files": files})
        elif match := re.fullmatch(r"/api/models/(\w+/[\w-]+)/commit/main", path):
            if match[1] not in self.repos:
                return self.missing()
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    self.asked.append((entry["value"], self.headers["Authorization"]))
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.repos[match[1]][entry["value"]["path"]] = content
            url = f"{self.server.url}/{match[1]}/commit/{COMMIT}"
            self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})
        else:
            self.missing()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/(\w+/[\w-]+)(/revision/\w+)?", path):
            if match[1] not in self.repos:
                return self.missing()
            siblings = [{"rfilename": name} for name in self.repos[match[1]]]
            self.answer({"id": match[1], "sha": COMMIT, "siblings": siblings, "private": False})
        elif match := re.fullmatch(r"/api/models/(\w+/[\w-]+)/tree/\w+", path):
            self.answer([
                {"type": "file", "path": name, "size": len(content),
                 "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.repos[match[1]].items()
            ])  # fmt: skip
        elif match := re.fullmatch(r"/(\w+/[\w-]+)/resolve/\w+/(.+)", path):
            content = self.repos.get(match[1], {}).get(match[2])
            if content is None:
                return self.missing()
            self.answer(
                content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT
            )
        else:
            self.missing()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


class Served(tuple):
    """The repos of a server, and the environment in which a process uses it."""

    def __new__(cls, repos, env, asked):
        served = super().__new__(cls, (repos, env))
        served.asked = asked
        return served


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server; its repos, and the environment in which a process uses it."""
    handler = type("FreshHub", (Hub,), {"repos": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_" + "x" * 34,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
    }
    yield Served(handler.repos, environment, handler.asked)
    server.shutdown()
    server.server_close()


def run_python(code, env, *arguments, fails_with=None):
    """The client reads its endpoint once, at import, so each step runs in a process of its own."""
    exit_code, errors = run_code(code, env, *map(str, arguments))
    if fails_with is None:
        assert exit_code == 0, errors
    else:
        assert exit_code == 1 and fails_with in errors, errors


def card_code(card):
    """The Python in a model card, as a reader would copy it."""
    return re.search(r"```python\n(.*?)```", card.decode(), re.DOTALL)[1]


PRELUDE = f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"

PUSH_SAMPLER = """
import sys
import pythae_geometric
from pythae.models import AutoModel
model = AutoModel.load_from_folder(sys.argv[1])
sampler = pythae_geometric.MetricUniformHMCSampler.load(sys.argv[2], model)
sampler.push_to_hf_hub(sys.argv[3])
"""


def saved_sampler(model, digits, folder):
    sampler = MetricUniformHMCSampler(
        model, MetricUniformHMCSamplerConfig(num_centroids=10, mcmc_steps_nbr=2, n_lf=2, seed=0)
    )
    sampler.fit(digits[:100])
    model.save(str(folder / "model"))
    sampler.save(folder / "sampler")
    return sampler


def test_a_sampler_is_shared_under_an_organisation(hub, trained, digits, tmp_path):
    repos, env = hub
    sampler = saved_sampler(trained, digits, tmp_path)
    run_python(PUSH_SAMPLER, env, tmp_path / "model", tmp_path / "sampler", "lab/digits-hmc")
    assert list(repos) == ["lab/digits-hmc"]
    assert sorted(repos["lab/digits-hmc"]) == [
        "README.md", "environment.json", "model.pt", "model_config.json", "sampler.pt",
        "sampler_checksums.json", "sampler_config.json",
    ]  # fmt: skip
    card = repos["lab/digits-hmc"]["README.md"]
    assert b"- pythae-geometric" in card and b"VAE with MetricUniformHMCSampler" in card
    save = "\nimport sys, torch; torch.save(generated, sys.argv[1])"
    run_python(card_code(card) + save, env, tmp_path / "x.pt")
    assert torch.equal(torch.load(tmp_path / "x.pt"), sampler.sample(num_samples=16))

    # A second push updates the repo that exists.
    run_python(PUSH_SAMPLER, env, tmp_path / "model", tmp_path / "sampler", "lab/digits-hmc")
    assert list(repos) == ["lab/digits-hmc"]


def test_a_bare_name_goes_to_the_users_own_namespace(hub, trained, digits, tmp_path):
    repos, env = hub
    saved_sampler(trained, digits, tmp_path)
    run_python(PUSH_SAMPLER, env, tmp_path / "model", tmp_path / "sampler", "digits-hmc")
    assert list(repos) == ["me/digits-hmc"]
    assert '"me/digits-hmc"' in card_code(repos["me/digits-hmc"]["README.md"])


class TinyEncoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 6)

    def forward(self, x):
        mean, log_var = self.layer(x.flatten(1)).chunk(2, dim=-1)
        return ModelOutput(embedding=mean, log_covariance=log_var)


def test_pickled_networks_are_loaded_only_when_allowed(hub, digits, tmp_path):
    repos, env = hub
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=3), encoder=TinyEncoder())
    sampler = saved_sampler(model, digits, tmp_path)
    # pythae saves a network of one's own only where its module is imported.
    push = PRELUDE + "import test_hub" + PUSH_SAMPLER
    run_python(push, env, tmp_path / "model", tmp_path / "sampler", "lab/own")
    code = card_code(repos["lab/own"]["README.md"])
    assert "allow_pickle=True" in code
    refusal = (
        "ValueError: lab/own keeps its networks in encoder.pkl, and unpickling can run any code: "
        "if you trust its author, call MetricUniformHMCSampler.load_from_hf_hub with "
        "allow_pickle=True."
    )
    run_python(code.replace(", allow_pickle=True", ""), env, fails_with=refusal)
    assert not list((tmp_path / "hf").rglob("*.pkl"))  # not even downloaded
    save = "\nimport sys, torch; torch.save(generated, sys.argv[1])"
    run_python(code + save, env, tmp_path / "x.pt")
    assert torch.equal(torch.load(tmp_path / "x.pt"), sampler.sample(num_samples=16))


@dataclass
class SharedVAEConfig(VAEConfig):
    pass


class SharedVAE(GeometricModel, VAE):
    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder)
        self.model_name = "SharedVAE"


@pytest.fixture
def shared():
    register(SharedVAE, SharedVAEConfig)
    yield
    del registry._classes["SharedVAEConfig"], registry._configs["SharedVAEConfig"]


PUSH_MODEL = (
    PRELUDE
    + """
import test_hub
test_hub.register(test_hub.SharedVAE, test_hub.SharedVAEConfig)
from pythae.models import AutoModel
AutoModel.load_from_folder(sys.argv[1]).push_to_hf_hub(sys.argv[2])
"""
)
REGISTER = (
    PRELUDE + "import test_hub; test_hub.register(test_hub.SharedVAE, test_hub.SharedVAEConfig)\n"
)
SAVE_WEIGHTS = "\nimport torch; torch.save(model.state_dict(), sys.argv[1])"


def test_a_model_of_ours_is_shared(hub, shared, tmp_path):
    repos, env = hub
    model = SharedVAE(SharedVAEConfig(input_dim=(1, 8, 8), latent_dim=3))
    model.save(str(tmp_path / "model"))
    run_python(PUSH_MODEL, env, tmp_path / "model", "lab/shared")
    code = card_code(repos["lab/shared"]["README.md"])
    assert "import pythae_geometric" in code
    run_python(REGISTER + code + SAVE_WEIGHTS, env, tmp_path / "w.pt")
    for name, value in torch.load(tmp_path / "w.pt").items():
        assert torch.equal(value, model.state_dict()[name])


def test_a_model_of_ours_with_pickles_raises_instead_of_none(hub, shared, tmp_path):
    repos, env = hub
    config = SharedVAEConfig(input_dim=(1, 8, 8), latent_dim=3)
    SharedVAE(config, encoder=TinyEncoder()).save(str(tmp_path / "model"))
    run_python(PUSH_MODEL, env, tmp_path / "model", "lab/shared")
    code = REGISTER + card_code(repos["lab/shared"]["README.md"])
    refusal = "call SharedVAE.load_from_hf_hub with allow_pickle=True"
    run_python(code.replace(", allow_pickle=True", ""), env, fails_with=refusal)
    run_python(code + SAVE_WEIGHTS, env, tmp_path / "w.pt")


def test_names_that_nobody_knows_still_give_pythaes_error(hub):
    repos, env = hub
    repos["lab/unknown"] = {"model_config.json": b'{"name": "NobodysConfig"}'}
    repos["lab/empty"] = {"other.txt": b""}
    code = "import pythae_geometric\nfrom pythae.models import AutoModel\n"
    run_python(
        code + "AutoModel.load_from_hf_hub('lab/unknown')", env,
        fails_with="NameError: Cannot reload automatically the model",
    )  # fmt: skip
    run_python(
        "import pythae_geometric\n"
        "pythae_geometric.MetricUniformHMCSampler.load_from_hf_hub('lab/empty')",
        env, fails_with="ValueError: lab/empty has no readable model_config.json",
    )  # fmt: skip


def test_without_huggingface_hub_the_extra_is_named(trained, digits, tmp_path, monkeypatch):
    sampler = saved_sampler(trained, digits, tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: sampler.push_to_hf_hub("lab/digits"),
        lambda: MetricUniformHMCSampler.load_from_hf_hub("lab/digits"),
        lambda: SharedVAE.load_from_hf_hub("lab/digits"),
    ):
        with pytest.raises(ImportError, match=r'pip install "pythae-geometric\[hub\]"'):
            call()


def test_a_card_that_is_there_stays_and_options_reach_the_hub(hub, trained, digits, tmp_path):
    repos, env = hub
    saved_sampler(trained, digits, tmp_path)
    push = PUSH_SAMPLER.replace(
        "sys.argv[3])",
        "sys.argv[3], private=True, token='hf_' + 'y' * 34, commit_message='Warmer digits')",
    )
    where = tmp_path / "model", tmp_path / "sampler", "lab/digits"
    run_python(push, env, *where)
    created, header = hub.asked
    # Older and newer clients name it differently.
    assert created[0].get("private") or created[0]["visibility"] == "private"
    assert header[0]["summary"] == "Warmer digits"
    assert {token for _, token in hub.asked} == {"Bearer hf_" + "y" * 34}
    repos["lab/digits"]["README.md"] = b"# Written by hand"
    run_python(push, env, *where)
    assert repos["lab/digits"]["README.md"] == b"# Written by hand"


# What files claim decides nothing


class Harm:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def torch_saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def hostile_repos(harm, fitted):
    """Repos whose pickles do harm, and claim by their configs not to be any."""
    pickled = pickle.dumps(harm)
    pickles = {
        f"{name}.pkl": pickled
        for name in ("encoder", "decoder", "embedding", "metric", "discriminator")
    }
    sampler = {name: (fitted / name).read_bytes() for name in os.listdir(fitted)}
    small = {"input_dim": [6], "latent_dim": 2}
    weights = torch_saved({"model_state_dict": {}})
    circle = {"name": "ERManifoldVAEConfig", "input_dim": [6], "manifold": "custom"}
    configs = {
        "flag-is-a-string": {
            "name": "BrownianRVAEConfig",
            **small,
            "uses_default_encoder": "false",
        },
        "flag-is-a-number": {"name": "RicciAEConfig", **small, "uses_default_decoder": 0},
        "custom-embedding": {**circle, "latent_dim": 1, "ambient_dim": 2},
        "pythae": {"name": "VAEConfig", **small, "uses_default_encoder": "no"},
        "metric": {"name": "RHVAEConfig", **small, "uses_default_metric": False},
        "discriminator": {"name": "FactorVAEConfig", **small, "uses_default_discriminator": False},
        "bad-weights": {"name": "VAEConfig", **small},
        "our-bad-weights": {"name": "RicciAEConfig", **small},
    }
    return {
        f"evil/{name}": {
            "model_config.json": json.dumps(config).encode(),
            "environment.json": b'{"name": "EnvironmentConfig", "python_version": "3.11"}',
            "model.pt": torch_saved(harm) if "weights" in name else weights,
            **pickles,
            **sampler,
        }
        for name, config in configs.items()
    }


LOAD_ALL = """
import sys
import huggingface_hub
from pythae.models import AutoModel
import pythae_geometric as pg
out = open(sys.argv[1], 'w')
for repo in sys.argv[2:]:
    huggingface_hub.snapshot_download(repo)  # everything lies in the cache already
    loaders = [pg.MetricUniformHMCSampler.load_from_hf_hub]
    if repo.split("/")[1] in ("flag-is-a-string", "flag-is-a-number", "custom-embedding",
                              "our-bad-weights"):
        loaders += [AutoModel.load_from_hf_hub, pg.RicciAE.load_from_hf_hub,
                    pg.BrownianRVAE.load_from_hf_hub, pg.ERManifoldVAE.load_from_hf_hub]
    for load in loaders:
        try:
            load(repo)
        except ValueError as error:
            print(repo, error, file=out)
        else:
            print(repo, "LOADED", file=out)
out.close()
"""


def test_no_pickle_runs_without_permission(hub, trained, digits, tmp_path):
    repos, env = hub
    saved_sampler(trained, digits, tmp_path)
    marker = tmp_path / "harm"
    repos.update(hostile_repos(Harm(marker), tmp_path / "sampler"))
    run_python(LOAD_ALL, env, tmp_path / "out", *repos)
    out = (tmp_path / "out").read_text().splitlines()
    assert not marker.exists()
    assert not any(line.endswith("LOADED") for line in out), out
    refused = [line for line in out if "unpickling can run any code" in line]
    assert {line.split()[0] for line in refused} == {
        repo for repo in repos if "weights" not in repo
    }, out
    assert sum("damaged or is not a file of tensors" in line for line in out) >= 2, out
    # And the pickles are such that they would.
    pickle.loads(pickle.dumps(Harm(marker)))
    assert marker.exists()


@pytest.mark.parametrize("cls", [GeometricModel, MetricUniformHMCSampler])
@pytest.mark.parametrize("permission", ["no", "False", 1, None])
def test_a_permission_is_true_or_false(cls, permission):
    """Before anything is downloaded: of these words each would count as true."""
    with pytest.raises(TypeError, match="allow_pickle must be True or False"):
        cls.load_from_hf_hub("lab/model", allow_pickle=permission)


SHARE_AN_EMBEDDING = """
import sys, torch
import pythae_geometric as pg
config = pg.ERManifoldVAEConfig(
    input_dim=(6,), manifold="custom", latent_dim=1, ambient_dim=2, hidden_dims=(5,)
)
circle = lambda u: torch.cat([(6.283 * u).cos(), (6.283 * u).sin()], dim=1)
pg.ERManifoldVAE(config, exact_embedding=circle).push_to_hf_hub("lab/circle")
"""
LOAD_AN_EMBEDDING = """
import sys
import pythae_geometric as pg
from pythae.models import AutoModel
for loader in (AutoModel, pg.ERManifoldVAE):
    try:
        loader.load_from_hf_hub("lab/circle")
    except ValueError as error:
        assert "embedding.pkl" in str(error)
    else:
        raise AssertionError("loaded without permission")
    model = loader.load_from_hf_hub("lab/circle", allow_pickle=True)
    assert model.sample_manifold(3).shape == (3, 2)
"""


def test_a_custom_embedding_loads_from_a_fresh_cache_with_permission(hub):
    _, env = hub
    run_python(SHARE_AN_EMBEDDING, env)
    run_python(LOAD_AN_EMBEDDING, env)
