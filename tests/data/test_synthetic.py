"""The synthetic surfaces against their definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest
from sklearn.datasets import make_swiss_roll

from pythae_geometric.data.synthetic import swiss_roll, synthetic_gaussians


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_roll_lies_on_the_surface_of_sklearn():
    """sklearn gives the surface t -> (t cos t, h, t sin t), and t and h the same distributions."""
    n = 4000
    roll = swiss_roll(n, noise=0.0, generator=seeded())
    t, (x, height, z) = roll.angle, roll.data.unbind(1)
    torch.testing.assert_close(x, t * t.cos())
    torch.testing.assert_close(z, t * t.sin())
    torch.testing.assert_close(height, roll.sheet[:, 1])
    theirs, theirs_t = make_swiss_roll(n, random_state=0)
    for a, b in ((t, theirs_t), (height, theirs[:, 1]), (x, theirs[:, 0]), (z, theirs[:, 2])):
        assert kstest(a.numpy(), b).pvalue > 1e-4


def test_sheet_is_arc_length_by_quadrature():
    roll = swiss_roll(20, generator=seeded())
    for t, length in zip(roll.angle.tolist(), roll.sheet[:, 0].tolist(), strict=True):
        assert length == pytest.approx(quad(lambda s: math.hypot(1, s), 1.5 * math.pi, t)[0], 1e-4)


def test_sheet_distances_are_those_of_the_surface():
    """Chords of close points are their distances on the sheet, up to O(distance³)."""
    roll = swiss_roll(8000, noise=0.0, generator=seeded())
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    chord = torch.cdist(roll.data[:500], roll.data, **exact)
    flat = torch.cdist(roll.sheet[:500], roll.sheet, **exact)
    close = (flat > 0.05) & (flat < 0.5)
    # An arc of length a on a circle of radius r >= 1.5 π has a chord of a (1 - a² / 24 r²).
    assert close.sum() > 500
    assert (chord / flat - 1)[close].abs().max() < 1e-3


def test_noise_of_the_roll():
    clean, noisy = (swiss_roll(5000, noise=s, generator=seeded()).data for s in (0.0, 0.3))
    residual = (noisy - clean).numpy()
    assert kstest(residual.ravel() / 0.3, "norm").pvalue > 1e-4


@pytest.mark.parametrize(("clouds", "dim"), [(1, 2), (3, 784), (5, 20)])
def test_clouds_lie_in_planes(clouds, dim):
    g = synthetic_gaussians(1000, clouds, dim, std=0.7, generator=seeded())
    assert g.data.shape == (1000, dim) and g.planes.shape == (clouds, dim, 2)
    counts = g.labels.bincount()
    assert len(counts) == clouds and counts.max() - counts.min() <= 1
    torch.testing.assert_close(g.planes.mT @ g.planes, torch.eye(2).expand(clouds, 2, 2))
    basis, centre = g.planes[g.labels], g.centres[g.labels]
    torch.testing.assert_close(((g.data - centre).unsqueeze(1) @ basis).squeeze(1), g.plane)
    torch.testing.assert_close(g.data, centre + (basis @ g.plane.unsqueeze(-1)).squeeze(-1))
    assert kstest(g.plane.flatten().numpy() / 0.7, "norm").pvalue > 1e-4


def test_centres_and_planes_are_random():
    g = synthetic_gaussians(10, 10, 784, offset=0.1, generator=seeded())
    assert kstest(g.centres.flatten().numpy() / 0.1, "norm").pvalue > 1e-4
    # Cosines between random directions of R^784 are about N(0, 1/784).
    cosines = torch.einsum("kdi,ldj->kilj", g.planes, g.planes).flatten(2).flatten(0, 1)
    same = torch.kron(torch.eye(10), torch.ones(2, 2)).bool()
    assert cosines[~same].abs().max() < 5 / math.sqrt(784)
    assert not synthetic_gaussians(10, 3, 5, offset=0.0, generator=seeded()).centres.any()


@pytest.mark.parametrize("make", [swiss_roll, synthetic_gaussians])
def test_the_generator_decides(make):
    first, again, other = make(50, generator=seeded()), make(50, generator=seeded()), make(50)
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(first.data, other.data)
    assert all(np.isfinite(v.numpy()).all() for v in first)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (swiss_roll, dict(num_samples=0), "num_samples must be a whole number of at least 1"),
        (swiss_roll, dict(noise=-1.0), "noise must be finite and at least 0"),
        (synthetic_gaussians, dict(num_samples=2), "num_samples must be a whole number of at"),
        (synthetic_gaussians, dict(num_clouds=0), "num_clouds must be"),
        (synthetic_gaussians, dict(dim=1), "dim must be a whole number of at least 2"),
        (synthetic_gaussians, dict(offset=math.nan), "offset must be finite"),
        (synthetic_gaussians, dict(std=0.0), "std must be finite and greater than 0"),
        (synthetic_gaussians, dict(num_samples=3.5), "whole number"),
        (synthetic_gaussians, dict(std="wide"), "std must be finite and greater than 0"),
        (swiss_roll, dict(noise=None), "noise must be finite and at least 0"),
    ],
)
def test_bad_numbers_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
