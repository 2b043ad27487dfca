"""CROWDLAB: a weighted mean of what people and a model say."""

from __future__ import annotations

import numpy as np

from model.annotators.base import F64, LEAST_WEIGHT, Crowd, Given, Ints, consensus_of, ratio


def crowdlab(probs: F64, task: Ints, annotator: Ints, label: Ints) -> Crowd:
    """Weigh a model and people by how they agree on the tasks that several people labelled.

    With majority votes, ties decided by the model, as the first guess Y' of the truth, and I+ the
    tasks of more than one label,

    - ``P`` is the mean share of a task's labels that are Y', over I+;
    - ``s_j`` is the share of others' labels of the same tasks that are equal to those of person j;
    - ``E`` is the share of I+ where Y' is not its most common class, the error of knowing nothing;
    - ``w_j = 1 - (1 - s_j) / E``, and of a model that errs on a share e of I+
      ``w_M = (1 - e / E) * sqrt(mean labels a task)``.

    A label is taken for a probability: P for the class given and ``(1 - P) / (C - 1)`` for each
    other. The weighted mean of these and of the model's are the probabilities of a task. Quality of
    a person is ``w Q + (1 - w) A``: Q the mean probability of their labels, A the share of their
    labels in I+ that are the consensus, w the model's part of all weights.

    It orders people and tasks well, but says too little of both: qualities are too low, and
    P(right) is too modest (docs/annotators.md). `likelihood.weigh` is what is used.

    Args:
        probs: ``(N, C)`` of a model that was not fitted on the task's own labels.
        task: ``(L,)`` row of `probs` each label is of; every row has at least one.
        annotator: ``(L,)`` whose label it is; at most one a task.
        label: ``(L,)`` class from 0 to C - 1.

    Returns:
        Independent of the order of labels. Where no two people share a task, `Crowd.why` says so.

    Raises:
        ShapeError: see `Given.of`.
        ModelError: see `Given.of`.

    Source:
        Goh, Tkachenko and Mueller 2022, arXiv:2210.06812. A person without shared tasks has the
        others' mean weight, and no quality; the interval is ours: that of as many labels as the
        two means, one over a part of the other's labels, vary like.
    """
    given = Given.of(probs, task, annotator, label)
    shared, majority, count = given.shared, given.majority, given.count
    if not shared.any():
        return given.unknown()
    usual = np.bincount(majority[shared]).argmax()
    error = max(float((majority != usual)[shared].mean()), LEAST_WEIGHT)
    weight = np.maximum(1.0 - (1.0 - given.agreement) / error, LEAST_WEIGHT)
    weight = np.where(np.isnan(weight), np.nanmean(weight), weight)
    model_error = float((probs.argmax(axis=1) != majority)[shared].mean())
    model_weight = max(1.0 - model_error / error, LEAST_WEIGHT) * float(np.sqrt(count.mean()))

    agreed = given.votes[np.arange(len(probs)), majority] / count
    likely = float(agreed[shared].mean())
    unlikely = (1.0 - likely) / max(probs.shape[1] - 1, 1)
    weighed = np.zeros(probs.shape)
    np.add.at(weighed, (task, label), weight[given.who])
    total = weighed.sum(axis=1, keepdims=True)
    together = model_weight * probs + likely * weighed + unlikely * (total - weighed)
    together /= together.sum(axis=1, keepdims=True)
    consensus = consensus_of(together, majority)

    part = model_weight / (model_weight + float(total.mean()))
    believed = given.sums(together[task, label]) / given.labels
    same = given.sums(shared[task] & (label == consensus[task]))
    quality = part * believed + (1.0 - part) * ratio(same, given.overlap)
    variance = (part**2 + 2.0 * part * (1.0 - part)) / given.labels
    variance += (1.0 - part) ** 2 / np.maximum(given.overlap, 1.0)
    return Crowd(consensus, together, given.annotators(quality, 1.0 / variance), None)
