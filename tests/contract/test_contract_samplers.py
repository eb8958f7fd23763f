"""What a user may rely on in every sampler, on every model that it accepts."""

import json
import os
import re

import numpy as np
import pytest
import torch
from cases import CASES
from PIL import Image
from pythae.models import AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.samplers import (
    BaseSampler,
    GaussianMixtureSampler,
    GaussianMixtureSamplerConfig,
    NormalSampler,
    NormalSamplerConfig,
)

import pythae_geometric
from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
)

MOTION = {"steps": 5, "seed": 0}
SAMPLERS = {
    "uniform": (
        MetricUniformHMCSampler,
        MetricUniformHMCSamplerConfig,
        {"mcmc_steps_nbr": 2, "seed": 0},
    ),
    "uniform, posteriors": (
        MetricUniformHMCSampler,
        MetricUniformHMCSamplerConfig,
        {"metric": "posteriors", "num_centroids": 10, "mcmc_steps_nbr": 3, "n_lf": 2, "seed": 0},
    ),
    "prior": (BrownianMotionSampler, BrownianMotionSamplerConfig, MOTION),
    "pullback": (
        BrownianMotionSampler,
        BrownianMotionSamplerConfig,
        # Decoders that have hardly been trained change little with z: the motion is fast.
        {**MOTION, "metric": "pullback", "time": 0.01},
    ),
    "posterior": (
        BrownianMotionSampler,
        BrownianMotionSamplerConfig,
        {**MOTION, "metric": "posterior", "time": 0.1},
    ),
    "pullback, time of the data": (
        BrownianMotionSampler,
        BrownianMotionSamplerConfig,
        {**MOTION, "metric": "pullback"},
    ),
    "posterior, time of the data": (
        BrownianMotionSampler,
        BrownianMotionSamplerConfig,
        {**MOTION, "metric": "posterior"},
    ),
}


def accepts(sampler, case):
    if sampler == "prior":  # of a model that has none, the motion in the model's own metric
        return case.model.__name__ in ("BrownianRVAE", "RicciAE")
    if "posterior" in sampler:  # variances, not a time
        return case.encoder == "VAE" and case.model.__name__ != "BrownianRVAE"
    return True


PAIRS = [(s, m) for s in SAMPLERS for m, case in CASES.items() if accepts(s, case)]
REFUSED = [(s, m) for s in SAMPLERS for m, case in CASES.items() if not accepts(s, case)]


@pytest.fixture(scope="module")
def build(run_of):
    """A function that gives the class and the config of a sampler, and a trained model."""

    def build(sampler, name):
        cls, config, fields = SAMPLERS[sampler]
        return cls, config(**fields), AutoModel.load_from_folder(run_of(CASES[name]).final)

    return build


@pytest.mark.parametrize(("sampler", "name"), PAIRS)
def test_by_the_pipeline_directly_and_loaded(sampler, name, build, digits, tmp_path):
    cls, config, model = build(sampler, name)
    data = digits[:150]
    pipeline = GenerationPipeline(model=model, sampler_config=config)
    assert type(pipeline.sampler) is cls
    images = pipeline(
        num_samples=7,
        batch_size=3,
        output_dir=str(tmp_path / "images"),
        return_gen=True,
        save_sampler_config=True,
        train_data=data,
    )
    assert images.shape == (7, 1, 8, 8) and bool(torch.isfinite(images).all())

    # Images, config and sampler on disk.
    names = sorted(os.listdir(tmp_path / "images"))
    assert names[:7] == [f"{i:08d}.png" for i in range(7)]
    assert {"sampler_config.json", "sampler.pt"} <= set(names[7:])
    for image, file in zip(images, names[:7], strict=True):
        pixels = np.asarray(Image.open(tmp_path / "images" / file)).astype(float)
        pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
        # pythae's save_img cuts off what is behind the point. Not every decoder keeps to [0, 1].
        assert np.abs(pixels - 255 * image[0].cpu().clamp(0, 1).numpy()).max() <= 1
    with open(tmp_path / "images" / "sampler_config.json", encoding="utf-8") as f:
        assert json.load(f)["name"] == type(config).__name__
    written = type(config).from_json_file(str(tmp_path / "images" / "sampler_config.json"))
    assert written.to_dict() == config.to_dict()

    # Direct use draws the same numbers; loaded, it needs no data.
    direct = cls(model, config)
    direct.fit(data)
    assert torch.allclose(direct.sample(7, batch_size=3), images, atol=1e-5)
    loaded = cls.load(tmp_path / "images", model)
    again = [s.sample(5, batch_size=5) for s in (loaded, cls.load(tmp_path / "images", model))]
    assert torch.equal(*again)


@pytest.mark.parametrize(("sampler", "name"), PAIRS)
def test_numbers_of_samples(sampler, name, build, digits):
    cls, config, model = build(sampler, name)
    drawn = cls(model, config)
    with pytest.raises(RuntimeError, match="is not fitted"):
        drawn.sample(3)
    drawn.fit(torch.as_tensor(digits[:150]))
    assert drawn.sample(0).shape == (0, 1, 8, 8)
    assert drawn.sample(1).shape == (1, 1, 8, 8)
    assert drawn.sample_latent(5, batch_size=2).shape == (5, 3)
    assert drawn.sample(2, return_gen=False) is None


@pytest.mark.parametrize(("sampler", "name"), REFUSED)
def test_a_model_that_does_not_fit_is_refused_with_the_reason(sampler, name, build, digits):
    cls, config, model = build(sampler, name)
    with pytest.raises((TypeError, ValueError)) as refused:
        cls(model, config).fit(digits[:150])
    message = str(refused.value)
    assert re.search("log_covariance|metric", message) and "\n" not in message


@pytest.mark.parametrize("name", [name for name in CASES if name != "VAE"])
def test_samplers_of_pythae(name, run_of, digits):
    model = AutoModel.load_from_folder(run_of(CASES[name]).final)
    for cls, config in (
        (NormalSampler, NormalSamplerConfig()),
        (GaussianMixtureSampler, GaussianMixtureSamplerConfig(n_components=3)),
    ):
        drawn = cls(model, config)
        drawn.fit(torch.as_tensor(digits[:100]))
        images = drawn.sample(7, batch_size=3)
        assert images.shape == (7, 1, 8, 8) and bool(torch.isfinite(images).all())


def test_every_sampler_of_the_package_is_in_the_list():
    ours = {
        c
        for c in vars(pythae_geometric).values()
        if isinstance(c, type) and issubclass(c, BaseSampler)
    }
    assert ours == {entry[0] for entry in SAMPLERS.values()}
