"""Fits a head: batches of cached maps, task-aligned targets, three losses, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.backbones.pyramid import STRIDES
from model.detection.assignment import Assigned, Batch, assign, box_iou
from model.detection.copy_paste import Example, copy_paste
from model.detection.maps import ImageMaps
from model.detection.network import HeadNetwork
from model.detection.schedule import schedule_for
from model.detection.shape import LARGEST_LOG, REACH, HeadShape, Standard
from model.errors import ModelError

LAST_RATE, DECAY, CLIP = 0.02, 0.01, 10.0
WARM_UP = 50
AVERAGE = 0.99
VIEWED = 0.5  # share of the images that are seen in another view, where there are views
PASTED = 0.5  # share of the images that get an object of another one
DROP_MAPS = 0.1  # channels of the inputs
DROP_LAST = 0.1  # inputs of the last layers: what Monte-Carlo dropout repeats
BOX_WEIGHT, QUALITY_WEIGHT, SPREAD_WEIGHT = 2.0, 0.5, 0.1
NEGATIVE_WEIGHT = 0.75
ACCEPTED_WEIGHT = 0.5  # of the sides of a box that was taken over as it was

Progress = Callable[[float], None]


def standard_of(maps: Sequence[ImageMaps], strides: Sequence[int]) -> Standard:
    """Mean and standard deviation of every channel of each level, over images."""
    found = []
    for level in levels_of(strides):
        total, square, count = 0.0, 0.0, 0
        for one in maps:
            values = one.levels[level].astype(np.float64)
            total = total + values.sum((1, 2))
            square = square + (values**2).sum((1, 2))
            count += values.shape[1] * values.shape[2]
        mean = np.asarray(total) / count
        variance = np.asarray(square) / count - mean**2
        found.append((mean.astype(np.float32), np.sqrt(variance + 1e-6).astype(np.float32)))
    return tuple(found)


def levels_of(strides: Sequence[int]) -> list[int]:
    """Positions of strides among those of a pyramid."""
    return [STRIDES.index(stride) for stride in strides]


def train_head(
    examples: Sequence[Example],
    shape: HeadShape,
    standard: Standard,
    *,
    seed: int,
    steps: int | None = None,
    batch: int = 4,
    progress: Progress = lambda share: None,
) -> HeadNetwork:
    """Fit one network of a head from scratch.

    Args:
        examples: at least one; images without a box are true negatives.
        shape: what to fit.
        standard: see `standard_of`.
        seed: of weights, order, flips and dropout.
        steps: of the optimiser.
        batch: images a step.
        progress: called with the share done.

    Returns:
        The network with its averaged weights, in evaluation mode, on the CPU.

    Raises:
        ModelError: its weights are not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    schedule = schedule_for(shape)
    steps = steps or schedule.steps_for(len(examples))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        network = HeadNetwork(shape).to(device).train()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = [p.detach().clone() for p in network.parameters()]
        optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": DECAY},
                {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=schedule.rate,
        )
        levels = levels_of(shape.inputs)
        order: list[int] = []
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate * _rate(step, steps)
            while len(order) < batch:
                order.extend(rng.permutation(len(examples)).tolist())
            taken, order = order[:batch], order[batch:]
            scenes = [_scene(examples, n, levels, rng) for n in taken]
            maps, truth, grid = collate(scenes, shape, standard, rng)
            maps = [
                _drop_channels(level, DROP_MAPS).to(device, memory_format=torch.channels_last)
                for level in maps
            ]
            loss = _loss(network, maps, truth, grid.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
            keep = min((step + 1) / (step + 10), AVERAGE)
            with torch.no_grad():
                for mean, p in zip(average, network.parameters(), strict=True):
                    mean.lerp_(p, 1 - keep)
            progress((step + 1) / steps)
        with torch.no_grad():
            for mean, p in zip(average, network.parameters(), strict=True):
                p.copy_(mean)
    if not all(torch.isfinite(p).all() for p in network.parameters()):
        raise ModelError(
            f"a head diverged: its weights are not finite after {steps} steps with seed {seed}; "
            "train it with another seed, or after some more labels"
        )
    network.cpu().eval()
    return network


def _scene(
    examples: Sequence[Example], n: int, levels: Sequence[int], rng: np.random.Generator
) -> Example:
    """An image or a view of it, as it is or with an object of another one in it."""
    if rng.random() >= PASTED:
        return _seen(examples[n], rng)
    source = _seen(examples[int(rng.integers(len(examples)))], rng)
    return copy_paste(_seen(examples[n], rng), source, levels, rng)


def _seen(example: Example, rng: np.random.Generator) -> Example:
    """The image itself or, of one that has views, every other time one of these."""
    if not example.views or rng.random() >= VIEWED:
        return example
    view = example.views[int(rng.integers(len(example.views)))]
    return Example(view.maps, view.window.drawn(example.drawn))


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _drop_channels(maps: Tensor, share: float) -> Tensor:
    keep = (torch.rand(maps.shape[:2]) >= share).to(maps) / (1 - share)
    return maps * keep[:, :, None, None]


def collate(
    examples: Sequence[Example],
    shape: HeadShape,
    standard: Standard,
    rng: np.random.Generator | None,
) -> tuple[list[Tensor], Batch, Tensor]:
    """Standardised maps padded to one size, the boxes in pixels, and the grid.

    Args:
        examples: of the batch.
        shape: of the head.
        standard: see `standard_of`.
        rng: flips every other image; None flips none.
    """
    levels = levels_of(shape.inputs)
    width, height = np.array([example.maps.canvas for example in examples]).max(axis=0).tolist()
    grid = shape.grid(height, width)
    out = [
        np.zeros((len(examples), c, height // s, width // s), np.float32)
        for c, s in zip(shape.input_channels, shape.inputs, strict=True)
    ]
    valid = np.zeros((len(examples), len(grid)), bool)
    boxes: list[NDArray[np.float64]] = []
    ignored: list[NDArray[np.float64]] = []
    image: list[NDArray[np.int64]] = []
    ignored_image: list[NDArray[np.int64]] = []
    labels, accepted = [], []
    for n, example in enumerate(examples):
        flip = rng is not None and rng.random() < 0.5
        own = np.array(example.maps.canvas)
        for target, level, (mean, deviation) in zip(out, levels, standard, strict=True):
            values = (example.maps.levels[level] - mean[:, None, None]) / deviation[:, None, None]
            target[n, :, : values.shape[1], : values.shape[2]] = (
                values[:, :, ::-1] if flip else values
            )
        valid[n] = (grid[:, 0] < own[0]) & (grid[:, 1] < own[1])
        scale = np.concatenate([own, own])
        for found, areas, of in (
            (boxes, example.drawn.boxes, image),
            (ignored, example.drawn.ignored, ignored_image),
        ):
            placed = areas * scale
            if flip:
                placed = np.stack(
                    [own[0] - placed[:, 2], placed[:, 1], own[0] - placed[:, 0], placed[:, 3]], 1
                )
            found.append(placed)
            of.append(np.full(len(placed), n))
        labels.append(example.drawn.labels)
        accepted.append(example.drawn.accepted)
    truth = Batch(
        boxes=torch.from_numpy(np.concatenate(boxes).astype(np.float32)),
        labels=torch.from_numpy(np.concatenate(labels)),
        image=torch.from_numpy(np.concatenate(image)),
        accepted=torch.from_numpy(np.concatenate(accepted)),
        ignored=torch.from_numpy(np.concatenate(ignored).astype(np.float32)),
        ignored_image=torch.from_numpy(np.concatenate(ignored_image)),
        valid=torch.from_numpy(valid),
    )
    return [torch.from_numpy(x) for x in out], truth, torch.from_numpy(grid)


def boxes_of(outputs: Tensor, grid: Tensor) -> Tensor:
    """Box outputs ``(..., L, 9)`` to boxes ``(..., L, 4)`` in pixels of the canvas."""
    reach = torch.exp(outputs[..., :4].clamp(-LARGEST_LOG, LARGEST_LOG)) * REACH * grid[:, 2:]
    return torch.cat([grid[:, :2] - reach[..., :2], grid[:, :2] + reach[..., 2:]], -1)


def _loss(network: HeadNetwork, maps: list[Tensor], truth: Batch, grid: Tensor) -> Tensor:
    truth = Batch(**{name: value.to(grid.device) for name, value in vars(truth).items()})
    logits, outputs = network(maps, drop=DROP_LAST, valid=truth.valid)
    boxes = boxes_of(outputs, grid)
    given = assign(logits.sigmoid(), boxes, grid, truth)
    classes = _class_loss(logits, given, truth)
    total = given.target.sum().clamp(min=1.0)
    if not len(given.location):
        alone: Tensor = classes / total + 0.0 * outputs.sum()
        return alone
    found = boxes.reshape(-1, 4)[given.location]
    goal = truth.boxes[given.box]
    weight = given.target * torch.where(truth.accepted[given.box], ACCEPTED_WEIGHT, 1.0)
    of_box = (weight * (1 - generalised_iou(found, goal))).sum()
    rest = outputs.reshape(-1, outputs.shape[-1])[given.location]
    quality = nn.functional.binary_cross_entropy_with_logits(
        rest[:, 4], box_iou(found, goal).detach(), reduction="none"
    )
    # Laplace's distribution of each side's error, in shares of the box's size.
    size = (goal[:, 2:] - goal[:, :2]).clamp(min=1.0).repeat(1, 2)
    error = ((found - goal).abs() / size).detach()
    log_scale = rest[:, 5:].clamp(-LARGEST_LOG, LARGEST_LOG)
    spread = (error * torch.exp(-log_scale) + log_scale).mean(1)
    extras = QUALITY_WEIGHT * quality + SPREAD_WEIGHT * spread
    whole: Tensor = (classes + BOX_WEIGHT * of_box + (weight * extras).sum()) / total
    return whole


def _class_loss(logits: Tensor, given: Assigned, truth: Batch) -> Tensor:
    """Varifocal loss (Zhang et al. 2021, arXiv:2008.13367), nothing where nothing is known."""
    flat = logits.reshape(-1, logits.shape[-1])
    target = torch.zeros_like(flat)
    target[given.location, truth.labels[given.box]] = given.target
    weight = torch.where(target > 0, target, NEGATIVE_WEIGHT * flat.sigmoid().detach() ** 2)
    unknown = given.unknown.clone()
    unknown[given.location] = False
    weight = weight * ~unknown[:, None]
    loss: Tensor = nn.functional.binary_cross_entropy_with_logits(flat, target, reduction="none")
    total: Tensor = (loss * weight).sum()
    return total


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """``(P,)`` of pairs (Rezatofighi et al. 2019, arXiv:1902.09630)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    found: Tensor = shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)
    return found
