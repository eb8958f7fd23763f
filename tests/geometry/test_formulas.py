"""Layers whose derivatives torch gets wrong, or does not have, and layers that have none.

The tests of plain torch fail once torch is right: then the formula can go.
"""

import pytest
import torch
from torch import nn
from torch.func import jvp, vmap
from torch.nn import functional as F

from pythae_geometric.geometry import (
    Metric,
    PullbackMetric,
    directional_derivative,
    evaluation_mode,
    geodesic,
    jacobian,
    scalar_curvature,
    second_derivatives,
    value_and_jacobian,
)
from pythae_geometric.geometry._formulas import _FORMULAS

D = 3


def points(n=4):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def after_a_layer(f):
    """``f`` of 16 smooth functions of the points."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(D, 16), nn.Tanh()).double().requires_grad_(False)
    return lambda z: f(layers(z))


class After(nn.Module):
    """A layer after a smooth one, and a function that selects from its value."""

    def __init__(self, layer, shape=(4, 2, 2), select=lambda y: y):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Unflatten(1, shape))
        self.layer, self.select = layer, select
        self.double()

    def forward(self, z):
        return self.select(self.layer(1.0 * self.first(z)))  # a layer may write into it


def check_derivatives(f, z, J, H, rtol=1e-6):
    """Against differences of values and, for second derivatives, of Jacobians in reverse mode."""
    h = 1e-5

    def reverse(y):
        return torch.stack(
            [torch.autograd.functional.jacobian(f, p[None])[0, ..., 0, :] for p in y]
        )

    i, j = torch.triu_indices(D, D)
    basis = torch.eye(D, dtype=z.dtype)
    with evaluation_mode(f):
        with torch.no_grad():
            for k, e in enumerate(basis):
                difference = (f(z + h * e) - f(z - h * e)) / (2 * h)
                torch.testing.assert_close(J[..., k], difference, rtol=rtol, atol=1e-8)
        for k in range(len(i)):
            e = basis[j[k]]
            difference = (reverse(z + h * e) - reverse(z - h * e))[..., i[k]] / (2 * h)
            torch.testing.assert_close(H[..., k], difference, rtol=rtol, atol=1e-8)


LAYERS = [
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.SiLU(inplace=True), nn.Mish(), nn.GLU(1),
    nn.Softplus(), nn.Tanh(), nn.Sigmoid(), nn.ELU(), nn.SELU(), nn.Softmax(1), nn.Hardsigmoid(),
    nn.BatchNorm2d(4), nn.LayerNorm((4, 2, 2)), nn.LayerNorm(2, elementwise_affine=False),
    nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True),
    nn.InstanceNorm2d(4, track_running_stats=True),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_layers_have_right_derivatives_with_and_without_a_graph(layer, context):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    f, z = After(layer), points()
    with context():
        J, H = second_derivatives(f, z)
    check_derivatives(f, z, J, H)


def sequence(layer, *selected):
    return After(layer, (4, 4), lambda y: y[0] if isinstance(y, tuple) else y)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


SEQUENCES = {
    "LSTM": lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True),
    "GRU": lambda: nn.GRU(4, 3, batch_first=True),
    "RNN": lambda: nn.RNN(4, 3, batch_first=True),
    "attention": SelfAttention,
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_recurrent_and_attention_layers_in_both_precisions(name):
    torch.manual_seed(0)
    f, z = sequence(SEQUENCES[name]()), points()
    J, H = second_derivatives(f, z)
    enabled = torch.backends.mkldnn.enabled
    check_derivatives(f, z, J, H, rtol=1e-5)
    f.float()  # on the CPU float32 alone has the fused kernels without a forward derivative
    J32, H32 = second_derivatives(f, z.float())
    torch.testing.assert_close(J32.double(), J, rtol=0, atol=1e-5)
    torch.testing.assert_close(H32.double(), H, rtol=0, atol=1e-4)
    assert torch.backends.mkldnn.enabled == enabled


def matrices(x):
    return x.view(-1, 4, 4) + 3 * torch.eye(4, dtype=x.dtype)


OTHER = torch.randn(5, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

FUNCTIONS = {
    "torch.layer_norm": lambda x: torch.layer_norm(x, (16,)),
    "F.layer_norm": lambda x: F.layer_norm(x, (16,)),
    "torch.instance_norm": lambda x: torch.instance_norm(
        x.view(-1, 4, 4), None, None, None, None, True, 0.1, 1e-5, False
    ),
    "F.instance_norm": lambda x: F.instance_norm(x.view(-1, 4, 4)),
    "F.silu": F.silu,
    "F.mish": F.mish,
    "F.glu": lambda x: F.glu(x, 1),
    "F.hardsigmoid": F.hardsigmoid,
    "torch.logit": lambda x: x.sigmoid().logit(),
    "torch.logit with eps": lambda x: torch.logit(x.sigmoid(), 0.01),
    "F.normalize": lambda x: F.normalize(x, dim=1),
    "F.normalize, p = 3": lambda x: F.normalize(x, p=3.0, dim=1),
    "Tensor.norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "Tensor.norm of all": lambda x: x.view(-1, 4, 4).norm(dim=(1, 2))[:, None],
    "torch.norm": lambda x: torch.norm(x, dim=1, keepdim=True),
    "torch.linalg.norm": lambda x: torch.linalg.norm(x, dim=1, keepdim=True),
    "torch.linalg.norm of matrices": lambda x: torch.linalg.norm(matrices(x), dim=(1, 2))[:, None],
    "torch.linalg.vector_norm": lambda x: torch.linalg.vector_norm(x, 3, dim=1, keepdim=True),
    "torch.linalg.matrix_norm": lambda x: torch.linalg.matrix_norm(matrices(x))[:, None],
    "F.cosine_similarity": lambda x: F.cosine_similarity(x[:, None], OTHER[None], dim=2),
    "nn.CosineSimilarity": lambda x: nn.CosineSimilarity()(x[:, :8], x[:, 8:])[:, None],
    "F.pairwise_distance": lambda x: F.pairwise_distance(x[:, :8], x[:, 8:], keepdim=True),
    "torch.std": lambda x: x.std(1, keepdim=True),
    "torch.std_mean": lambda x: torch.std_mean(x, 1, keepdim=True)[0],
    "torch.cdist": lambda x: torch.cdist(x, OTHER),
    "torch.linalg.solve": lambda x: torch.linalg.solve(matrices(x), OTHER[:4, :2]),
    "torch.linalg.solve of vectors": lambda x: torch.linalg.solve(matrices(x), x[:, :4]),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(
        x.view(-1, 1, 4, 4), x.view(-1, 1, 4, 4).sin(), x.view(-1, 1, 4, 4).cos(), is_causal=True
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_right_values_derivatives_and_gradients_of_them(name):
    f, z = after_a_layer(FUNCTIONS[name]), points()
    torch.testing.assert_close(value_and_jacobian(f, z)[0], f(z))
    J, H = second_derivatives(f, z)
    check_derivatives(f, z, J, H)
    # The gradient of a function of both, as in training.
    z = points(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: second_derivatives(f, y), z)


def test_norms_have_derivative_zero_at_zero():
    f = lambda z: torch.stack([z.norm(dim=1), F.normalize(z, dim=1)[:, 0]], 1)  # noqa: E731
    z = torch.zeros(2, D, dtype=torch.float64, requires_grad=True)
    J = jacobian(lambda y: y.norm(dim=1), z)
    assert torch.equal(J, torch.zeros_like(J)) and torch.isfinite(jacobian(f, z)).all()


def test_curvature_of_a_decoder_that_normalises_trains():
    """Its image lies in the unit sphere: it is that of the sphere for d = 2 and three outputs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    z = torch.randn(6, 2, dtype=torch.float64)
    f = nn.Sequential(net, _Normalise())
    R = scalar_curvature(f, z)
    torch.testing.assert_close(R, torch.full_like(R, 2.0), rtol=1e-6, atol=0)
    R.square().sum().backward()  # and does not depend on the parameters
    assert all(p.grad.abs().max() < 1e-5 for p in net.parameters() if p.grad is not None)


