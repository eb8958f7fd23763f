"""pythae finds our classes and users' own, and its own as before."""

import importlib
import json

import pytest
import torch
from pydantic.dataclasses import dataclass
from pythae.models import VAE, AutoModel, VAEConfig
from pythae.models.auto_model import AutoConfig
from pythae.pipelines import GenerationPipeline
from pythae.samplers import BaseSampler, BaseSamplerConfig, NormalSampler, NormalSamplerConfig

import pythae_geometric
from pythae_geometric import MetricUniformHMCSamplerConfig, register, registry


@dataclass
class WarmVAEConfig(VAEConfig):
    heat: float = 1.0


class WarmVAE(VAE):
    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder)
        self.model_name = "WarmVAE"


@dataclass
class ZeroSamplerConfig(BaseSamplerConfig):
    value: float = 0.0


class ZeroSampler(BaseSampler):
    def sample(self, num_samples=1, **kwargs):
        z = torch.full((num_samples, self.model.latent_dim), self.sampler_config.value)
        return self.model.decoder(z)["reconstruction"].detach()


@pytest.fixture
def table():
    """Leaves the table as it was."""
    tables = registry._classes, registry._configs
    before = [dict(t) for t in tables]
    yield
    for t, old in zip(tables, before, strict=True):
        t.clear()
        t.update(old)


def small(config_class, **fields):
    return config_class(input_dim=(1, 8, 8), latent_dim=3, **fields)


def test_a_users_model_is_loaded_by_automodel(table, tmp_path):
    model = WarmVAE(small(WarmVAEConfig, heat=2.5))
    model.save(str(tmp_path))
    with pytest.raises(NameError, match="Cannot reload automatically the model"):
        AutoModel.load_from_folder(str(tmp_path))
    with pytest.raises(NameError, match="Cannot reload automatically the model configuration"):
        WarmVAE.load_from_folder(str(tmp_path))

    register(WarmVAE, WarmVAEConfig)
    for loaded in (
        AutoModel.load_from_folder(str(tmp_path)),
        WarmVAE.load_from_folder(str(tmp_path)),
    ):
        assert type(loaded) is WarmVAE and loaded.model_config == model.model_config
        for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    config = AutoConfig.from_json_file(str(tmp_path / "model_config.json"))
    assert type(config) is WarmVAEConfig and config.heat == 2.5


def test_a_users_sampler_is_found_by_the_pipeline(table):
    model = VAE(small(VAEConfig))
    config = ZeroSamplerConfig(value=0.5)
    with pytest.raises(NotImplementedError, match="Unrecognized sampler config name"):
        GenerationPipeline(model, config)
    register(ZeroSampler, ZeroSamplerConfig)
    assert type(GenerationPipeline(model=model, sampler_config=config).sampler) is ZeroSampler


def test_pythaes_own_names_go_their_own_way(tmp_path):
    model = VAE(small(VAEConfig))
    model.save(str(tmp_path))
    assert type(AutoModel.load_from_folder(str(tmp_path))) is VAE
    assert type(AutoConfig.from_json_file(str(tmp_path / "model_config.json"))) is VAEConfig
    for config in (None, NormalSamplerConfig()):
        assert type(GenerationPipeline(model, config).sampler) is NormalSampler


def test_unknown_names_give_pythaes_errors_and_unreadable_files_are_named(tmp_path):
    path = tmp_path / "model_config.json"
    with pytest.raises(FileNotFoundError):
        AutoModel.load_from_folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="There is no config file"):
        AutoConfig.from_json_file(str(path))
    path.write_text(json.dumps({"name": "NobodysConfig"}))
    with pytest.raises(NameError, match="Got NobodysConfig"):
        AutoModel.load_from_folder(str(tmp_path))
    with pytest.raises(NameError, match="Got `NobodysConfig`"):
        AutoConfig.from_json_file(str(path))
    path.write_text("{")
    with pytest.raises(ValueError, match=r"model_config\.json' is not a config written by pythae"):
        AutoConfig.from_json_file(str(path))


def test_importing_again_changes_nothing(table):
    patched = (
        AutoConfig.from_json_file.__func__,
        AutoModel.load_from_folder.__func__,
        AutoModel.load_from_hf_hub.__func__,
        GenerationPipeline.__init__,
    )
    importlib.reload(pythae_geometric)
    registry._patch_pythae()
    assert patched == (
        AutoConfig.from_json_file.__func__,
        AutoModel.load_from_folder.__func__,
        AutoModel.load_from_hf_hub.__func__,
        GenerationPipeline.__init__,
    )


def test_registering_again(table):
    register(WarmVAE, WarmVAEConfig)
    register(WarmVAE, WarmVAEConfig)
    again = type("WarmVAE", (VAE,), {"__module__": WarmVAE.__module__})  # a cell that ran twice
    register(again, WarmVAEConfig)
    assert registry._classes["WarmVAEConfig"] is again


BAD = {
    "no class": ("VAE", WarmVAEConfig, TypeError, "takes a subclass of pythae's BaseAE or BaseS"),
    "other class": (torch.nn.Linear, WarmVAEConfig, TypeError, "takes a subclass of pythae's"),
    "no config": (WarmVAE, {"heat": 1}, TypeError, "must be a pydantic dataclass"),
    "model's name": (WarmVAE, VAEConfig, ValueError, "VAEConfig is pythae's own name"),
    "sampler's name": (ZeroSampler, NormalSamplerConfig, ValueError, "is pythae's own name"),
    "taken": (ZeroSampler, MetricUniformHMCSamplerConfig, ValueError, "is registered already"),
}


@pytest.mark.parametrize("cls, config, error, message", BAD.values(), ids=BAD.keys())
def test_bad_registrations(table, cls, config, error, message):
    with pytest.raises(error, match=message):
        register(cls, config)
