"""How a family's training hides a video in noise, and what its transformer is asked for: flow or v-prediction.

A noise level is a number in [0, 1], 0 clean and 1 noise alone, per sample and latent frame: f32[B,t]. What it
means is the process's own; nothing else knows more than that.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

Distribution = Literal["uniform", "logit_normal"]


class Process(Protocol):
    """One way from clean latents x to noise ε and back."""

    def levels(self, quantile: torch.Tensor, distribution: Distribution) -> torch.Tensor:
        """Noise levels to train at, f32[B] in [0,1], for uniform draws f32[B] in (0,1)."""

    def noisy(
        self, clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy latents and the velocity that is to be predicted there, both [B,C,t,h,w], at level f32[B,t]."""

    def clean(self, noisy: torch.Tensor, velocity: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The clean latents that a velocity implies, [B,C,t,h,w]: the inverse of ``noisy``."""

    def noise_share(self, level: torch.Tensor) -> torch.Tensor:
        """Weight of the noise over that of signal and noise, in [0,1]: what levels of all processes compare by."""

    def scheduler(self) -> Any:
        """A scheduler of diffusers, new, that samples along this process from velocities."""

    def level_of(self, timestep: torch.Tensor) -> torch.Tensor:
        """The noise level of one of that scheduler's time steps, f32[]."""

    def samples_by(self, scheduler: Any) -> bool:
        """Whether another scheduler of diffusers, as it is configured, reads this process's velocities as such."""


@dataclass(frozen=True)
class Flow:
    """Rectified flow: x_σ = (1 − σ)·x + σ·ε, velocity ε − x (Liu et al. 2022, arXiv 2209.03003).

    shift: moves levels towards 1, as larger videos want (Esser et al. 2024, arXiv 2403.03206, eq. 23);
    lowest, highest: levels that are trained, in [0,1]; one of two experts sees its own part only.
    """

    shift: float
    lowest: float = 0.0
    highest: float = 1.0

    def levels(self, quantile: torch.Tensor, distribution: Distribution) -> torch.Tensor:
        """Uniform, or the sigmoid of a standard normal; shifted; conditional on lying in [lowest, highest]."""
        ends = torch.tensor([self.lowest, self.highest], dtype=torch.float64)
        ends = ends / (self.shift - (self.shift - 1) * ends)  # before the shift
        quantile = quantile.double()
        if distribution == "uniform":
            drawn = ends[0] + (ends[1] - ends[0]) * quantile
        else:
            first, last = torch.special.ndtr(torch.special.logit(ends))
            drawn = torch.special.ndtri(first + (last - first) * quantile).sigmoid()
        return (self.shift * drawn / (1 + (self.shift - 1) * drawn)).float()

    def noisy(
        self, clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        sigma = _per_frame(level)
        return (1 - sigma) * clean + sigma * noise, noise - clean

    def clean(self, noisy: torch.Tensor, velocity: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """x = x_σ − σ·v."""
        return noisy - _per_frame(level) * velocity

    def noise_share(self, level: torch.Tensor) -> torch.Tensor:
        """σ itself."""
        return level

    def scheduler(self) -> Any:
        """Euler steps along the flow."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler(shift=self.shift)

    def level_of(self, timestep: torch.Tensor) -> torch.Tensor:
        """Its time steps are 1000·σ."""
        return timestep / 1000

    def samples_by(self, scheduler: Any) -> bool:
        """Those made for flows, and solvers of ODEs told so (``prediction_type``, ``use_flow_sigmas``)."""
        said = scheduler.config
        told = said.get("prediction_type") == "flow_prediction" and bool(said.get("use_flow_sigmas"))
        return told or type(scheduler).__name__.startswith("FlowMatch")


@dataclass(frozen=True, eq=False)
class VPrediction:
    """A discrete diffusion that predicts v = √ᾱ·ε − √(1−ᾱ)·x of x_t = √ᾱ·x + √(1−ᾱ)·ε (Salimans & Ho 2022,
    arXiv 2202.00512, appendix D). The squared error of v is that of x̂ weighted by 1/(1−ᾱ), CogVideoX's own loss.

    alphas: f64[T], ᾱ of each time step, falling; level λ is the time step ⌊λ·T⌋. settings: of the scheduler of
    diffusers that samples, as its own folder holds them.
    """

    alphas: torch.Tensor
    settings: dict[str, Any]

    def levels(self, quantile: torch.Tensor, distribution: Distribution) -> torch.Tensor:
        """Uniform, as CogVideoX's training draws time steps; or the sigmoid of a standard normal."""
        return quantile if distribution == "uniform" else torch.special.ndtri(quantile).sigmoid()

    def timesteps(self, level: torch.Tensor) -> torch.Tensor:
        """i64 time steps of levels in [0,1], of the same shape."""
        return (level.double() * len(self.alphas)).long().clamp(0, len(self.alphas) - 1)

    def noisy(
        self, clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class; a level of 0 is the clean latents themselves."""
        signal, spread = self._scales(level, clean)
        return signal * clean + spread * noise, signal * noise - spread * clean

    def clean(self, noisy: torch.Tensor, velocity: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """x = √ᾱ·x_t − √(1−ᾱ)·v."""
        signal, spread = self._scales(level, noisy)
        return signal * noisy - spread * velocity

    def noise_share(self, level: torch.Tensor) -> torch.Tensor:
        """√(1−ᾱ) / (√ᾱ + √(1−ᾱ))."""
        alpha = self.alphas.to(level.device)[self.timesteps(level)]
        share = (1 - alpha).sqrt() / (alpha.sqrt() + (1 - alpha).sqrt())
        return torch.where(level == 0, 0.0, share).to(level.dtype)

    def scheduler(self) -> Any:
        """CogVideoX's DDIM."""
        from diffusers import CogVideoXDDIMScheduler

        return CogVideoXDDIMScheduler.from_config(self.settings)

    def level_of(self, timestep: torch.Tensor) -> torch.Tensor:
        """The middle of the levels that mean this time step."""
        return (timestep + 0.5) / len(self.alphas)

    def samples_by(self, scheduler: Any) -> bool:
        """Those told of v-prediction that take unit noise and a step's sample alone (CogVideoX's DPM solver takes
        the guess before it too)."""
        takes = list(inspect.signature(scheduler.step).parameters)[:3] == [
            "model_output",
            "timestep",
            "sample",
        ]
        unit = abs(float(scheduler.init_noise_sigma) - 1) < 1e-6
        return bool(scheduler.config.get("prediction_type") == "v_prediction") and takes and unit

    def _scales(self, level: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        alpha = self.alphas.to(level.device)[self.timesteps(level)]
        alpha = torch.where(level == 0, torch.ones_like(alpha), alpha)
        signal, spread = _per_frame(alpha.sqrt()), _per_frame((1 - alpha).sqrt())
        return signal.to(like.dtype), spread.to(like.dtype)


def _per_frame(level: torch.Tensor) -> torch.Tensor:
    """[B,t] to [B,1,t,1,1]."""
    return level[:, None, :, None, None]