class _Normalise(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=1)


# -- torch by itself ---------------------------------------------------------------------------


def plain_second_derivatives(f, z):
    """``d²f(e_i, e_j)`` by nested forward mode, torch as it is, ``[B, *out, D, D]``."""
    basis = torch.eye(D, dtype=z.dtype)[:, None].expand(D, *z.shape)

    def second(u, v):
        return jvp(lambda y: jvp(f, (y,), (v,))[1], (z,), (u,))[1]

    over = vmap(vmap(second, in_dims=(None, 0), out_dims=-1), in_dims=(0, None), out_dims=-1)
    return over(basis, basis)


REMOVE = "torch is right by itself now: remove the formula of this layer and its test"


@pytest.mark.parametrize("name", ["F.layer_norm", "F.instance_norm", "torch.linalg.solve"])
def test_torch_alone_is_wrong(name):
    f, z = after_a_layer(FUNCTIONS[name]), points()
    H = plain_second_derivatives(f, z)
    i, j = torch.triu_indices(D, D)
    error = (H[..., i, j] - second_derivatives(f, z)[1]).abs().max()
    assert error > 1e-3, REMOVE


@pytest.mark.parametrize(
    "name", ["F.silu", "F.mish", "F.glu", "F.hardsigmoid", "torch.logit", "torch.cdist"]
)
def test_torch_alone_has_no_second_derivative(name):
    f, z = after_a_layer(FUNCTIONS[name]), points()
    try:
        with torch.no_grad():
            plain_second_derivatives(f, z)
    except NotImplementedError:
        return
    pytest.fail(REMOVE)


