"""Properties that hold for every shape, dtype, dimension and value, as hypothesis finds them."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythae_geometric import (
    BrownianMotionSamplerConfig,
    BrownianRVAEConfig,
    MetricUniformHMCSamplerConfig,
    RicciAEConfig,
)
from pythae_geometric import geometry as g

settings.register_profile("contract", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("contract")

sizes = st.integers(1, 6)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])
scales = st.floats(-3, 3).map(lambda power: 10.0**power)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tolerance(dtype):
    return {"rtol": 5e-3, "atol": 5e-4} if dtype == torch.float32 else {"rtol": 1e-7, "atol": 1e-8}


@given(sizes, sizes, sizes, seeds, dtypes, scales, st.floats(0, 1))
def test_posterior_metric_is_its_formula(B, K, d, seed, dtype, scale, decay):
    """G by the paper's sum in float64; value and gradient of the volume by autograd of that."""
    c, z = scale * normal(seed, K, d), scale * normal(seed + 1, B, d)
    P = (normal(seed + 2, K, d)).exp()
    # Decay is an inverse squared length.
    fields = {"temperature": 2.0 * scale, "regularization": 0.01, "decay": decay / scale**2}
    metric = g.PosteriorMetric(c, P, **fields).to(dtype)
    z64 = z.clone().requires_grad_()
    diff = z64[:, None] - c
    w = (-(diff.square() * P).sum(-1) / fields["temperature"] ** 2).exp()
    diagonal = w @ P
    diagonal = diagonal + 0.01 * (-fields["decay"] * z64.square().sum(1, keepdim=True)).exp()
    log_volume = 0.5 * diagonal.log().sum(1)
    (gradient,) = torch.autograd.grad(log_volume.sum(), z64)
    G = metric(z.to(dtype))
    assert G.dtype == dtype and torch.allclose(
        G.double(), torch.diag_embed(diagonal.detach()), **tolerance(dtype)
    )
    value, slope = metric.log_volume_and_grad(z.to(dtype))
    assert torch.allclose(value.double(), log_volume.detach(), **tolerance(dtype))
    error = (slope.double() - gradient).abs().max()
    assert float(error) <= (1e-2 if dtype == torch.float32 else 1e-7) * float(
        gradient.abs().max() + 1 / scale
    )


@given(sizes, st.integers(1, 5), st.integers(0, 5), seeds, dtypes)
def test_jacobians_of_quadratic_maps(B, d, extra, seed, dtype):
    A, Q = normal(seed, d + extra, d), normal(seed + 1, d + extra, d, d)
    z, v = normal(seed + 2, B, d), normal(seed + 3, B, d)

    def f(y):
        return y @ A.to(y.dtype).T + torch.einsum("aij,bi,bj->ba", Q.to(y.dtype), y, y)

    J = A + torch.einsum("aij,bj->bai", Q, z) + torch.einsum("aji,bj->bai", Q, z)
    H = Q + Q.mT
    near = tolerance(dtype)
    assert torch.allclose(g.jacobian(f, z.to(dtype)).double(), J, **near)
    _, second = g.second_derivatives(f, z.to(dtype))
    i, j = torch.triu_indices(d, d)
    assert torch.allclose(second.double(), H[:, i, j].expand(B, -1, -1), **near)
    metric = g.PullbackMetric(f)
    G = metric(z.to(dtype)).double()
    assert torch.allclose(G, J.mT @ J, rtol=1e-3, atol=1e-3 if dtype == torch.float32 else 1e-8)
    assert torch.allclose(
        metric.inner(z.to(dtype), v.to(dtype), v.to(dtype)).double(),
        (J @ v.unsqueeze(-1)).square().sum((1, 2)),
        rtol=1e-3,
        atol=1e-3,
    )


