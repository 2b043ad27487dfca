"""Which location answers for which box: task-aligned assignment, for a whole batch at once.

Source:
    Feng et al. 2021, TOOD (arXiv:2108.07755).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOP = 9  # locations a box
IOU_POWER = 6.0
LEAST_TARGET = 0.05
# So small that it only breaks ties of the first steps, when nothing overlaps anything yet.
PRIOR = 1e-9


@dataclass(frozen=True)
class Batch:
    """Boxes of a batch, in pixels of the canvas.

    Attributes:
        boxes: ``(N, 4)``.
        labels: ``(N,)``.
        image: ``(N,)`` which image of the batch each is in.
        accepted: ``(N,)`` bool, see `BoxLabels`.
        ignored: ``(G, 4)`` areas, and ``(G,)`` their images.
        ignored_image: see `ignored`.
        valid: ``(B, L)`` bool, locations that lie on the image and not on padding.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    accepted: Tensor
    ignored: Tensor
    ignored_image: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Assigned:
    """P locations that answer for a box.

    Attributes:
        location: ``(P,)`` index into the flattened ``B * L`` locations.
        box: ``(P,)`` index into the batch's boxes.
        target: ``(P,)`` what the class score shall be, in (0, 1].
        unknown: ``(B * L,)`` bool, locations of which nothing is known.
    """

    location: Tensor
    box: Tensor
    target: Tensor
    unknown: Tensor


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """``(P,)`` intersection over union of pairs of boxes ``(P, 4)``."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return shared / union.clamp(min=1e-9)


@torch.no_grad()
def assign(probs: Tensor, boxes: Tensor, grid: Tensor, batch: Batch) -> Assigned:
    """Give each box the locations inside it whose class and sides fit best.

    A location goes to the box it fits best; a box without a location inside gets the nearest. Of
    boxes that lie in one another's place one may get none.

    Args:
        probs: ``(B, L, C)`` of every class.
        boxes: ``(B, L, 4)`` predicted.
        grid: ``(L, 3)`` x, y and stride.
        batch: the truth.
    """
    count = grid.shape[0]
    x, y, stride = grid.unbind(1)
    unknown = _inside(batch.ignored, x, y, batch.ignored_image, probs.shape[0])
    unknown |= ~batch.valid.reshape(-1)
    if not len(batch.boxes):
        none = torch.zeros(0, dtype=torch.long, device=probs.device)
        return Assigned(none, none, probs.new_zeros(0), unknown)
    # A box thinner than the finest stride would hold no centre: it is widened to hold one.
    centre = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2
    half = ((batch.boxes[:, 2:] - batch.boxes[:, :2]) / 2).clamp(min=float(stride.min()) / 2)
    low, high = centre - half - 1e-3, centre + half + 1e-3
    within = (x >= low[:, :1]) & (x <= high[:, :1]) & (y >= low[:, 1:]) & (y <= high[:, 1:])
    # Of a level coarser than any map a centre may lie on the canvas's edge, where a box ends too.
    pair_box, pair_at = (within & batch.valid[batch.image]).nonzero(as_tuple=True)
    where = batch.image[pair_box] * count + pair_at
    truth = batch.boxes[pair_box]
    iou = box_iou(boxes.reshape(-1, 4)[where], truth)
    score = probs.reshape(-1, probs.shape[2])[where, batch.labels[pair_box]]
    off = (grid[pair_at, :2] - centre[pair_box]).abs().amax(1)
    size = (truth[:, 2:] - truth[:, :2]).amax(1)
    level = torch.log2((size / (4 * grid[pair_at, 2])).clamp(min=1e-3)).abs()
    prior = PRIOR * torch.exp(-level - off / grid[pair_at, 2] / 4)
    metric = score * iou**IOU_POWER + prior
    keep = _first_of_each(metric, pair_box, TOP)
    keep = keep[_first_of_each(metric[keep], where[keep], 1)]
    pair_box, where, metric, iou = pair_box[keep], where[keep], metric[keep], iou[keep]
    per_box = len(batch.boxes)
    most = metric.new_zeros(per_box).scatter_reduce(0, pair_box, metric, "amax")
    best = iou.new_zeros(per_box).scatter_reduce(0, pair_box, iou, "amax")
    target = metric / most[pair_box] * best[pair_box]
    return Assigned(where, pair_box, target.clamp(LEAST_TARGET, 1.0), unknown)


def _first_of_each(value: Tensor, group: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest values of every group."""
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    sorted_group = group[order]
    new = torch.ones_like(sorted_group, dtype=torch.bool)
    new[1:] = sorted_group[1:] != sorted_group[:-1]
    position = torch.arange(len(order), device=value.device)
    start = torch.cummax(torch.where(new, position, torch.zeros_like(position)), 0).values
    return order[position - start < count]


def _inside(areas: Tensor, x: Tensor, y: Tensor, image: Tensor, images: int) -> Tensor:
    """``(B * L,)`` whether a location lies in one of the areas of its image."""
    inside = (x >= areas[:, :1]) & (x <= areas[:, 2:3]) & (y >= areas[:, 1:2]) & (y <= areas[:, 3:])
    found = torch.zeros(images, len(x), dtype=torch.bool, device=x.device)
    at_box, at = inside.nonzero(as_tuple=True)
    found[image[at_box], at] = True
    return found.reshape(-1)
