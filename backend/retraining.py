"""When to train, and whether a trained version may go live. Pure: numbers in, a reason out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

# A version is held back only when it is worse beyond what chance explains this often.
SIGNIFICANCE = 0.05
# One label alone fits nothing.
FEWEST = 2


@dataclass(frozen=True)
class Decision:
    """Whether to train now; if not, in how many seconds that may change by itself."""

    due: bool
    reason: str
    wait_s: float | None = None


def round_size(labels: int, *, retrain_after: int, retrain_growth: float) -> int:
    """Labels one round asks for: `retrain_after`, growing to that share of the labels."""
    return max(retrain_after, math.ceil(retrain_growth * labels))


def decide(
    *,
    new: int,
    labels: int,
    quiet_for_s: float | None,
    requested: str | None,
    outdated: bool,
    retrain_after: int,
    retrain_growth: float,
    quiet_s: float,
    held: str | None = None,
) -> Decision:
    """Say whether a project should train now.

    Args:
        new: label changes since the newest version was trained.
        labels: labelled tasks.
        quiet_for_s: seconds since the last label change; ``None`` when there was none.
        requested: why somebody asked for a training, or ``None``.
        outdated: the live version was trained for other classes than the project has now, or on
            features of another backbone.
        retrain_after: changes that start a training.
        retrain_growth: share of the labels that starts one when that is more.
        quiet_s: seconds without a change after which even one starts a training.
        held: why the live version has to stay for now unless somebody asks otherwise, or ``None``.
    """
    if labels < FEWEST:
        return Decision(False, f"{labels} of the {FEWEST} labels a first training needs")
    if requested is not None:
        return Decision(True, requested)
    if held is not None:
        return Decision(False, held)
    if outdated:
        return Decision(True, "the classes of the project, or the backbone, have changed")
    if new <= 0:
        return Decision(False, "nothing new since the last training")
    enough = round_size(labels, retrain_after=retrain_after, retrain_growth=retrain_growth)
    if new >= enough:
        return Decision(True, f"{new} new labels")
    if quiet_for_s is not None and quiet_for_s >= quiet_s:
        return Decision(True, f"{new} new labels and {quiet_for_s:.0f} s of quiet")
    wait = None if quiet_for_s is None else quiet_s - quiet_for_s
    return Decision(False, f"{new} of {enough} new labels", wait)


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate goes live, and why."""

    promote: bool
    reason: str


def compare(
    candidate: Mapping[int, bool], live: Mapping[int, bool] | None, *, outdated: bool = False
) -> Verdict:
    """Compare two versions on the random-share tasks both were judged on.

    Both sides must be judged on labels they were not fitted to. A candidate is held back only
    when an exact one-sided sign test over the tasks on which just one of the two is right says
    that it is worse: with few random labels that cannot happen, and newer labels win.

    Args:
        candidate: task -> whether the candidate is right, out of fold.
        live: the same of the live version; ``None`` when there is none to compare with.
        outdated: the live version was trained for other classes, or on another backbone.
    """
    if live is None:
        return Verdict(True, "the first trained version")
    if outdated:
        return Verdict(True, "the live version was trained for other classes or another backbone")
    common = candidate.keys() & live.keys()
    wins = sum(candidate[i] and not live[i] for i in common)
    losses = sum(live[i] and not candidate[i] for i in common)
    right = sum(candidate[i] for i in common)
    right_live = sum(live[i] for i in common)
    facts = f"right on {right} of {len(common)} random labels, the live version on {right_live}"
    p_value = sum(comb(wins + losses, k) for k in range(wins + 1)) / 2 ** (wins + losses)
    if losses > wins and p_value < SIGNIFICANCE:
        return Verdict(False, f"worse than the live version: {facts} (p = {p_value:.3f})")
    return Verdict(True, facts if common else "no random labels to compare on yet")
