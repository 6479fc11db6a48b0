"""A face pack's recogniser that gradients pass through: from pictures of faces to embeddings, in torch.

The same weights and the same preparation of its input as ``data_prep.faces.recogniser``, which answers by ONNX
Runtime and without gradients. Weights are frozen; what is differentiated is the picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from data_prep.faces.geometry import CROP_PX
from data_prep.faces.packs import InstalledPack
from data_prep.records import InputError
from pipeline.objective.onnx_network import UnsupportedOperatorError, read_graph, torch_network


class FaceNetwork(nn.Module):
    """The recogniser of a pack. It holds buffers only, none of which is saved with a checkpoint.

    In float32 it answers as ONNX Runtime does to 5e-7. In bf16 an embedding turns by up to 4 degrees (measured),
    where two frames of one person are 8 and more apart.
    """

    def __init__(self, pack: InstalledPack) -> None:
        """Raises InputError where the network cannot be read, or uses an operator that is not known."""
        super().__init__()
        graph = read_graph(pack.recogniser)
        try:
            self.network = torch_network(graph)
        except UnsupportedOperatorError as unknown:
            raise InputError(
                f"face pack {pack.spec.name!r}: {pack.recogniser.name} uses the operator {unknown}, through which "
                "no gradient can be taken here; use another pack, or leave the identity loss out "
                "(model.losses.identity=0)"
            ) from None
        self.dim = pack.spec.dim
        self._takes_bytes = _normalises_itself(graph)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """f32[n,3,112,112] RGB in [-1,1], cut and aligned as for the pack, to unit rows f32[n,D].

        Runs in the weights' own type whatever autocast says. Raises InputError on another shape.
        """
        if faces.ndim != 4 or faces.shape[1:] != (3, CROP_PX, CROP_PX):
            raise InputError(
                f"faces: came {list(faces.shape)}, expected [n,3,{CROP_PX},{CROP_PX}] in [-1,1] (RGB)."
            )
        if self._takes_bytes:
            faces = (faces + 1) * 127.5
        with torch.autocast(faces.device.type, enabled=False):
            raw: torch.Tensor = self.network(faces.to(next(self.network.buffers()).dtype))
        return nn.functional.normalize(raw.float(), dim=-1, eps=1e-9)


def _normalises_itself(graph: Any) -> bool:
    """Whether the network scales its own input, which then is 0..255 instead of (x − 127.5) / 127.5: insightface's
    rule (``ArcFaceONNX``), a Sub and a Mul by name among the first eight nodes."""
    names = [node.name for node in graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    return subtracts and any(name.startswith(("Mul", "_mul")) for name in names)
