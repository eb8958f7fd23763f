"""The Burgers data against scipy's integrators and an exact solution."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import odeint, solve_ivp

from pythae_geometric.data.burgers import burgers, solve_burgers

N, H, NU = 201, 0.005, 0.01
K = 2 * np.pi * np.fft.fftfreq(N, H)


def right_side(u, t=None):
    transform = np.fft.fft(u)
    return -u * np.fft.ifft(1j * K * transform).real + NU * np.fft.ifft(-(K**2) * transform).real


def initial(a):
    c = torch.cos(2 * math.pi * torch.arange(N, dtype=torch.float64) * H)
    return torch.tensor(a, dtype=torch.float64) @ torch.stack([c, c**3, c**5])


@pytest.mark.parametrize("a", [[0.3, -0.8, 0.5], [-0.6, 0.2, 0.9]])
def test_against_odeint(a):
    """The tolerances of odeint are a step's, which its global error exceeds."""
    u0 = initial([a])
    times = np.linspace(0, 1, 41)
    exact = odeint(lambda u, t: right_side(u), u0[0].numpy(), times, rtol=1e-9, atol=1e-9)
    solution = solve_burgers(u0, num_times=41, tolerance=1e-7)[0]
    assert np.abs(solution.numpy() - exact).max() < 1e-6


def test_the_steepest_solution_against_an_implicit_integrator():
    u0 = initial([[1.0, 1.0, 1.0]])
    exact = solve_ivp(
        lambda t, u: right_side(u), (0, 1), u0[0].numpy(), method="LSODA", rtol=1e-9, atol=1e-9
    ).y[:, -1]
    solution = solve_burgers(u0)[0, -1]
    assert np.abs(solution.numpy() - exact).max() < 5e-6


def test_against_the_exact_solution_of_cole_and_hopf():
    """θ = 1.5 + e^{-νk²t} cos kx solves the heat equation, so u = -2ν θ_x / θ that of Burgers."""
    n, k = 64, 2 * math.pi
    x = torch.arange(n, dtype=torch.float64) / n

    def exact(t):
        decay = math.exp(-NU * k**2 * t)
        return 2 * NU * k * decay * (k * x).sin() / (1.5 + decay * (k * x).cos())

    solution = solve_burgers(exact(0.0)[None], num_times=11, spacing=1 / n, tolerance=1e-10)[0]
    for i in range(11):
        torch.testing.assert_close(solution[i], exact(i / 10), rtol=0, atol=1e-8)


def test_the_mean_is_conserved():
    """It is up to the products that the grid cannot hold: none in a smooth solution."""
    solution = solve_burgers(0.2 + 0.1 * initial([[1.0, 0.0, 0.0]]), num_times=11)[0]
    assert (solution.mean(1) - solution[0].mean()).abs().max() < 1e-9


def test_samples_have_the_initial_law_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    data = burgers(8, generator=generator)
    assert data.trajectories.shape == (8, 201, 201)
    assert data.trajectories.dtype == torch.float32
    a = 2 * torch.rand(8, 3, dtype=torch.float64, generator=generator.manual_seed(0)) - 1
    torch.testing.assert_close(data.trajectories[:, 0], initial(a.tolist()).float())
    torch.testing.assert_close(data.grid, torch.linspace(0, 1, 201))
    torch.testing.assert_close(data.times, torch.linspace(0, 1, 201))
    again = burgers(8, generator=generator.manual_seed(0))
    torch.testing.assert_close(again.trajectories, data.trajectories, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: burgers(0), "num_samples must be a whole number of at least 1"),
        (
            lambda: solve_burgers(torch.zeros(1, 9), viscosity=0.0),
            "viscosity must be finite and greater than 0",
        ),
        (lambda: solve_burgers(torch.zeros(1, 9), num_times=10), "num_times must be odd"),
        (lambda: solve_burgers(torch.zeros(9)), r"of shape \[B >= 1, n\], got \[9\]"),
        (lambda: solve_burgers(torch.full((2, 9), math.nan)), "initial contains NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_shock_that_the_grid_cannot_hold_raises(monkeypatch):
    monkeypatch.setattr("pythae_geometric.data.burgers.MAX_SUBSTEPS", 2)
    with pytest.raises(ArithmeticError, match="1 of 1 solutions did not reach the tolerance"):
        solve_burgers(5 * initial([[1.0, 1.0, 1.0]]), num_times=11)
