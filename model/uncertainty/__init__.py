"""Uncertainty estimators by name; a new one is a new file and one line here."""

from __future__ import annotations

from model.registry import Registry
from model.uncertainty.base import Estimator, EstimatorFamily, FittedEstimator
from model.uncertainty.ensemble import NetworkEnsemble
from model.uncertainty.evidential import Evidential
from model.uncertainty.hybrid import Hybrid
from model.uncertainty.laplace import LastLayerLaplace
from model.uncertainty.mc_dropout import FeatureDropout
from model.uncertainty.softmax import AveragedHeads

__all__ = ["DEFAULT_ESTIMATOR", "ESTIMATORS", "Estimator", "EstimatorFamily", "FittedEstimator"]

DEFAULT_ESTIMATOR = "evidential"  # why: docs/adr/estimators-on-cached-features.md

ESTIMATORS: Registry[EstimatorFamily] = Registry("uncertainty estimator")
ESTIMATORS.register("softmax")(AveragedHeads())
ESTIMATORS.register("mc-dropout")(FeatureDropout())
ESTIMATORS.register("ensemble")(NetworkEnsemble())
ESTIMATORS.register("laplace")(LastLayerLaplace())
ESTIMATORS.register("evidential")(Evidential())
ESTIMATORS.register("hybrid")(Hybrid({"mc-dropout": FeatureDropout(), "evidential": Evidential()}))
