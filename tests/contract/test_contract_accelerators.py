"""Mixed precision, devices, and several processes."""

import os
import types

import pytest
import torch
from cases import CASES, seeded, train
from processes import run_at_once
from pythae.data.datasets import BaseDataset
from pythae.models import AutoModel
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.base_trainer import base_trainer
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pythae_geometric import BrownianMotionSampler, BrownianMotionSamplerConfig
from pythae_geometric.models.brownian_rvae import corrections
from pythae_geometric.models.vae_dlm import objective

EPOCHS = max(case.epochs for case in CASES.values())

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


# Several processes


# Without what is drawn in ways that a test cannot fix (points of curvature, samples of a Beta, the
# rows of a part of a loss: all are taken), and without what each process does to its own share: to
# clip gradients, to learn the deviation. Every point is a centre: where k-means puts fewer depends
# on the order of the points.
FIXED = {
    "BrownianRVAE": {"num_centers": 24},
    "RicciAE": {"curvature_weight": 0.0},
    "ERManifoldVAE": {"posterior": "normal", "likelihood_std": 1.0},
    "VAE_DLM": {"gradient_clip": None},
}


def train_share(rank, world_size, x, folder, start=None):
    """Train every model as one of several processes, by pythae's trainer.

    Nothing of that is changed, but that it names a GPU for each process. All random numbers are
    0.3, and a batch is the whole data set, so that the way it is dealt out does not matter.
    """
    if world_size > 1:
        store = f"file://{folder}/store-{world_size}"
        dist.init_process_group("gloo", store, rank=rank, world_size=world_size)
    base_trainer.DDP = lambda model, device_ids: DistributedDataParallel(model)
    base_trainer.dist = types.SimpleNamespace(  # which closes the group, though we have opened it
        **{**vars(dist), "destroy_process_group": lambda: None}
    )
    corrections.SHARE = objective.SHARE = 1.0
    torch.randn_like = lambda z, **kwargs: torch.full_like(z, 0.3)
    torch.rand = lambda n, **kwargs: torch.full((n,), 0.3)
    losses = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        model = case.build(**FIXED.get(name, {}))
        if start is not None:
            model = AutoModel.load_from_folder(str(checkpoint(folder, start, name)))
        losses[name] = seen = []
        model.register_forward_hook(
            lambda model, inputs, output, seen=seen: seen.append(output.loss)
        )
        config = BaseTrainerConfig(
            output_dir=str(folder / f"{world_size}-{name}"),
            optimizer_cls="SGD",
            learning_rate=1e-3,
            per_device_train_batch_size=len(x) // world_size,
            num_epochs=EPOCHS - (start is not None),
            steps_saving=1,
            no_cuda=True,
            world_size=world_size,
            rank=rank,
            local_rank=rank if world_size > 1 else -1,
        )
        data = BaseDataset(torch.as_tensor(x), torch.zeros(len(x)))
        base_trainer.BaseTrainer(model, data, None, config).train()
        del seen[0]  # the trainer's check, before it trains
    torch.save(
        {k: torch.stack(v).detach() for k, v in losses.items()}, folder / f"{world_size}-{rank}.pt"
    )
    if world_size > 1:
        dist.barrier()
    os._exit(0)  # gloo's threads may abort an orderly end


def checkpoint(folder, world_size, name):
    (training,) = (folder / f"{world_size}-{name}").iterdir()
    return training / "checkpoint_epoch_1"


def losses_of(world_size, folder):
    """The losses of each model, means over the processes, ``[epochs]``."""
    parts = [torch.load(folder / f"{world_size}-{rank}.pt") for rank in range(world_size)]
    return {name: sum(part[name] for part in parts) / world_size for name in CASES}


@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_several_processes_have_the_losses_of_one(digits, tmp_path):
    """Two processes, and four that resume the checkpoint of the two, in both phases of a model.

    In float32 sums in another order differ by 1e-6 or so; a step of the second phase, in which
    geodesics are solved to 1e-2 of their energy, makes that 1e-5.
    """
    x = digits[:24]
    for world_size, start in ((1, None), (2, None), (4, 2)):
        shares = [(rank, world_size, x, tmp_path, start) for rank in range(world_size)]
        for exit_code, errors in run_at_once(train_share, *shares):
            assert exit_code == 0, errors
    one, two, four = (losses_of(world_size, tmp_path) for world_size in (1, 2, 4))
    for name in CASES:
        assert len(one[name]) == EPOCHS and one[name][0] != one[name][-1]
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(four[name], one[name][1:], rtol=1e-4, atol=1e-6, msg=name)


def test_what_the_second_phase_holds_fixed_stays_in_several_processes(digits, tmp_path):
    """Gradients of 0 do not stop an optimiser with a memory of the first phase."""
    case = CASES["BrownianRVAE"]
    torch.manual_seed(0)
    model = case.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, mean = {"data": torch.as_tensor(digits[:60])}, None
    for epoch in range(1, case.epochs + 1):
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(x, epoch=epoch, dataset_size=60, uses_ddp=True).loss
            loss.backward()
            assert all(p.grad is not None for p in model.parameters())
            optimizer.step()
        model.update()
        now = [p.detach().clone() for p in model.decoder.parameters()]
        if mean is not None:
            assert all(map(torch.equal, now, mean))
        mean = None if model.in_warmup else now


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
