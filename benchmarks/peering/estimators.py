"""Uncertainty of other libraries on the same features and labels: probabilities out, (E, C).

Each handler is given ``rows`` (N, D) with ``labels`` (N,), ``n_classes``, ``seed``, the rows to
judge ``judged`` (E, D), and the same in the coordinates of the labelled rows' span,
``span_rows`` (N, R + 1) and ``span_judged`` (E, R + 1): the last one is the length of what is
outside the span. For a linear model with a round prior nothing is lost by that, and it is many
times cheaper. ``weights`` (D, C) and ``biases`` (C,) are the plain head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peering.strategies import softmax

F64 = NDArray[np.float64]

L2 = 0.05
PASSES = 20
DROPOUT = 0.5
SAMPLES = 100
MEMBERS = 10
FOLDS = 5

Given = dict[str, Any]
HANDLERS: dict[str, Callable[[Given], dict[str, Any]]] = {}


def estimator(name: str) -> Callable[[Callable[[Given], F64]], Callable[[Given], F64]]:
    def add(function: Callable[[Given], F64]) -> Callable[[Given], F64]:
        HANDLERS[name] = lambda given: {"probs": function(given)}
        return function

    return add


def _all_classes(probs: Any, classes: Any, given: Given) -> F64:
    """Columns of the classes that were seen to columns of all."""
    found = np.zeros((len(probs), int(given["n_classes"])))
    found[:, np.asarray(classes, np.int64)] = np.asarray(probs, np.float64)
    return found


@estimator("softmax of the plain head")
def plain(given: Given) -> F64:
    return softmax(given["judged"] @ given["weights"] + given["biases"])


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0 / L2, max_iter=1000)


def _calibrated(method: str) -> Callable[[Given], F64]:
    def fit(given: Given) -> F64:
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.model_selection import KFold

        # As a list of splits: given a number, it refuses classes with fewer examples than folds.
        dealer = KFold(FOLDS, shuffle=True, random_state=int(given["seed"]))
        splits = list(dealer.split(given["span_rows"]))
        model = CalibratedClassifierCV(_logistic(), method=method, cv=splits, ensemble=False)
        model.fit(given["span_rows"], given["labels"])
        return _all_classes(model.predict_proba(given["span_judged"]), model.classes_, given)

    return fit


estimator("scikit-learn: sigmoid")(_calibrated("sigmoid"))
estimator("scikit-learn: isotonic")(_calibrated("isotonic"))
estimator("scikit-learn: temperature by NLL")(_calibrated("temperature"))


@estimator("scikit-learn: bagging of 10")
def bagging(given: Given) -> F64:
    from sklearn.ensemble import BaggingClassifier

    model = BaggingClassifier(_logistic(), MEMBERS, random_state=int(given["seed"]))
    model.fit(given["span_rows"], given["labels"])
    return _all_classes(model.predict_proba(given["span_judged"]), model.classes_, given)


@estimator("laplace-torch: last layer")
def laplace(given: Given) -> F64:
    """Kronecker factors, prior precision by marginal likelihood, on the plain head."""
    import torch
    from laplace import Laplace
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(int(given["seed"]))
    seen, labels = np.unique(given["labels"], return_inverse=True)
    rows = torch.from_numpy(given["span_rows"])
    layer = torch.nn.Linear(rows.shape[1], len(seen))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(given["span_weights"][:, seen].T.copy()))
        layer.bias.copy_(torch.from_numpy(given["biases"][seen]))
    network = torch.nn.Sequential(layer)
    loader = DataLoader(TensorDataset(rows, torch.from_numpy(labels)), batch_size=256)
    posterior = Laplace(
        network, "classification", subset_of_weights="all", hessian_structure="kron"
    )
    posterior.fit(loader)
    posterior.optimize_prior_precision(method="marglik")
    judged = torch.from_numpy(given["span_judged"])
    # Sampled: the linearised predictive holds a Jacobian of items x classes x all weights.
    with torch.no_grad():
        probs = posterior(judged, pred_type="nn", link_approx="mc", n_samples=SAMPLES)
    return _all_classes(probs.numpy(), seen, given)


@estimator("baal: mc-dropout on the features")
def mc_dropout(given: Given) -> F64:
    """20 passes of `baal.bayesian.dropout` before the plain head's layer."""
    import torch
    from baal.bayesian.dropout import MCDropoutModule

    torch.manual_seed(int(given["seed"]))
    layer = torch.nn.Linear(*given["weights"].shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(given["weights"].T.copy()))
        layer.bias.copy_(torch.from_numpy(given["biases"]))
    module = MCDropoutModule(torch.nn.Sequential(torch.nn.Dropout(DROPOUT), layer)).eval()
    judged = torch.from_numpy(given["judged"])
    with torch.no_grad():
        passes = [softmax(module(judged).numpy()) for _ in range(PASSES)]
    return np.mean(passes, axis=0)
