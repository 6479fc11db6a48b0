"""A model and its bank as one object that other people's scripts call as any pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, Unpack

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput

from data_prep.records import U8, InputError
from pipeline import model as models
from pipeline.config import GenerateConfig
from pipeline.generate import LoadedRun, Sampling, Scene, pixels, sample, scene_of
from pipeline.generating.loading import open_model, usual_settings
from pipeline.generating.references import with_references

NAMES = {  # diffusers' name of an argument to ours
    "num_frames": "num_frames",
    "height": "height_px",
    "width": "width_px",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "identity_strength": "strength",
    "seed": "seed",
}
TENSORS = ("latents",)  # what a callback is given and may change
OUTPUTS = ("np", "pt", "pil", "uint8", "latent")


class Settings(TypedDict, total=False):
    """What may be said beside prompt and cast. num_frames, height, width: as trained, unless given; seed: of the
    first noise, unless ``generator`` draws it or ``latents`` f32[1,C,t,h,w] are it; identity_strength: 0 is nobody,
    0.7..0.85 the useful band of large models; references: name to 1..5 pictures, each u8[H,W,3] RGB or Pillow's, of
    characters that are not in the bank; layout: u8[H,W] or u8[T,H,W], k where the k-th of the cast belongs; image:
    the first frame; output_type: np f32[1,T,H,W,3] in [0,1], pt f32[1,T,3,H,W], pil, uint8 u8[1,T,H,W,3] (what
    castbank generate writes), latent; callback_on_step_end: as diffusers calls it, with ``latents``."""

    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    identity_strength: float
    seed: int
    generator: torch.Generator
    latents: torch.Tensor
    references: Mapping[str, Sequence[Any]]
    layout: U8
    image: Any
    output_type: str
    return_dict: bool
    callback_on_step_end: Callable[..., Any]
    callback_on_step_end_tensor_inputs: Sequence[str]


@dataclass
class CastPipelineOutput(BaseOutput):  # type: ignore[misc]
    """frames: the video, in the form that was asked for."""

    frames: Any


class CastPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Draws a cast. ``scheduler`` may be exchanged for another that reads the same velocities; ``bank`` is whom it
    knows."""

    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->transformer_2->vae"
    _exclude_from_cpu_offload: ClassVar = [
        "identity"
    ]  # read by every block; it stays where others take turns

    def __init__(self, loaded: LoadedRun) -> None:
        super().__init__()
        self.model = loaded.model
        self.bank = loaded.bank
        self.usual = usual_settings(loaded.folder)
        self._interrupt = False
        self._guidance_scale = self.usual.guidance
        self._num_timesteps = self.usual.steps
        self.register_modules(
            transformer=loaded.model.transformer,
            identity=loaded.model.identity,
            scheduler=loaded.model.family.process.scheduler(),
            **loaded.model.family.components(),
        )

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        bank: str | Path | None = None,
        lora: str | Path | None = None,
        torch_dtype: torch.dtype = torch.float32,
    ) -> Self:
        """See ``loading.open_model``: a run alone, or a published model with the bank of a run, and a LoRA."""
        return cls(open_model(base, bank, lora, torch_dtype))

    def save_pretrained(self, folder: str | Path) -> None:
        """As an export, which ``from_pretrained`` and castbank read: model, LoRA, network and bank."""
        models.save(self.model, Path(folder))
        self.bank.save(Path(folder) / "bank")

    @classmethod
    def _get_signature_keys(cls, obj: Any) -> tuple[list[str], list[str]]:
        """diffusers takes the arguments of ``__init__`` for the components; here they are what is registered."""
        return sorted(name for name in obj.config if not name.startswith("_")), []

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """To a device and, transformer and identity network, to a precision; codec and text encoder keep theirs."""
        quietly = kwargs.pop("silence_dtype_warnings", False)
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None:
            self.model.convert(dtype)
            self.identity.to(dtype)
        if device is not None:
            super().to(device, silence_dtype_warnings=quietly)
        return self

    @property
    def num_timesteps(self) -> int:
        """Steps of the video that is, or was last, drawn."""
        return self._num_timesteps

    @property
    def guidance_scale(self) -> float:
        """Of the video that is, or was last, drawn."""
        return self._guidance_scale

    @torch.no_grad()
    def __call__(
        self, prompt: str, cast: Sequence[str] = (), **settings: Unpack[Settings]
    ) -> CastPipelineOutput | tuple[Any]:
        """Draw one video; the same as ``castbank generate`` of the same arguments.

        Raises:
            InputError: a setting, name, size, picture or scheduler that does not fit, see ``generate``.
        """
        _check(prompt, settings)
        config = self._config(settings)
        scene = self._scene(prompt, cast, settings)
        self._check_scheduler()
        self._guidance_scale, self._num_timesteps, self._interrupt = config.guidance, config.steps, False
        with self.progress_bar(total=config.steps) as bar:
            how = self._sampling(settings, bar)
            latents = sample(self.model, scene, config, how=how)
        form = settings.get("output_type", "np")
        frames = latents if form == "latent" else _shaped(self.model.family.decode(latents), form)
        self.maybe_free_model_hooks()
        return CastPipelineOutput(frames) if settings.get("return_dict", True) else (frames,)

    def _config(self, settings: Settings) -> GenerateConfig:
        given: dict[str, Any] = {NAMES[key]: value for key, value in settings.items() if key in NAMES}
        return replace(self.usual, **given)

    def _scene(self, prompt: str, cast: Sequence[str], settings: Settings) -> Scene:
        loaded = LoadedRun(Path(), self.model, self.bank)
        given = {
            name: [_rgb(picture) for picture in some] for name, some in settings.get("references", {}).items()
        }
        if given:
            loaded = replace(loaded, bank=with_references(loaded, given))
        scene = scene_of(loaded, prompt, tuple(cast) or tuple(given))
        image = settings.get("image")
        return replace(scene, layout=settings.get("layout"), anchor=None if image is None else _rgb(image))

    def _check_scheduler(self) -> None:
        process = self.model.family.process
        if not process.samples_by(self.scheduler):
            usual = type(process.scheduler()).__name__
            raise InputError(
                f"scheduler: a {type(self.scheduler).__name__} with prediction_type="
                f"{self.scheduler.config.get('prediction_type')!r} came, which would take this model's velocities "
                f"for something else; take a {usual}, or one of {type(process).__name__}'s kind: for flows "
                "prediction_type='flow_prediction', use_flow_sigmas=True; else prediction_type='v_prediction'"
            )

    def _sampling(self, settings: Settings, bar: Any) -> Sampling:
        callback = settings.get("callback_on_step_end")
        told = settings.get("callback_on_step_end_tensor_inputs", TENSORS)
        if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
            told = callback.tensor_inputs
        if set(told) - set(TENSORS):
            raise InputError(f"callback_on_step_end_tensor_inputs: {', '.join(told)} came; there is latents")

        def step_end(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, bool]:
            bar.update()
            if callback is not None:
                changed = callback(self, step, timestep, {"latents": latents} if told else {})
                latents = (changed or {}).get("latents", latents)
            return latents, not self._interrupt

        return Sampling(
            self.scheduler,
            settings.get("latents"),
            settings.get("generator"),
            self._execution_device,
            step_end,
        )


