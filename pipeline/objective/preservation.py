"""The identity-preservation loss: the faces in the model's clean estimate must be recognised as their references.

It reads pixels, so the estimate is decoded first, and only at low noise, where one step from the noisy latents ends
near a picture. Measured with the best linear estimate of each latent cell, the least that a model can do: its faces
have a similarity of .90 to themselves at σ = .2, .81 at .3, .67 at .4 (nine of ten above .53), .46 at .5 and .26 at
.6, where .40 is the same person. Everything here is differentiable in the video alone: where a face lies comes from
the label map, and the recogniser is frozen.

A recogniser can be pleased without a likeness: ten steps on free pixels, none moved by more than a twentieth, took
a face from .13 to .83 of somebody else's, and a second pack's recogniser saw .29 become .41. So weigh this loss
little, and judge with another pack than the one that is trained with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.data.features import CROP_PX, OWN_FACE_MARGIN
from pipeline.objective.losses import mean_where

Embed = Callable[[torch.Tensor], torch.Tensor]
"""Faces f32[n,3,112,112] RGB in [-1,1] to unit embeddings f32[n,D], differentiable: a ``FaceNetwork``."""


@dataclass(frozen=True)
class Estimate:
    """What the model takes B samples to show in T decoded frames, in order of time, and who should be seen.

    video: f32[B,3,T,H,W] in [-1,1]; label_map: u8[B,T,H,W] of the same frames, 0 nobody, k the k-th of the cast;
    references: f32[B,N,R,D] unit embeddings of faces from outside the sample, reference_mask: bool[B,N,R];
    cast_mask: bool[B,N]; sigma: f32[B] noise level in [0,1] that the estimate was made from.
    """

    video: torch.Tensor
    label_map: torch.Tensor
    references: torch.Tensor
    reference_mask: torch.Tensor
    cast_mask: torch.Tensor
    sigma: torch.Tensor


def identity_preservation(
    estimate: Estimate, embed: Embed, below: float, drift: float, min_face_px: int
) -> torch.Tensor:
    """How far each sample's faces are from their references and from each other, f32[B].

    For a character seen in frames F at ``min_face_px`` or more, with f the recogniser's unit embedding of its face
    in the estimate x̂, and r its R references:

        mean over t ∈ F, r of ‖f(x̂_t) − r‖²  +  drift · mean over t, t+1 ∈ F of ‖f(x̂_t) − f(x̂_{t+1})‖²

    and the sample's number is the mean over the characters seen; 0 where none is, or where sigma ≥ ``below``. Unit
    vectors make the first term 2 − 2·cos, the identity loss of PortraitBooth (arXiv 2312.06354), which also takes
    it at less noisy steps only, and of PuLID (arXiv 2404.16022, there on whole 4-step samples). Means in place of
    sums over frames: the number of frames decoded must not weigh. Samples that count nothing carry no gradient.

    Raises nothing on an empty mask; the recogniser sees only faces that count.
    """
    squares, seen = face_squares(estimate.label_map, estimate.cast_mask.shape[1], min_face_px)
    known = estimate.cast_mask & estimate.reference_mask.any(-1) & (estimate.sigma < below)[:, None]
    counted = seen & known[..., None]  # [B,N,T]
    if not counted.any():
        return estimate.video.new_zeros(len(counted), dtype=torch.float32)
    b, k, t = counted.nonzero(as_tuple=True)
    found = embed(cut_faces(estimate.video[b, :, t], squares[b, k, t]))  # [n,D]
    to_each = (found[:, None] - estimate.references[b, k]).square().sum(-1)  # [n,R]
    away = _scatter(mean_where(to_each, estimate.reference_mask[b, k]), counted)
    faces = _scatter(found, counted)  # [B,N,T,D]
    steps = (faces[:, :, 1:] - faces[:, :, :-1]).square().sum(-1)
    both = counted[..., 1:] & counted[..., :-1]
    per_character = mean_where(away, counted) + drift * mean_where(steps, both)
    return mean_where(per_character, counted.any(-1))


def face_squares(
    label_map: torch.Tensor, num_characters: int, min_px: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The square that ``features.own_face`` cuts, for each character and frame.

    Args:
        label_map: u8[B,T,H,W].
        num_characters: N.
        min_px: a face whose region's shorter side is less does not count as seen.

    Returns:
        f32[B,N,T,3]: centre x, centre y, side, in pixels (of no meaning where nobody is seen), and bool[B,N,T].
    """
    slots = range(1, num_characters + 1)
    masks = [label_map == slot for slot in slots]  # one at a time: [B,N,T,H,W] at once is a gigabyte at 720p
    left, right = _extent(torch.stack([mask.any(-2) for mask in masks], 1))
    top, bottom = _extent(torch.stack([mask.any(-1) for mask in masks], 1))
    width, height = right - left + 1, bottom - top + 1
    seen = torch.minimum(width, height) >= max(min_px, 1)
    side = OWN_FACE_MARGIN * torch.maximum(width, height)
    return torch.stack([(left + right) / 2, (top + bottom) / 2, side], -1), seen


def cut_faces(frames: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """f32[n,3,H,W] in [-1,1] and f32[n,3] squares to faces f32[n,3,112,112] in [-1,1], black outside the frame.

    Pixel u of the face is x = centre + (u − 56)·side/112 of the frame, by a bicubic of a = −0.75: what
    ``cv2.warpAffine`` does in ``features.own_face``, which rounds positions to 1/32 pixel and values to bytes.
    """
    height, width = frames.shape[-2:]
    step = torch.arange(CROP_PX, device=squares.device) / CROP_PX - 0.5
    x, y = ((squares[:, axis, None] + step * squares[:, 2:]) for axis in (0, 1))  # [n,112]
    x, y = 2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1
    shape = (len(squares), CROP_PX, CROP_PX)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], -1)
    light = torch.nn.functional.grid_sample(frames.float() + 1, grid, mode="bicubic", align_corners=True)
    return (light - 1).clamp(-1, 1)


def _extent(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last True of the last axis, f32; where there is none, the last comes before the first."""
    at = torch.arange(occupied.shape[-1], device=occupied.device, dtype=torch.float32)
    first = torch.where(occupied, at, float(len(at))).amin(-1)
    return first, torch.where(occupied, at, -1.0).amax(-1)


def _scatter(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """[n,...] to the True places of bool[B,N,T], zeros elsewhere: [B,N,T,...]."""
    spread = values.new_zeros(*chosen.shape, *values.shape[1:])
    return spread.index_put(chosen.nonzero(as_tuple=True), values)
