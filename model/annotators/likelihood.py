"""The most likely qualities of people, the truth being known as far as people and model tell it."""

from __future__ import annotations

import numpy as np

from model.annotators.base import F64, Crowd, Given, Ints, consensus_of

# What is expected of somebody before any label of theirs is judged; it counts as two labels.
USUAL_QUALITY, USUAL_LABELS = 0.8, 2.0
# How often the model may know nothing at all of an image: without it a probability of 0 could not
# be outvoted. From 0 to 0.03 it makes no difference on simulated people.
MODEL_LOST = 0.01
MOST_ROUNDS, CLOSE = 500, 1e-7
_TINY = 1e-12


def weigh(probs: F64, task: Ints, annotator: Ints, label: Ints) -> Crowd:
    """Estimate together which labels are right and how often each person is.

    Person j gives the right class with probability q_j and each other with
    ``(1 - q_j) / (C - 1)``, independently of the others and of the model, whose probabilities are
    what is known beforehand of a task. Expectation maximisation over the tasks with several labels
    finds the q; tasks of one label say less of the person than of the model, which may err where
    people do, and are weighed by the q found.

    The interval counts as many labels as the shared ones are worth after what is not known of
    them: ``n - sum(p (1 - p)) / (q (1 - q))``, p the probabilities that they are right.

    It takes what CROWDLAB takes (`crowdlab.crowdlab`), and its numbers are to be taken literally
    where people err independently. Where they and the model fall for the same images it believes
    all of them too much: qualities are a little too high, intervals too narrow. Measured in
    docs/annotators.md.

    Args:
        probs: ``(N, C)`` of a model that was not fitted on the task's own labels, calibrated.
        task: ``(L,)`` row of `probs` each label is of; every row has at least one.
        annotator: ``(L,)`` whose label it is; at most one a task.
        label: ``(L,)`` class from 0 to C - 1.

    Returns:
        Independent of the order of labels. Where no two people share a task, `Crowd.why` says so.

    Raises:
        ShapeError: see `Given.of`.
        ModelError: see `Given.of`.

    Source:
        Dawid and Skene 1979 with one quality a person, and the model as the prior of each task;
        what is missing of the information by Louis 1982.
    """
    given = Given.of(probs, task, annotator, label)
    if not given.shared.any():
        return given.unknown()
    classes = probs.shape[1]
    prior = np.log((1.0 - MODEL_LOST) * probs + MODEL_LOST / classes)
    is_shared = given.shared[task]
    overlap = given.overlap
    quality = np.full(len(given.people), USUAL_QUALITY)
    for _ in range(MOST_ROUNDS):
        together = _posterior(prior, given, quality)
        right = given.sums(np.where(is_shared, together[task, label], 0.0))
        found = (right + USUAL_QUALITY * USUAL_LABELS) / (overlap + USUAL_LABELS)
        moved, quality = float(np.abs(found - quality).max()), found
        if moved < CLOSE:
            break
    # Whose labels nobody can judge is taken to be as good as the others.
    known = overlap > 0.0
    quality = np.where(known, quality, quality[known].mean())
    together = _posterior(prior, given, quality)
    p = together[task, label]
    doubt = given.sums(np.where(is_shared, p * (1.0 - p), 0.0))
    missing = doubt / np.maximum(quality * (1.0 - quality), _TINY)
    worth = np.maximum(overlap - missing, 0.0) + USUAL_LABELS
    consensus = consensus_of(together, given.majority)
    return Crowd(consensus, together, given.annotators(quality, worth), None)


def _posterior(prior: F64, given: Given, quality: F64) -> F64:
    """``(N, C)`` probabilities of the classes, people's qualities being given."""
    others = max(given.probs.shape[1] - 1, 1)
    gain = np.log(quality) - np.log((1.0 - quality) / others)
    logits = prior.copy()
    np.add.at(logits, (given.task, given.label), gain[given.who])
    logits -= logits.max(axis=1, keepdims=True)
    weights: F64 = np.exp(logits)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