@given(st.integers(2, 4), sizes, seeds, st.floats(0.2, 5))
def test_spheres_have_the_curvature_of_their_radius(n, B, seed, r):
    sphere = g.Sphere(n)
    low, high = 0.5, math.pi - 0.5  # away from the poles of the chart
    z = low + (high - low) * torch.rand(
        B, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    R = g.scalar_curvature(lambda y: r * sphere.immersion(y), z)
    assert torch.allclose(R, torch.full_like(R, n * (n - 1) / r**2), rtol=1e-6)


@given(st.sampled_from(["Circle", "Sphere", "Torus", "SpecialOrthogonal3"]), sizes, sizes, seeds)
def test_groups_act_by_isometries(name, n, B, seed):
    M = getattr(g, name)(*([n] if name in ("Sphere", "Torus") else []))
    generator = torch.Generator().manual_seed(seed)
    x, y = (M.sample(B, generator, dtype=torch.float64) for _ in range(2))
    p, q = (normal(seed + k, B, M.group_dim) for k in range(2))
    a, b = M.group_element(p), M.group_element(q)
    M.check(M.act(a, x))
    assert torch.allclose(M.act(M.compose(a, b), x), M.act(a, M.act(b, x)), atol=1e-9)
    assert torch.allclose(M.distance(M.act(a, x), M.act(a, y)), M.distance(x, y), atol=1e-6)


@given(sizes, st.integers(1, 3), st.integers(1, 4), seeds, st.floats(0.01, 2))
def test_motions_of_flat_space_are_sums_of_normal_steps(B, d, steps, seed, time):
    """In flat space the drift is 0 and the path is the noise that was drawn."""
    start = normal(seed, B, d)
    path = g.brownian_motion(
        lambda z: z, start, time, steps, generator=torch.Generator().manual_seed(seed)
    )
    assert path.shape == (steps + 1, B, d) and torch.equal(path[0], start)
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(B, d, generator=generator, dtype=torch.float64) for _ in range(steps)]
    expected = start + (time / steps) ** 0.5 * torch.stack(noise).cumsum(0)
    assert torch.allclose(path[1:], expected, atol=1e-9)


positive = st.floats(1e-6, 1e6)
CONFIGS = {
    BrownianRVAEConfig: {
        "latent_dim": sizes,
        "hidden_dims": st.lists(st.integers(1, 50), min_size=1, max_size=3).map(tuple),
        "warmup_epochs": sizes,
        "num_centers": sizes,
        "rbf_bandwidth": positive,
        "precision_floor": positive,
    },
    RicciAEConfig: {
        "latent_dim": st.integers(2, 6),
        "functional": st.sampled_from(["total_squared", "perelman_f", "perelman_w"]),
        "curvature_weight": st.floats(-1e3, 1e3),
        "tau": positive,
        "points": st.sampled_from(["uniform", "encoded"]),
        "num_points": sizes,
        "regularization": positive,
    },
    MetricUniformHMCSamplerConfig: {
        "num_centroids": st.none() | sizes,
        "temperature": st.none() | positive,
        "mcmc_steps_nbr": st.none() | sizes,
        "n_lf": st.none() | sizes,
        "eps_lf": st.none() | positive,
        "target_acceptance": st.floats(0.1, 0.9),
        "seed": st.none() | st.integers(0, 2**32 - 1),
    },
    BrownianMotionSamplerConfig: {
        "metric": st.sampled_from(["model", "pullback", "posterior"]),
        "time": st.none() | positive,
        "steps": sizes,
        "drift": st.booleans(),
        "seed": st.none() | st.integers(0, 2**32 - 1),
    },
}

# More fields, where another one has a certain value.
OF_POSTERIORS = {
    **CONFIGS[MetricUniformHMCSamplerConfig],
    "centroid_selection": st.sampled_from(["kmedoids", "sklearn-extra", "random"]),
    "regularization": st.floats(0, 1e6),
    "decay": st.floats(0, 1e6),
    "additive_volume": st.booleans(),
    "adaptation_steps": st.integers(0, 9),
}
KINDS = [(config, {}, fields) for config, fields in CONFIGS.items()]
KINDS.append((MetricUniformHMCSamplerConfig, {"metric": "posteriors"}, OF_POSTERIORS))


@pytest.mark.parametrize(("config", "fixed", "others"), KINDS)
def test_configs_come_back_from_json(config, fixed, others, tmp_path):
    @given(st.fixed_dictionaries({}, optional=others))
    def comes_back(fields):
        fields = {**fixed, **fields}
        written = config(**fields)
        written.save_json(str(tmp_path), "config")
        read = config.from_json_file(str(tmp_path / "config.json"))
        assert read == written
        for field, value in fields.items():
            assert getattr(read, field) == value
        assert json.loads((tmp_path / "config.json").read_text())["name"] == config.__name__

    comes_back()
