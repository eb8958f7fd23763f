"""The decoder of a pythae model as a map of latent points, for metrics and samplers."""

import torch
from pythae.models import SVAE, VAE_IAF, BaseAE, PoincareVAE, VAE_LinNF
from torch import nn
from torch.func import functional_call


class DecoderMap(nn.Module):
    """The map from the space of the latent codes to the data, ``[B, d] -> [B, D]``, flattened.

    It holds the model's own decoder, and the normalizing flow of a model that has one: moving the
    model moves it, and a metric that holds it finds their parameters and their mode.

    Args:
        model: any pythae model.
    """

    def __init__(self, model: BaseAE):
        super().__init__()
        self.to_decoder = decoder_space(model)
        self.decoder = model.decoder

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.to_decoder(z))["reconstruction"].flatten(1)


def decoder_space(model: BaseAE) -> nn.Module:
    """The map from the space of the latent codes to that which the decoder takes.

    The two differ in pythae's models with a normalizing flow after the posterior, in the Poincaré
    VAE, whose points are projected on its ball, and in the SVAE, whose codes lie on the unit
    sphere. For other models it is the identity.
    """
    if isinstance(model, VAE_IAF):
        return _InverseFlow(model.iaf_flow)
    if isinstance(model, VAE_LinNF):
        return _Flows(model.net)
    if isinstance(model, PoincareVAE):
        return _Ball(model.model_config.curvature)
    if isinstance(model, SVAE):
        return _UnitSphere()
    return nn.Identity()


class _InverseFlow(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, z):
        return self.flow.inverse(z).out


class _Flows(nn.Module):
    def __init__(self, flows):
        super().__init__()
        self.flows = flows

    def forward(self, z):
        for flow in self.flows:
            z = flow(z).out
        return z


class _Ball(nn.Module):
    def __init__(self, curvature):
        super().__init__()
        self.radius = (1 - 1e-3) / curvature**0.5

    def forward(self, z):
        return z * (self.radius / z.norm(dim=-1, keepdim=True)).clamp(max=1.0)


class _UnitSphere(nn.Module):
    def forward(self, z):
        return z / z.norm(dim=-1, keepdim=True)


class HeldFixed(nn.Module):
    """A network whose parameters are constants: gradients pass to its input alone.

    Whether its parameters require gradients is left as the user has it.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        parameters = {name: p.detach() for name, p in self.network.named_parameters()}
        return functional_call(self.network, parameters, args)