@pytest.mark.parametrize(
    "name", ["F.normalize", "torch.norm", "F.cosine_similarity", "F.pairwise_distance", "torch.std"]
)
def test_torch_alone_cannot_differentiate_second_derivatives(name):
    f, z = after_a_layer(FUNCTIONS[name]), points().requires_grad_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        plain_second_derivatives(f, z).square().sum().backward()
        pytest.fail(REMOVE)


@pytest.mark.parametrize("name", ["LSTM", "transformer"])
def test_torch_alone_has_no_forward_derivative_of_fused_kernels(name):
    f, z = sequence(SEQUENCES[name]()).float().eval(), points().float()
    if name == "LSTM" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no fused recurrent layers")
    with pytest.raises(NotImplementedError, match="forward AD"):
        plain_second_derivatives(f, z)
        pytest.fail(REMOVE)


def test_torch_alone_is_wrong_about_determinants():
    """They are refused, since no formula is as accurate."""
    f, z = after_a_layer(lambda x: torch.linalg.det(matrices(x))[:, None]), points()
    i, j = torch.triu_indices(D, D)
    exact = second_derivatives(
        after_a_layer(lambda x: (2 * torch.linalg.cholesky(gram(x)).diagonal(dim1=1, dim2=2).log())
                      .sum(1, keepdim=True).mul(0.5).exp()), z)[1]  # fmt: skip
    assert (plain_second_derivatives(f, z)[..., i, j].abs() - exact.abs()).abs().max() > 1e-3, (
        REMOVE
    )
    with pytest.raises(NotImplementedError, match=r"calls torch.linalg.det, whose second"):
        jacobian(f, z)


def gram(x):
    A = matrices(x)
    return A @ A.mT


def test_formulas_are_of_functions_that_torch_has():
    assert all(callable(function) for function in _FORMULAS)


# -- layers that have no derivative ------------------------------------------------------------

