"""The head as a torch module: what is trained. Predicting needs no torch, see `graph`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.detection.shape import BOX_OUTPUTS, HeadShape

GROUPS = 8
SIDES = 4
START_LOGIT = -4.0  # of every class: objects are rare, as Lin et al. 2017 (arXiv:1708.02002) start


class Block(nn.Module):
    """Depthwise 3 x 3, pointwise, group norm, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise = nn.Linear(width, width, bias=False)  # a product is faster than 1 x 1
        self.norm = nn.GroupNorm(GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        y = self.pointwise(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.relu(self.norm(y))


class HeadNetwork(nn.Module):
    """Maps to the features that the last, linear layers read.

    A feature pyramid (Lin et al. 2017, arXiv:1612.03144) of depthwise-separable blocks, and two
    towers that all levels share, as in FCOS (Tian et al. 2019, arXiv:1904.01355). The level of
    stride 8 is computed at stride 16, two by two locations at once, each with last layers of its
    own: most of the time went there, and it finds small objects as well.

    Args:
        shape: levels, width and classes.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        width = shape.width
        self.shape = shape
        self.lateral = nn.ModuleList(
            nn.Conv2d(c, width, cells, stride=cells)
            for c, cells in zip(shape.channels, shape.cells, strict=True)
        )
        self.smooth = nn.ModuleList(Block(width) for _ in shape.channels)
        self.class_tower = nn.Sequential(*(Block(width) for _ in range(shape.depth)))
        self.box_tower = nn.Sequential(*(Block(width) for _ in range(shape.depth)))
        self.classify = nn.Linear(width, shape.n_classes)
        self.regress = nn.Linear(width, BOX_OUTPUTS)
        fine = max(shape.cells) ** 2
        self.classify_fine = nn.Linear(width, fine * shape.n_classes)
        self.regress_fine = nn.Linear(width, fine * BOX_OUTPUTS)
        self.scale = nn.Parameter(torch.zeros(len(shape.channels)))
        for layer in (self.classify, self.classify_fine):
            nn.init.constant_(layer.bias, START_LOGIT)
        for layer in (self.classify, self.classify_fine, self.regress, self.regress_fine):
            nn.init.normal_(layer.weight, std=0.01)

    def towers(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Standardised maps, finest first, to what `classify` and `regress` read on each level."""
        merged: list[Tensor] = []
        above: Tensor | None = None
        for level in reversed(range(len(maps))):
            x = self.lateral[level](maps[level])
            if above is not None:
                wider = x.shape[2] != above.shape[2]
                x = x + (nn.functional.interpolate(above, scale_factor=2.0) if wider else above)
            above = x
            merged.insert(0, self.smooth[level](x))
        return [self.class_tower(x) for x in merged], [self.box_tower(x) for x in merged]

    def forward(self, maps: list[Tensor], drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """Class logits ``(B, L, C)`` and box outputs ``(B, L, 9)`` of all levels' locations.

        Args:
            maps: standardised, ``(B, channels, H, W)`` each, finest first.
            drop: share of the last layers' inputs that is dropped, the same ones at all locations
                of an image, so that the passes of Monte-Carlo dropout are functions of it.
        """
        of_class, of_box = self.towers(maps)
        if drop > 0:
            masks = (torch.rand(2, *of_class[0].shape[:2]) >= drop) / (1 - drop)
            for_class, for_box = masks.to(of_class[0])[..., None, None]
            of_class = [x * for_class for x in of_class]
            of_box = [x * for_box for x in of_box]
        logits, outputs = [], []
        for level, cells in enumerate(self.shape.cells):
            classify, regress = (
                (self.classify, self.regress)
                if cells == 1
                else (self.classify_fine, self.regress_fine)
            )
            logits.append(_at_locations(classify(of_class[level].permute(0, 2, 3, 1)), cells))
            out = _at_locations(regress(of_box[level].permute(0, 2, 3, 1)), cells)
            outputs.append(torch.cat([out[..., :SIDES] + self.scale[level], out[..., SIDES:]], 2))
        return torch.cat(logits, 1), torch.cat(outputs, 1)


def _at_locations(values: Tensor, cells: int) -> Tensor:
    """``(B, H, W, cells * cells * V)`` to ``(B, cells * H * cells * W, V)``, row by row."""
    count, rows, columns, _ = values.shape
    spread = values.reshape(count, rows, columns, cells, cells, -1).transpose(2, 3)
    return spread.reshape(count, rows * cells * columns * cells, -1)
