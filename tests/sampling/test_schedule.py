"""Golden values of the official settings: 50 annealing steps from 10 to 0.1, two ODE steps to 0.001."""

import pytest
import torch
from diffusers import DDIMScheduler

from utils.priors.timesteps import TimestepMap
from utils.sampling.schedule import StepClock, annealing_sigmas, first_level, learning_rate, ode_sigmas

SIGMAS = annealing_sigmas(50, 10.0, 0.1)
ALPHAS = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195).alphas_cumprod
# index: (sigma, official timestep, trained timestep)
GRID = {
    0: (10.0, 675, 737),
    10: (4.918, 564, 617),
    20: (2.232, 419, 450),
    30: (0.916, 242, 233),
    32: (0.756, 208, 190),
    33: (0.685, 192, 169),
    40: (0.330, 97, 58),
    49: (0.114, 31, 7),
}


def test_annealing_grid_of_50_steps():
    assert len(SIGMAS) == 51 and SIGMAS[-1] == 0.0
    assert SIGMAS[49] == pytest.approx(0.11378, abs=5e-6)  # 0.1 itself is never used
    for index, (sigma, _, _) in GRID.items():
        assert SIGMAS[index] == pytest.approx(sigma, abs=5e-4)


def test_ode_grid_ends_above_zero():
    grid = ode_sigmas(10.0, 2, 0.001)
    assert grid[0] == pytest.approx(10.0) and grid[2] == pytest.approx(0.001)
    assert grid[1] == pytest.approx(((10 ** (1 / 7) + 0.001 ** (1 / 7)) / 2) ** 7)
    assert grid[1] == pytest.approx(0.41235, rel=1e-4)


@pytest.mark.parametrize("name, column", [("official", 1), ("trained", 2)])
def test_timestep_maps(name, column):
    timestep = TimestepMap(name, ALPHAS)
    sigma = torch.tensor([SIGMAS[i] for i in GRID], dtype=torch.float64)
    expected = [values[column] for values in GRID.values()]
    assert timestep(sigma).tolist() == pytest.approx(expected, abs=0.6)


def test_trained_map_inverts_the_scheduler():
    t = torch.tensor([0, 1, 250, 998, 999])
    sigma = ((1 - ALPHAS[t]) / ALPHAS[t]).double().sqrt()
    assert TimestepMap("trained", ALPHAS)(sigma).tolist() == pytest.approx(t.tolist(), abs=1e-2)


def test_trained_map_stays_in_the_trained_range():
    assert TimestepMap("trained", ALPHAS)(torch.tensor([1e-6, 1e6])).tolist() == [0.0, 999.0]


def test_learning_rate_ramp_divides_by_steps_plus_one():
    assert learning_rate(2.1e-5, 0.12, 0, 50) == pytest.approx(2.1e-5)
    assert learning_rate(2.1e-5, 0.12, 49, 50) == pytest.approx(2.1e-5 * (1 - 49 / 51 * 0.88))


def test_the_clock_fires_in_integers():
    clock = StepClock(SIGMAS)
    assert clock.timestep(0) == 1000 and clock.timestep(40) == 200
    for step in range(51):  # every timestep of the grid fires exactly at its own step
        assert clock.first_step(20 * (50 - step)) == (step if step < 50 else None)


def test_a_level_that_is_written_as_the_grid_has_it_is_that_step_to_rounding():
    grid = annealing_sigmas(5, 10.0, 0.1)
    assert [first_level(grid, level * (1 - 1e-12)) for level in grid[:-1]] == [0, 1, 2, 3, 4]
