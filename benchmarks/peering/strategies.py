"""Query strategies of other libraries, each as its authors wrote it, with its default settings.

All are given the same fitted classifier: logits ``rows @ weights + biases``. Those that compare
several models are given K joint samples of its last-layer Laplace posterior (`_plain.posterior`).
A library is imported inside the function that uses it, so that this table can be read anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
F64 = NDArray[np.float64]

TARGETS = 100  # of EPIG: items that stand for the pool
BLOCK_ITEMS = 50  # of EPIG: its joint probabilities are a table items x classes x targets x classes
# BatchBALD's joint entropy cannot be afforded for a whole pool: it chooses among the items with the
# largest BALD, from this many sampled label combinations.
BATCHBALD_CANDIDATES = 100
BATCHBALD_SAMPLES = 300


@dataclass(frozen=True)
class Ask:
    """What a strategy is asked with.

    Attributes:
        rows: ``(M, D)`` features of the whole pool, as the classifier takes them.
        labelled: ``(L,)`` rows with a label, ``labels`` their classes.
        candidates: ``(U,)`` rows without.
        n: how many of them are wanted.
        n_classes: C.
        weights: ``(D, C)``, ``biases`` ``(C,)``: the classifier.
        sample_weights: ``(K, D, C)``, ``sample_biases`` ``(K, C)``: its posterior, when sent.
        seed: of everything random.
    """

    rows: NDArray[np.float32]
    labelled: Ints
    labels: Ints
    candidates: Ints
    n: int
    n_classes: int
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    seed: int
    sample_weights: NDArray[np.float32] | None = None
    sample_biases: NDArray[np.float32] | None = None

    def posterior_probs(self) -> F64:
        """Probabilities of the candidates by each sample of the posterior."""
        assert self.sample_weights is not None
        assert self.sample_biases is not None
        rows = self.rows[self.candidates]
        each = [
            softmax(rows @ weights + biases)
            for weights, biases in zip(self.sample_weights, self.sample_biases, strict=True)
        ]
        return np.stack(each, axis=1)


Strategy = Callable[[Ask], Ints]
STRATEGIES: dict[str, Strategy] = {}
NEEDS_SAMPLES: set[str] = set()


def strategy(name: str, *, samples: bool = False) -> Callable[[Strategy], Strategy]:
    """Register under ``library: strategy``; `samples` when the posterior is needed."""

    def add(function: Strategy) -> Strategy:
        STRATEGIES[name] = function
        if samples:
            NEEDS_SAMPLES.add(name)
        return function

    return add


def softmax(logits: NDArray[Any]) -> F64:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    np.exp(wide, out=wide)
    wide /= wide.sum(axis=-1, keepdims=True)
    return wide


# ---- scikit-activeml ----------------------------------------------------------------------------


def _skactiveml(
    class_name: str, *, model: str | None = None, classes: bool = False, **settings: Any
) -> Strategy:
    """A strategy of `skactiveml.pool` by its class; `model` is the argument it takes the model in.

    `classes` when its constructor wants to know how many there are.
    """

    def query(ask: Ask) -> Ints:
        import skactiveml.pool

        y = np.full(len(ask.rows), np.nan)
        y[ask.labelled] = ask.labels
        given: dict[str, Any] = {}
        if model == "ensemble":
            assert ask.sample_weights is not None
            assert ask.sample_biases is not None
            pairs = zip(ask.sample_weights, ask.sample_biases, strict=True)
            given = {"ensemble": [_classifier(*pair) for pair in pairs], "fit_ensemble": False}
        elif model is not None:
            fit = "fit_estimator" if model == "estimator" else "fit_clf"
            given = {model: _classifier(ask.weights, ask.biases), fit: False}
        known = {"n_classes": ask.n_classes} if classes else {}
        rule = getattr(skactiveml.pool, class_name)(random_state=ask.seed, **known, **settings)
        found = rule.query(ask.rows, y, candidates=ask.candidates, batch_size=ask.n, **given)
        return np.asarray(found, np.int64)

    return query


def _classifier(weights: NDArray[np.float32], biases: NDArray[np.float32]) -> Any:
    """The linear classifier as one of scikit-activeml's, already fitted."""
    from skactiveml.base import SkactivemlClassifier

    class Fitted(SkactivemlClassifier):
        def __init__(
            self,
            weights: Any = None,
            biases: Any = None,
            classes: Any = None,
            missing_label: float = np.nan,
            cost_matrix: Any = None,
            random_state: Any = None,
        ) -> None:
            super().__init__(
                classes=classes,
                missing_label=missing_label,
                cost_matrix=cost_matrix,
                random_state=random_state,
            )
            self.weights = weights
            self.biases = biases

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self._validate_data(X, y, sample_weight)
            return self

        def predict_proba(self, X: Any) -> F64:
            return softmax(np.asarray(X, np.float32) @ self.weights + self.biases)

    classes = np.arange(len(biases))
    fitted = Fitted(weights, biases, classes=classes)
    return fitted.fit(np.zeros((len(classes), len(weights)), np.float32), classes)


for _method in ("entropy", "margin_sampling", "least_confident"):
    _name = {"margin_sampling": "margin", "least_confident": "least-confidence"}.get(_method)
    strategy(f"scikit-activeml: {_name or _method}")(
        _skactiveml("UncertaintySampling", model="clf", method=_method)
    )
