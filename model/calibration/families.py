"""Calibrators by name; a new one is a new file and one line here."""

from __future__ import annotations

from model.calibration.base import CalibratorFamily
from model.calibration.scaling import Identity, Temperature, VectorScaling
from model.calibration.top import Isotonic, Platt
from model.registry import Registry

CALIBRATORS: Registry[CalibratorFamily] = Registry("calibrator")
CALIBRATORS.register("none")(Identity())
CALIBRATORS.register("temperature")(Temperature())
CALIBRATORS.register("temperature-likelihood")(Temperature("likelihood"))
CALIBRATORS.register("platt")(Platt())
CALIBRATORS.register("selection")(Platt(selection=True))
CALIBRATORS.register("vector")(VectorScaling())
CALIBRATORS.register("isotonic")(Isotonic())