RANDOM = {
    "dropout": nn.Dropout(),
    "dropout of channels": nn.Dropout1d(),
    "alpha_dropout": nn.AlphaDropout(),
    "feature_alpha_dropout": nn.FeatureAlphaDropout(),
    "rrelu": nn.RReLU(),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(
        x.view(-1, 4, 4), x.view(-1, 4, 4), x.view(-1, 4, 4), dropout_p=0.1
    ),
    "multi_head_attention_forward": After(
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (4, 4)
    ).layer,
    "lstm": nn.LSTM(16, 3, num_layers=2, dropout=0.5).double(),
    "randn_like": lambda x: x + torch.randn_like(x),
    "normal": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
    "gumbel_softmax": F.gumbel_softmax,
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("function", ["jacobian", "directional", "curvature", "geodesic", "metric"])
def test_a_function_that_is_random_is_refused(name, function):
    def layer(x):
        if name == "multi_head_attention_forward":
            return RANDOM[name](x.view(-1, 4, 4)).flatten(1)
        value = RANDOM[name](x.unsqueeze(0) if "channels" in name else x)
        return (value[0] if isinstance(value, tuple) else value).reshape(len(x), -1)

    f, z = after_a_layer(layer), points()
    differentiate = {
        "jacobian": lambda: jacobian(f, z),
        "directional": lambda: directional_derivative(f, z, z),
        "curvature": lambda: scalar_curvature(f, z),
        "geodesic": lambda: geodesic(f, z, z.sin()),
        "metric": lambda: PullbackMetric(f)(z),
    }[function]
    with pytest.raises(ValueError, match=r"The map is random, since it calls .*\.eval\(\)"):
        differentiate()


class Container:
    """Not a module: what it holds cannot be found."""

    def __init__(self, net):
        self.net = net


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(16), nn.BatchNorm1d(16, momentum=None)])
def test_a_function_that_reaches_a_batch_norm_in_training_mode_is_refused(layer):
    trainer, z = Container(nn.Sequential(nn.Linear(D, 16), layer).double()), points()
    with pytest.raises(ValueError, match=r"batch norm in training mode.* \.eval\(\)"):
        jacobian(lambda y: trainer.net(y), z)
    with pytest.raises(ValueError, match=r"batch norm in training mode.* \.eval\(\)"):
        geodesic(lambda y: trainer.net(y), z, z.sin())
    trainer.net.eval()
    torch.testing.assert_close(jacobian(lambda y: trainer.net(y), z), jacobian(trainer.net, z))


def test_batch_norm_by_its_functional_names():
    z = points()
    one = torch.ones(D, dtype=z.dtype)
    with pytest.raises(ValueError, match="training mode"):
        jacobian(lambda y: F.batch_norm(y, one, one.clone(), training=True), z)
    with pytest.raises(ValueError, match="training mode"):
        jacobian(lambda y: torch.batch_norm(y, one, one, one, one, True, 0.1, 1e-5, False), z)


@pytest.mark.parametrize("call", ["module", "function"])
def test_a_batch_norm_without_running_statistics_is_refused(call):
    net = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8, track_running_stats=False)).double()
    f = net.eval() if call == "module" else lambda z: net(z)
    with pytest.raises(ValueError, match="batch norm without running statistics"):
        jacobian(f, points())


def test_what_torch_cannot_differentiate_is_named():
    grid = torch.linspace(-0.8, 0.8, 18, dtype=torch.float64).view(1, 3, 3, 2)
    f = after_a_layer(lambda x: F.grid_sample(x.view(-1, 1, 4, 4), grid.expand(len(x), -1, -1, -1)))
    with pytest.raises(NotImplementedError, match=r"calls torch\.nn\.functional\.grid_sample"):
        jacobian(f, points())


class WithDropout(Metric):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout()

    def forward(self, z):
        return torch.diag_embed(1 + self.dropout(z.square()))


def test_a_metric_is_evaluated_in_the_mode_in_which_it_is_differentiated():
    metric, z = WithDropout(), points()
    torch.testing.assert_close(metric(z), torch.diag_embed(1 + z.square()))
    torch.testing.assert_close(metric.log_volume(z), 0.5 * (1 + z.square()).log().sum(1))
    torch.testing.assert_close(
        jacobian(metric, z), torch.diag_embed(torch.diag_embed(2 * z)), rtol=0, atol=1e-12
    )
    assert metric.training and metric.dropout.training