strategy("scikit-activeml: typiclust")(_skactiveml("TypiClust"))
strategy("scikit-activeml: dropquery")(_skactiveml("DropQuery", model="clf"))
strategy("scikit-activeml: falcun")(_skactiveml("Falcun", model="clf"))
strategy("scikit-activeml: clue")(_skactiveml("Clue", model="estimator"))
strategy("scikit-activeml: coreset")(_skactiveml("CoreSet"))
strategy("scikit-activeml: probcover")(_skactiveml("ProbCover", classes=True))
strategy("scikit-activeml: maxherding")(_skactiveml("MaxHerding"))
strategy("scikit-activeml: contrastive-al")(_skactiveml("ContrastiveAL", model="clf"))
strategy("scikit-activeml: badge")(_skactiveml("Badge", model="clf"))
strategy("scikit-activeml: greedy-bald", samples=True)(_skactiveml("GreedyBALD", model="ensemble"))
strategy("scikit-activeml: batchbald", samples=True)(_skactiveml("BatchBALD", model="ensemble"))


# ---- baal ---------------------------------------------------------------------------------------


def _baal(class_name: str) -> Strategy:
    """A heuristic of baal: it ranks predictions ``(N, C, K)``."""

    def query(ask: Ask) -> Ints:
        from baal.active import heuristics

        predictions = ask.posterior_probs().transpose(0, 2, 1)
        ranks = getattr(heuristics, class_name)()(predictions)
        return ask.candidates[np.asarray(ranks)[: ask.n]]

    return query


strategy("baal: margin", samples=True)(_baal("Margin"))
strategy("baal: entropy", samples=True)(_baal("Entropy"))
strategy("baal: certainty", samples=True)(_baal("Certainty"))
strategy("baal: bald", samples=True)(_baal("BALD"))


@strategy("baal: power-bald", samples=True)
def power_bald(ask: Ask) -> Ints:
    """BALD drawn in proportion (Kirsch et al. 2021)."""
    from baal.active.heuristics import BALD
    from baal.active.heuristics.stochastics import PowerSampling

    rule = PowerSampling(BALD(), query_size=ask.n)
    # Not by calling the rule: in 2.1.0 that passes one argument more than it takes.
    ranks, _ = rule.get_ranks(ask.posterior_probs().transpose(0, 2, 1))
    return ask.candidates[ranks[: ask.n]]


@strategy("baal: batchbald", samples=True)
def baal_batchbald(ask: Ask) -> Ints:
    import torch
    from baal.active.heuristics import BatchBALD

    torch.manual_seed(ask.seed)
    passes = ask.posterior_probs()
    near = _largest_bald(passes)
    ranks = BatchBALD(num_samples=min(ask.n, len(near)))(passes[near].transpose(0, 2, 1))
    return ask.candidates[near[np.asarray(ranks)[: ask.n]]]


@strategy("baal: epig", samples=True)
def epig(ask: Ask) -> Ints:
    """Expected predictive information gain over a random part of the pool."""
    from baal.active.heuristics import EPIG

    passes = ask.posterior_probs().transpose(0, 2, 1)
    drawn = np.random.default_rng(ask.seed).permutation(len(passes))[:TARGETS]
    rule = EPIG()
    scores = [
        rule.get_uncertainties(passes[start : start + BLOCK_ITEMS], passes[drawn])
        for start in range(0, len(passes), BLOCK_ITEMS)
    ]
    return ask.candidates[rule.reorder_indices(np.concatenate(scores))[: ask.n]]


# ---- batchbald_redux ----------------------------------------------------------------------------


@strategy("batchbald-redux: batchbald", samples=True)
def batchbald(ask: Ask) -> Ints:
    import torch
    from batchbald_redux.batchbald import get_batchbald_batch

    torch.manual_seed(ask.seed)
    passes = ask.posterior_probs()
    near = _largest_bald(passes)
    log_probs = torch.log(torch.from_numpy(passes[near]).clamp_min(1e-12))
    batch = get_batchbald_batch(log_probs, ask.n, BATCHBALD_SAMPLES, dtype=torch.double)
    return ask.candidates[near[np.array(batch.indices, np.int64)]]


def _largest_bald(passes_UKC: F64) -> Ints:
    from baal.active.heuristics import BALD

    return np.asarray(BALD()(passes_UKC.transpose(0, 2, 1)))[:BATCHBALD_CANDIDATES]


# ---- modAL --------------------------------------------------------------------------------------


def _modal(module: str, function: str) -> Strategy:
    def query(ask: Ask) -> Ints:
        import importlib

        from modAL.models import ActiveLearner
        from sklearn.base import BaseEstimator, ClassifierMixin

        class Fitted(ClassifierMixin, BaseEstimator):
            def fit(self, X: Any, y: Any) -> Any:
                return self

            def predict_proba(self, X: Any) -> F64:
                return softmax(np.asarray(X, np.float32) @ ask.weights + ask.biases)

        learner = ActiveLearner(
            estimator=Fitted(), X_training=ask.rows[ask.labelled], y_training=ask.labels
        )
        rule = getattr(importlib.import_module(module), function)
        found = rule(learner, ask.rows[ask.candidates], n_instances=ask.n)
        return ask.candidates[np.asarray(found[0] if isinstance(found, tuple) else found)]

    return query


strategy("modAL: uncertainty")(_modal("modAL.uncertainty", "uncertainty_sampling"))
strategy("modAL: margin")(_modal("modAL.uncertainty", "margin_sampling"))
strategy("modAL: entropy")(_modal("modAL.uncertainty", "entropy_sampling"))
strategy("modAL: ranked-batch")(_modal("modAL.batch", "uncertainty_batch_sampling"))


def _handler(query: Strategy) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def handle(arrays: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: int(arrays[name]) for name in ("n", "n_classes", "seed")}
        # Some draw from numpy's global generator whatever they are given: k-means inside DropQuery
        # and Clue of scikit-activeml, the stochastic rules of baal, ties in modAL.
        np.random.seed(numbers["seed"])
        return {"chosen": query(Ask(**{**arrays, **numbers}))}

    return handle


HANDLERS = {name: _handler(query) for name, query in STRATEGIES.items()}
