"""The head as a torch module: what is trained. Predicting needs no torch, see `graph`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.detection.shape import BOX_OUTPUTS, HeadShape

GROUPS = 8
SIDES = 4
SMALLEST_SHARE = 0.25  # of a coarser cell that any of its 2 x 2 cells is
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
    towers that all levels share, as in FCOS (Tian et al. 2019, arXiv:1904.01355). On the finest
    level the tower of boxes reads the map below it as well. Levels coarser than any map are means
    of cells of the coarsest one.

    Args:
        shape: levels, width and classes.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        width = shape.width
        self.shape = shape
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in shape.channels)
        self.detail = nn.Conv2d(shape.detail, width, 2, stride=2) if shape.detail else None
        self.smooth = nn.ModuleList(Block(width) for _ in shape.channels)
        self.class_tower = nn.Sequential(*(Block(width) for _ in range(shape.depth)))
        self.box_tower = nn.Sequential(*(Block(width) for _ in range(shape.depth)))
        self.classify = nn.Linear(width, shape.n_classes)
        self.regress = nn.Linear(width, BOX_OUTPUTS)
        self.scale = nn.Parameter(torch.zeros(len(shape.channels)))
        nn.init.constant_(self.classify.bias, START_LOGIT)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.01)

    def towers(
        self, maps: list[Tensor], valid: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What `classify` and `regress` read on each level.

        Args:
            maps: standardised, finest first, see `HeadShape.inputs`.
            valid: ``(B, L)`` bool, which locations lie on the image and not on padding, where the
                maps are 0; None where all do.
        """
        finer = maps[0]
        maps = maps[1:] if self.detail is not None else list(maps)
        inside = None if valid is None else _at_last(valid, maps)
        for _ in range(self.shape.coarser):
            mean = nn.functional.avg_pool2d(maps[-1], 2, ceil_mode=True)
            if inside is not None:
                # Of the cells on the image alone, as when the image is predicted by itself.
                share = nn.functional.avg_pool2d(inside, 2, ceil_mode=True)
                mean, inside = mean / share.clamp(min=SMALLEST_SHARE), (share > 0).to(mean)
            maps.append(mean)
        merged: list[Tensor] = []
        above: Tensor | None = None
        for level in reversed(range(len(maps))):
            x = self.lateral[level](maps[level])
            if above is not None:
                up = nn.functional.interpolate(above, scale_factor=2.0, mode="nearest")
                x = x + up[..., : x.shape[2], : x.shape[3]]
            above = x
            merged.insert(0, self.smooth[level](x))
        # Where exactly a side lies is in the finer map. What an object is, is not: classes learnt
        # from it as well are worse.
        for_box = merged if self.detail is None else [merged[0] + self.detail(finer), *merged[1:]]
        return [self.class_tower(x) for x in merged], [self.box_tower(x) for x in for_box]

    def forward(
        self, maps: list[Tensor], drop: float = 0.0, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class logits ``(B, L, C)`` and box outputs ``(B, L, 9)`` of all levels' locations.

        Args:
            maps: standardised, ``(B, channels, H, W)`` each, finest first, see `HeadShape.inputs`.
            drop: share of the last layers' inputs that is dropped, the same ones at all locations
                of an image, so that the passes of Monte-Carlo dropout are functions of it.
            valid: see `towers`.
        """
        of_class, of_box = self.towers(maps, valid)
        logits = torch.cat([x.flatten(2).transpose(1, 2) for x in of_class], 1)
        flat = torch.cat([x.flatten(2).transpose(1, 2) for x in of_box], 1)
        if drop > 0:
            for_class = torch.rand(len(logits), 1, logits.shape[2]) >= drop
            for_box = torch.rand(len(flat), 1, flat.shape[2]) >= drop
            logits = logits * (for_class / (1 - drop)).to(logits)
            flat = flat * (for_box / (1 - drop)).to(flat)
        out: Tensor = self.regress(flat)
        lengths = [x.shape[2] * x.shape[3] for x in of_box]
        scale = torch.repeat_interleave(
            self.scale, torch.tensor(lengths, device=out.device), output_size=sum(lengths)
        )
        sides = out[..., :SIDES] + scale[:, None]
        return self.classify(logits), torch.cat([sides, out[..., SIDES:]], 2)


def _at_last(valid: Tensor, maps: list[Tensor]) -> Tensor:
    """``(B, 1, H, W)`` 1 where the cells of the last of the maps are valid, else 0."""
    before = sum(x.shape[2] * x.shape[3] for x in maps[:-1])
    _, _, rows, columns = maps[-1].shape
    own = valid[:, before : before + rows * columns]
    return own.reshape(-1, 1, rows, columns).to(maps[-1])
