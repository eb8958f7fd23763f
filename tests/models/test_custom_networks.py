"""What custom networks may return, and what of theirs a model leaves alone."""

import pytest
import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from pythae_geometric import BrownianRVAE, BrownianRVAEConfig, RicciAE, RicciAEConfig

SHAPE = (1, 4, 4)


class Encoder(BaseEncoder):
    def __init__(self, output):
        super().__init__()
        self.layer, self.output = nn.Linear(16, 4), output

    def forward(self, x):
        return self.output(self.layer(x.flatten(1)))


class Decoder(BaseDecoder):
    def __init__(self, output):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 16))
        self.output = output

    def forward(self, z):
        return self.output(self.layers(z))


def encoded(h):
    return ModelOutput(embedding=h[:, :2], log_covariance=h[:, 2:])


def decoded(*shape):
    return lambda h: ModelOutput(reconstruction=h.reshape(-1, *shape))


def brownian(encoder, decoder):
    config = BrownianRVAEConfig(input_dim=SHAPE, latent_dim=2, num_centers=3, warmup_epochs=1)
    return BrownianRVAE(config, encoder, decoder)


def ricci(encoder, decoder):
    return RicciAE(RicciAEConfig(input_dim=SHAPE, num_points=4), encoder, decoder)


def losses(make, encoder_output, decoder_output):
    torch.manual_seed(0)
    model = make(Encoder(encoder_output), Decoder(decoder_output)).train()
    x, found = torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(1)), []
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        output = model({"data": x}, epoch=epoch, dataset_size=10)
        assert output.recon_x.shape == x.shape
        found.append(float(output.loss.detach()))
        model.update()
    return found


@pytest.mark.parametrize("make", [brownian, ricci])
@pytest.mark.parametrize("shape", [(4, 4), (16,), (1, 1, 4, 4)])
def test_an_axis_more_or_less_changes_no_loss(make, shape):
    assert losses(make, encoded, decoded(*shape)) == losses(make, encoded, decoded(*SHAPE))


WRONG = {
    "a bare tensor": (encoded, lambda h: h, TypeError, "decoder must return a ModelOutput"),
    "a tuple": (encoded, lambda h: (h, h), TypeError, "decoder must return a ModelOutput"),
    "another name": (
        encoded, lambda h: ModelOutput(image=h), TypeError, "reconstruction, got a ModelOutput with"
    ),
    "half an image": (
        encoded, lambda h: decoded(8)(h[:, :8]), ValueError, r"shape \[10, 1, 4, 4\].*\[10, 8\]"
    ),
    "half a batch": (
        encoded, lambda h: decoded(32)(h), ValueError, r"shape \[10, 1, 4, 4\].*\[5, 32\]"
    ),
    "a bare code": (
        lambda h: h[:, :2], decoded(*SHAPE), TypeError, "encoder must return a ModelOutput"
    ),
    "a code too wide": (
        lambda h: ModelOutput(embedding=h[:, :3], log_covariance=h[:, :3]), decoded(*SHAPE),
        ValueError, r"embedding of shape \[10, 2\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", [brownian, ricci])
@pytest.mark.parametrize("encoder, decoder, error, words", WRONG.values(), ids=WRONG)
def test_other_outputs_are_one_sentence(make, encoder, decoder, error, words):
    model = make(Encoder(encoder), Decoder(decoder)).train()
    with pytest.raises(error, match=words):
        model({"data": torch.rand(10, *SHAPE)}, epoch=1, dataset_size=10)


@pytest.mark.parametrize("shape", [(4, 4), (16,), (4, 4, 1)])
@pytest.mark.parametrize("make", [brownian, ricci])
def test_data_without_the_channel_axis_are_refused(make, shape):
    model = make(Encoder(encoded), Decoder(decoded(*SHAPE))).train()
    with pytest.raises(ValueError, match=r"must have shape \[B, 1, 4, 4\]"):
        model({"data": torch.rand(10, *shape)}, epoch=1, dataset_size=10)


def test_what_the_user_froze_stays_frozen_and_the_rest_does_not():
    """In both phases of a BrownianRVAE; in the second its decoder learns nothing all the same."""
    model = brownian(Encoder(encoded), Decoder(decoded(*SHAPE))).train()
    model.decoder.layers[0].requires_grad_(False)
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    x = torch.rand(10, *SHAPE)
    for epoch in (1, 2, 3):
        model.zero_grad()
        model({"data": x}, epoch=epoch, dataset_size=10).loss.backward()
        assert {name: p.requires_grad for name, p in model.named_parameters()} == wanted
        learns = model.decoder.layers[2].weight.grad is not None
        assert learns == (epoch == 1)
        assert model.encoder.layer.weight.grad is not None
        model.update()
