"""What the property tests of identity ask of a family's tiny model, and the table of what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import torch

from pipeline import model as models
from pipeline.config import ModelConfig
from pipeline.families.contract import Given
from pipeline.identity.attention import CastContext
from pipeline.model import Model

MAX_CAST = 12
HEIGHT, WIDTH, DIM = 32, 48, 32
A, B = 0, 1  # slots; A is shown at the left, B at the right, nobody between


class Table:
    """Figures by property and family."""

    def __init__(self, columns: Iterable[str]) -> None:
        self.columns = tuple(columns)
        self.rows: dict[str, dict[str, str]] = {}

    def note(self, row: str, column: str, figure: float | str) -> None:
        """One more cell."""
        text = figure if isinstance(figure, str) else f"{figure:.2g}"
        self.rows.setdefault(row, {})[column] = text

    def __str__(self) -> str:
        width = max(map(len, ("property", *self.rows)))
        lines = [" | ".join(["property".ljust(width), *(c.rjust(13) for c in self.columns)])]
        for row, cells in self.rows.items():
            lines.append(" | ".join([row.ljust(width), *(cells.get(c, "").rjust(13) for c in self.columns)]))
        return "\n".join(lines)


class Subject:
    """A family's tiny model on two samples of random latents, text and references."""

    def __init__(self, name: str, config: ModelConfig, videos: list[torch.Tensor], table: Table) -> None:
        self.name, self.config, self.table = name, config, table
        self._videos = videos

    def note(self, row: str, figure: float | str) -> None:
        self.table.note(row, self.name, figure)

    def new(self, trained: bool = True, every: int = 1) -> Model:
        """Identity as after training (its zero projections and the nobody key filled), or as it begins."""
        config = replace(self.config, identity=replace(self.config.identity, every=every))
        model = models.create(config, self._videos, seed=1)
        generator = torch.Generator().manual_seed(9)
        for attention in model.identity.attentions if trained else ():
            for parameter in (attention.to_out.weight, attention.to_out.bias):
                parameter.data.normal_(0, 0.2, generator=generator)
            attention.nobody.data.normal_(0, 1, generator=generator)
        return model

    @cached_property
    def fresh(self) -> Model:
        """Shared: do not change it."""
        return self.new(trained=False)

    @cached_property
    def model(self) -> Model:
        """Shared, trained: do not change it."""
        return self.new()

    @property
    def num_frames(self) -> int:
        """Three latent frames before filling."""
        return 1 + 2 * self.model.family.grid.frames

    def answer(self, model: Model, context: CastContext | None) -> torch.Tensor:
        """The velocity f32[2,C,t,h,w] at two noise levels."""
        generator = torch.Generator().manual_seed(7)
        grid = model.family.grid
        t, h, w = grid.size(self.num_frames, HEIGHT, WIDTH)
        t += grid.missing(t)
        latents = torch.randn(2, model.family.latent_channels, t, h, w, generator=generator)
        level = torch.tensor([[0.2], [0.9]]).expand(2, t)
        return model.velocity(latents, level, Given(torch.randn(2, 12, 16, generator=generator)), context)

    def tokens(self, model: Model, num_characters: int, seed: int = 3) -> torch.Tensor:
        """Tokens f32[2,N,K,C] of random characters, without slots."""
        generator = torch.Generator().manual_seed(seed)
        faces = torch.randn(2, num_characters, 4, DIM, generator=generator)
        faces = torch.nn.functional.normalize(faces, dim=-1)
        made: torch.Tensor = model.identity(faces, torch.ones(faces.shape[:3], dtype=torch.bool))
        return made

    def cast(self, model: Model, num_characters: int = 2, strength: float = 1.0) -> CastContext:
        return self.context(model, self.tokens(model, num_characters), strength)

    def context(self, model: Model, tokens: torch.Tensor, strength: float = 1.0) -> CastContext:
        """With every slot filled."""
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return model.identity.context(tokens, mask, torch.full((2,), strength))

    def hard(self, context: CastContext) -> CastContext:
        """Routed by hand: a third of the picture A, a third nobody, a third B."""
        shares = self.regions.transpose(1, 2)
        layout = torch.cat([1 - shares.sum(-1, keepdim=True), shares], -1)
        return replace(context, layout=layout, routing={})

    @cached_property
    def label_map(self) -> torch.Tensor:
        made = torch.zeros(2, self.num_frames, HEIGHT, WIDTH, dtype=torch.uint8)
        made[..., :16], made[..., 32:] = 1, 2
        return made

    @property
    def regions(self) -> torch.Tensor:
        """Which tokens show A, and which B: f32[2,2,L], 0 or 1."""
        grid = self.model.family.grid
        return grid.tokens(grid.coverage(self.label_map, 2))

    def within(self, slot: int, cells: torch.Tensor) -> torch.Tensor:
        """What of [2,C,t,h,w] lies in a slot's part of the picture."""
        third = cells.shape[-1] // 3
        return cells[..., :third] if slot == A else cells[..., 2 * third :]


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference."""
    return float((one.float() - other.float()).abs().max())
