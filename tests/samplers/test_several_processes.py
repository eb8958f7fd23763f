"""A seed gives the same samples in batches of any size and in any number of processes."""

import os

import pytest
import torch
from processes import run_at_once
from pythae.models import AutoModel
from torch import distributed as dist

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
)
from pythae_geometric.evaluation import FrechetStatistics, frechet_distance

SAMPLERS = {
    "codes": (MetricUniformHMCSampler, MetricUniformHMCSamplerConfig, {}),
    "posteriors": (
        MetricUniformHMCSampler,
        MetricUniformHMCSamplerConfig,
        {"metric": "posteriors", "num_centroids": 10, "mcmc_steps_nbr": 5, "adaptation_steps": 4},
    ),
    "motion": (
        BrownianMotionSampler,
        BrownianMotionSamplerConfig,
        {"metric": "pullback", "steps": 4, "stationary": "codes"},
    ),
    "posterior motion": (
        BrownianMotionSampler,
        BrownianMotionSamplerConfig,
        {"metric": "posterior", "steps": 4},
    ),
}
COUNT = 23  # odd shares


@pytest.fixture
def model_folder(trained, tmp_path):
    trained.save(str(tmp_path / "model"))
    return tmp_path / "model"


def fitted(name, model, data, **fields):
    cls, config, own = SAMPLERS[name]
    sampler = cls(model, config(**own, **{"seed": 3, **fields}))
    sampler.fit(data, batch_size=77)
    return sampler


def assert_same(samples, reference):
    """Products of fewer rows round otherwise, and chains carry that on."""
    torch.testing.assert_close(samples, reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_of_any_size(name, trained, digits):
    sampler = fitted(name, trained, digits[:300])
    whole = sampler.sample_latent(COUNT)
    sampler._restart()
    assert_same(sampler.sample_latent(COUNT, batch_size=5), whole)
    # One call after another goes on with the streams.
    sampler._restart()
    assert_same(torch.cat([sampler.sample_latent(9), sampler.sample_latent(COUNT - 9)]), whole)
    assert len(whole.unique(dim=0)) == COUNT


def test_without_a_seed_torch_decides(trained, digits):
    sampler = fitted("codes", trained, digits[:300], seed=None)
    torch.manual_seed(7)
    first, second = sampler.sample_latent(4), sampler.sample_latent(4)
    torch.manual_seed(7)
    assert torch.equal(sampler.sample_latent(4), first)
    assert float((first - second).abs().min()) > 0


def draw_share(rank, processes, folder, data, seeds):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=processes)
    model = AutoModel.load_from_folder(str(folder / "model")).eval()
    torch.manual_seed(rank)  # each process has random numbers of its own
    drawn = {}
    for name in SAMPLERS:
        for seed in seeds:
            sampler = fitted(name, model, data, seed=seed, several_processes=True)
            drawn[name, seed] = sampler.sample_latent(COUNT, batch_size=4)
    images = folder / "images"
    sampler.sample(COUNT, output_dir=str(images), save_sampler_config=True)

    statistics = FrechetStatistics()
    if rank > 0:  # one of them has nothing
        statistics.add(data[rank::processes].reshape(-1, 64)[:, :5])
    whole = statistics.over_processes()
    try:
        # An error of the first process is one of all.
        fitted("posteriors", model, data[:5], seed=0, several_processes=True)
    except ValueError as error:
        drawn["error"] = str(error)
    drawn["statistics"] = (whole.count, whole.mean, whole.scatter)
    torch.save(drawn, folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an orderly end


@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_processes_share_the_work(trained, model_folder, digits, tmp_path):
    data, processes = digits[:300], 3
    shares = [(r, processes, tmp_path, data, (3, None)) for r in range(processes)]
    for exit_code, errors in run_at_once(draw_share, *shares):
        assert exit_code == 0, errors
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    for name in SAMPLERS:
        assert [len(part[name, 3]) for part in parts] == [7, 8, 8]
        together = torch.cat([part[name, 3] for part in parts])
        assert_same(together, fitted(name, trained, data).sample_latent(COUNT))
        # Without a seed the first process draws one for all: no sample is drawn twice.
        without = torch.cat([part[name, None] for part in parts])
        assert float(torch.pdist(without).min()) > 0
    images = [f"{i:08d}.png" for i in range(COUNT)]
    saved = sorted(os.listdir(tmp_path / "images"))
    files = ["sampler.pt", "sampler_checksums.json", "sampler_config.json"]
    assert saved == sorted([*images, *files])

    assert all("only 5 training points" in part["error"] for part in parts)
    x = torch.cat([torch.as_tensor(data[r::processes]) for r in range(1, processes)])
    x = x.reshape(-1, 64)[:, :5]
    for part in parts:
        whole = FrechetStatistics()
        whole.count, whole.mean, whole.scatter = part["statistics"]
        assert whole.count == len(x)
        assert frechet_distance(whole, x) < 1e-10
        assert frechet_distance(whole, x + 1) == pytest.approx(5.0)
