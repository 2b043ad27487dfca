"""How long, how fast and how many networks a head is trained: by the finest level it reads."""

from __future__ import annotations

from dataclasses import dataclass

from model.detection.shape import HeadShape

MOST_TIMES = 3  # as many steps as few images get


@dataclass(frozen=True)
class Schedule:
    """How the heads of one finest level are trained.

    Attributes:
        steps: of each network on few images: counted in steps, not epochs, so that ten images get
            enough.
        images: above which steps grow,
        power: with this power of the number of images.
        rate: largest learning rate: few steps on small objects take a larger one.
        networks: that a head is the mean of. Without fine levels one costs little, and
            several find more and depend less on chance (Lakshminarayanan et al. 2017,
            arXiv:1612.01474).
        calibrating: share of the steps of a head that only finds what calibration is fitted to;
            less than all where they are dear.
        folds: parts of the images, each left to one such head that is fitted to the others. Where
            more images still make a head much better, one fitted to half of them is no measure of
            the version's own.
        calibrating_networks: as `networks`, of such a head.
    """

    steps: int
    images: int
    power: float
    rate: float
    networks: int
    calibrating: float
    folds: int
    calibrating_networks: int

    def steps_for(self, images: int) -> int:
        """Steps of each network on so many images."""
        more: float = max(1.0, images / self.images) ** self.power
        return min(round(self.steps * more), MOST_TIMES * self.steps)

    def steps_to_calibrate(self, steps: int) -> int:
        """Steps of a head that calibration is fitted to, where the version's gets `steps`."""
        return max(int(steps * self.calibrating), 1)


# By stride. Without the level of stride 8 a step costs a fifth, and what tells large objects apart
# takes longer to learn than where small ones are. Several networks need fewer steps each.
SCHEDULES = {
    8: Schedule(
        steps=260, images=100, power=0.8, rate=4e-3, networks=1,
        calibrating=0.5, folds=2, calibrating_networks=1,
    ),
    16: Schedule(
        steps=600, images=100, power=0.8, rate=2e-3, networks=1,
        calibrating=1.0, folds=2, calibrating_networks=1,
    ),
    32: Schedule(
        steps=300, images=25, power=0.5, rate=2e-3, networks=4,
        calibrating=1.0, folds=5, calibrating_networks=2,
    ),
}  # fmt: skip


def schedule_for(shape: HeadShape) -> Schedule:
    """The schedule of heads of a shape."""
    return SCHEDULES[shape.strides[0]]
