"""Mixed precision, devices, and several processes."""

import os
import subprocess
import sys

import pytest
import torch
from cases import CASES, run_of, seeded, train
from pythae.models import AutoModel

from pythae_geometric import BrownianMotionSampler, BrownianMotionSamplerConfig

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def loaded(case, digits, tmp_path_factory):
    return AutoModel.load_from_folder(run_of(case, False, digits, tmp_path_factory).final)


def test_mixed_precision(case, digits, tmp_path_factory):
    """Under autocast loss and gradients are finite, and the loss is about that of float32."""
    model = loaded(case, digits, tmp_path_factory).train()
    x = torch.as_tensor(digits[:40])
    exact = seeded(model, {"data": x}, epoch=case.epochs).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isclose(seeded(model, {"data": x}, epoch=case.epochs).loss, exact, rtol=0.1)
    # Not in the same context: in torch 2.4 it keeps the weights that were cast without gradients.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model({"data": x}, epoch=case.epochs, dataset_size=150, uses_ddp=False)
    output.loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(g).all()) for g in gradients)


@needs_gpu
def test_to_the_gpu_and_back(case, digits, tmp_path_factory, tmp_path):
    model = loaded(case, digits, tmp_path_factory).eval()
    x = torch.as_tensor(digits[:20])
    with torch.no_grad():
        before = model.encoder(x).embedding
        model = model.cuda()
        output = model({"data": x.cuda()})
        assert {t.device.type for t in output.values() if isinstance(t, torch.Tensor)} == {"cuda"}
        assert {t.device.type for t in model.state_dict().values()} == {"cuda"}
        assert torch.allclose(model.encoder(x.cuda()).embedding.cpu(), before, atol=1e-4)
        assert torch.allclose(model.cpu().encoder(x).embedding, before)


@needs_gpu
@pytest.mark.parametrize("amp", [False, True])
def test_training_on_the_gpu(case, amp, digits, tmp_path):
    trainer = train(
        case.build(), digits[:100], tmp_path, case.epochs, digits[:50], no_cuda=False, amp=amp
    )
    model = AutoModel.load_from_folder(os.path.join(trainer.training_dir, "final_model"))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


# Two processes


PROGRAM = """
import os, sys
sys.path.insert(0, {tests!r})
import torch, torch.distributed as dist
from cases import CASES
from test_contract_accelerators import FIXED
from torch.nn.parallel import DistributedDataParallel
torch.set_num_threads(1)
x, folder = torch.load(sys.argv[1], weights_only=True), sys.argv[2]
dist.init_process_group("gloo")
rank = dist.get_rank()
# Every random number is 0.3, in each process as in the one of the test.
torch.randn_like = lambda z, **kwargs: torch.full_like(z, 0.3)
torch.rand = lambda n, **kwargs: torch.full((n,), 0.3)
for name in sys.argv[3:]:
    torch.manual_seed(0)
    model = CASES[name].build(**FIXED.get(name, {{}}))
    parallel = DistributedDataParallel(model)
    half = x[rank::2]
    parallel({{"data": half}}, epoch=1, dataset_size=len(x)).loss.backward()
    if rank == 0:
        grads = {{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}
        torch.save(grads, os.path.join(folder, name + ".pt"))
dist.barrier()
os._exit(0)  # gloo's threads may abort an orderly end
"""
# Without what is drawn in ways that a test cannot fix (points of curvature, samples of a Beta), and
# without the clipping of gradients, which each process does to its own.
FIXED = {
    "RicciAE": {"curvature_weight": 0.0},
    "ERManifoldVAE": {"posterior": "normal"},
    "VAE_DLM": {"gradient_clip": None},
}
PARALLEL = [name for name in CASES if len(CASES[name].phases) == 1]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_gradients_of_two_processes_are_those_of_one(digits, tmp_path, monkeypatch):
    """With torch's DistributedDataParallel and gloo: what pythae's trainer wraps models in."""
    x = torch.as_tensor(digits[:20])
    torch.save(x, tmp_path / "x.pt")
    tests = os.path.dirname(os.path.abspath(__file__))
    (tmp_path / "program.py").write_text(PROGRAM.format(tests=tests))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", tmp_path / "program.py", tmp_path / "x.pt", tmp_path]
    done = subprocess.run([*command, *PARALLEL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(torch, "randn_like", lambda z, **kwargs: torch.full_like(z, 0.3))
    monkeypatch.setattr(torch, "rand", lambda n, **kwargs: torch.full((n,), 0.3))
    for name in PARALLEL:
        torch.manual_seed(0)
        model = CASES[name].build(**FIXED.get(name, {}))
        model({"data": x}, epoch=1, dataset_size=len(x)).loss.backward()
        grads = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for parameter, p in model.named_parameters():
            if p.grad is not None:
                assert torch.allclose(grads[parameter], p.grad, rtol=1e-4, atol=1e-6), (
                    name,
                    parameter,
                )


@pytest.fixture
def process_group(monkeypatch):
    """A group of this process alone."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29591")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_pythaes_trainer_is_not_for_several_processes_on_a_cpu(digits, tmp_path, process_group):
    """It gives DistributedDataParallel device_ids, which torch allows for GPUs only; with them, it
    wants a GPU for each process. This is pythae's, with every model."""
    fields = {"world_size": 2, "rank": 0, "local_rank": 0, "dist_backend": "gloo"}
    with pytest.raises(ValueError, match="device_ids"):
        train(CASES["VAE"].build(), digits[:50], tmp_path, 1, **fields)


@pytest.mark.parametrize("name", [name for name in CASES if len(CASES[name].phases) > 1])
def test_models_of_two_phases_are_not_for_several_processes(name, digits, process_group):
    """pythae wraps models in a DistributedDataParallel that wants gradients of all parameters in
    every step; those of one phase rest in the other. The model says so before training."""
    x = torch.as_tensor(digits[:20])
    parallel = torch.nn.parallel.DistributedDataParallel(CASES[name].build())
    parallel({"data": x}, epoch=1).loss.backward()
    with pytest.raises(RuntimeError, match="parameters that were not used"):
        parallel({"data": x}, epoch=1)
    with pytest.raises(ValueError, match="cannot be trained by several processes"):
        CASES[name].build()({"data": x}, epoch=1, uses_ddp=True)


def test_generation_split_over_seeds(digits, tmp_path_factory):
    """Two processes with seeds of their own draw other samples; with the same, the same."""
    model = loaded(CASES["VAE"], digits, tmp_path_factory)

    def draw(seed):
        fields = {"metric": "pullback", "time": 1e-3, "steps": 2, "seed": seed}
        sampler = BrownianMotionSampler(model, BrownianMotionSamplerConfig(**fields))
        sampler.fit(digits[:100])
        return sampler.sample_latent(50)

    first, again, second = draw(0), draw(0), draw(1)
    assert torch.equal(first, again)
    assert float(torch.cdist(first, second).min()) > 0