def _check(prompt: object, settings: Settings) -> None:
    unknown = sorted(settings.keys() - Settings.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"CastPipeline: no argument {', '.join(unknown)}; there are {', '.join(Settings.__annotations__)}"
        )
    if not isinstance(prompt, str):
        raise InputError(
            f"prompt: a {type(prompt).__name__} came; give one text, and call again for the next video"
        )
    if (form := settings.get("output_type", "np")) not in OUTPUTS:
        raise InputError(f"output_type: {form!r} came; use one of {', '.join(OUTPUTS)}")


def _rgb(picture: Any) -> U8:
    """u8[H,W,3] of Pillow's picture or an array."""
    array = np.asarray(picture.convert("RGB") if hasattr(picture, "convert") else picture)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise InputError(
            f"picture: {array.dtype}{array.shape} came; give uint8 (height, width, 3) RGB, or Pillow's"
        )
    return np.ascontiguousarray(array)


def _shaped(video: torch.Tensor, form: str) -> Any:
    """f32[1,3,T,H,W] in [-1,1] as it was asked for, see ``Settings``."""
    if form == "uint8":
        return pixels(video)[None]
    if form == "pil":
        from PIL import Image

        return [[Image.fromarray(frame) for frame in pixels(video)]]
    shares = ((video.float() + 1) / 2).clamp(0, 1)
    if form == "pt":
        return shares.transpose(1, 2)
    return shares.permute(0, 2, 3, 4, 1).cpu().numpy()
