"""Mixed precision, devices, and several processes."""

import os

import pytest
import torch
from cases import CASES, seeded, train
from processes import run_at_once
from pythae.models import AutoModel
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pythae_geometric import BrownianMotionSampler, BrownianMotionSamplerConfig

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_mixed_precision(case, run_of, digits):
    """Under autocast loss and gradients are finite, and the loss is about that of float32."""
    model = AutoModel.load_from_folder(run_of(case).final).train()
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
def test_to_the_gpu_and_back(case, run_of, digits):
    model = AutoModel.load_from_folder(run_of(case).final).eval()
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


# Without what is drawn in ways that a test cannot fix (points of curvature, samples of a Beta), and
# without what each process does to its own half: to clip gradients, to learn the deviation.
FIXED = {
    "RicciAE": {"curvature_weight": 0.0},
    "ERManifoldVAE": {"posterior": "normal", "likelihood_std": 1.0},
    "VAE_DLM": {"gradient_clip": None},
}
PARALLEL = [name for name in CASES if len(CASES[name].phases) == 1]


def gradients(name, x, wrap=lambda model: model):
    """Of the loss of a batch, with 0.3 in place of every random number."""
    torch.manual_seed(0)
    model = CASES[name].build(**FIXED.get(name, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda z, **kwargs: torch.full_like(z, 0.3))
        patch.setattr(torch, "rand", lambda n, **kwargs: torch.full((n,), 0.3))
        wrapped = wrap(model)
        wrapped({"data": torch.as_tensor(x)}, epoch=1, dataset_size=20).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def one_of_two_processes(rank, x, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    grads = {name: gradients(name, x[rank::2], DistributedDataParallel) for name in PARALLEL}
    torch.save(grads, folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an orderly end


@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_gradients_of_two_processes_are_those_of_one(digits, tmp_path):
    """With torch's DistributedDataParallel and gloo: what pythae's trainer wraps models in."""
    x = digits[:20]
    for exit_code, errors in run_at_once(one_of_two_processes, (0, x, tmp_path), (1, x, tmp_path)):
        assert exit_code == 0, errors
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in PARALLEL:
            expected = gradients(name, x)
            assert got[name].keys() == expected.keys()
            for parameter, value in expected.items():
                close = torch.allclose(got[name][parameter], value, rtol=1e-4, atol=1e-6)
                assert close, (rank, name, parameter)


@pytest.fixture
def process_group():
    """A group of this process alone."""
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", [name for name in CASES if len(CASES[name].phases) > 1])
def test_models_of_two_phases_are_not_for_several_processes(name, digits, process_group):
    """pythae wraps models in a DistributedDataParallel that wants gradients of all parameters in
    every step; those of one phase rest in the other. The model says so before training."""
    x = torch.as_tensor(digits[:20])
    parallel = DistributedDataParallel(CASES[name].build())
    parallel({"data": x}, epoch=1).loss.backward()
    with pytest.raises(RuntimeError, match="parameters that were not used"):
        parallel({"data": x}, epoch=1)
    with pytest.raises(ValueError, match="cannot be trained by several processes"):
        CASES[name].build()({"data": x}, epoch=1, uses_ddp=True)


def test_generation_split_over_seeds(run_of, digits):
    """Two processes with seeds of their own draw other samples; with the same, the same."""
    model = AutoModel.load_from_folder(run_of(CASES["VAE"]).final)

    def draw(seed):
        fields = {"metric": "pullback", "time": 1e-3, "steps": 2, "seed": seed}
        sampler = BrownianMotionSampler(model, BrownianMotionSamplerConfig(**fields))
        sampler.fit(digits[:100])
        return sampler.sample_latent(50)

    first, again, second = draw(0), draw(0), draw(1)
    assert torch.equal(first, again)
    assert float(torch.cdist(first, second).min()) > 0
