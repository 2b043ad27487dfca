"""Hybrid: the mean of what other estimators say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.heads.problem import Problem
from model.uncertainty.base import Estimator, FittedEstimator
from model.uncertainty.frame import ProblemFamily

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class Hybrid(ProblemFamily):
    """Fits its members on the same labels and folds; every member counts the same.

    Nothing is learnt about one member by another: the members' probabilities are averaged as they
    are, and calibration acts on the mean.
    """

    def __init__(self, members: Mapping[str, ProblemFamily]) -> None:
        self.members = dict(members)
        self.joint = all(member.joint for member in self.members.values())

    @property
    def passes(self) -> int:
        """K of all members together."""
        return len(self.members) * lcm(*(member.passes for member in self.members.values()))

    def fit_problem(self, problem: Problem) -> FittedEstimator:
        """Fit the members, sharing what they have in common."""
        fitted = {name: family.fit_problem(problem) for name, family in self.members.items()}
        facts = {key: value for found in fitted.values() for key, value in found.facts.items()}
        return FittedEstimator(
            HybridEstimator({name: found.estimator for name, found in fitted.items()}),
            together([found.out_of_fold for found in fitted.values()]),
            facts,
        )

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Estimator:
        """Rebuild from `HybridEstimator.arrays`."""
        members = {}
        for name, family in self.members.items():
            prefix = f"{name}/"
            own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            members[name] = family.restore(own)
        return HybridEstimator(members)


def together(passes: list[F64]) -> F64:
    """Passes of several estimators side by side, repeated so that each estimator counts the same.

    Args:
        passes: ``(N, K_m, C)`` of each estimator.

    Returns:
        ``(N, M * lcm(K_m), C)``.
    """
    most = lcm(*(found.shape[1] for found in passes))
    return np.concatenate([found.repeat(most // found.shape[1], axis=1) for found in passes], 1)


@dataclass(frozen=True)
class HybridEstimator:
    """Estimators by name."""

    members: Mapping[str, Estimator]

    @property
    def passes(self) -> int:
        """K of all members together."""
        return len(self.members) * lcm(*(member.passes for member in self.members.values()))

    def rows(self, features: F32) -> F32:
        """``(N, D)`` features, centred and of length 1: the same for every member."""
        return next(iter(self.members.values())).rows(features)

    def sample_rows(self, rows: F32) -> F64:
        """``(N, D)`` rows to probabilities ``(N, K, C)``."""
        return together([member.sample_rows(rows) for member in self.members.values()])

    def sample(self, features: F32) -> F64:
        """``(N, D)`` features to probabilities ``(N, K, C)``."""
        return self.sample_rows(self.rows(features))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Those of the members, each name after the member's."""
        return {
            f"{name}/{key}": value
            for name, member in self.members.items()
            for key, value in member.arrays().items()
        }
