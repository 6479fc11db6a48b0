"""Noise levels follow their distributions; noise and velocity agree with diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from pipeline.objective.processes import Flow, Process, VPrediction

SETTINGS = {  # of CogVideoX-5b
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}


def cog() -> VPrediction:
    scheduler = CogVideoXDDIMScheduler.from_config(SETTINGS)
    return VPrediction(scheduler.alphas_cumprod.double(), dict(scheduler.config))


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_an_expert_sees_its_own_part_of_what_one_model_sees(distribution: str) -> None:
    quantiles = (torch.arange(20000) + 0.5) / 20000
    whole = Flow(5.0).levels(quantiles, distribution)  # type: ignore[arg-type]
    part = Flow(5.0, lowest=0.875).levels(quantiles, distribution)  # type: ignore[arg-type]
    chosen = whole[whole >= 0.875]
    assert part.min() >= 0.875 - 1e-6
    for share in (0.1, 0.5, 0.9):
        assert part.quantile(share).item() == pytest.approx(chosen.quantile(share).item(), abs=2e-4)


@pytest.mark.parametrize("process", [Flow(3.0), cog()])
def test_noise_goes_on_and_comes_off(process: Process) -> None:
    clean, noise = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    level = torch.tensor([[0.0, 0.4], [0.7, 0.7]])
    noisy, velocity = process.noisy(clean, noise, level)
    assert torch.equal(noisy[0, :, 0], clean[0, :, 0])  # level 0 is clean
    torch.testing.assert_close(process.clean(noisy, velocity, level), clean, atol=1e-5, rtol=0)


def test_the_flow_is_that_of_diffusers() -> None:
    clean, noise = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    timestep = scheduler.timesteps[300:301].expand(2)
    level = Flow(3.0).level_of(timestep)[:, None].expand(2, 2)
    noisy, _ = Flow(3.0).noisy(clean, noise, level)
    torch.testing.assert_close(noisy, scheduler.scale_noise(clean, timestep, noise))


def test_v_prediction_is_that_of_diffusers_at_every_time_step() -> None:
    process, scheduler = cog(), CogVideoXDDIMScheduler.from_config(SETTINGS)
    reference = DDPMScheduler(trained_betas=[0.1])  # for its get_velocity, with CogVideoX's own noise levels
    reference.alphas_cumprod = scheduler.alphas_cumprod
    clean, noise = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    for step in range(0, 1000, 37):
        timestep = torch.tensor([step, 999 - step])
        level = process.level_of(timestep)
        assert torch.equal(process.timesteps(level), timestep)
        noisy, velocity = process.noisy(clean, noise, level[:, None].expand(2, 2))
        torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, timestep), atol=1e-5, rtol=0)
        expected = reference.get_velocity(clean, noise, timestep)
        torch.testing.assert_close(velocity, expected, atol=1e-5, rtol=0)
