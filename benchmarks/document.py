"""Write the measured tables and pictures of docs/uncertainty.md from benchmarks/results.

    ./run bench document

Tables stand between `<!-- NAME -->` and `<!-- end NAME -->`; what is between is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from _pictures import bars, error_by_score, reliability_diagram
from _summary import OURS, OVERFITTED, PLAIN, PUBLISHED
from common import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "uncertainty.md"
PICTURES = ROOT / "docs" / "images"
SETS = ("grocery", "sign_digits")
PICTURED = "200"  # labels
PARTS = ("margin", "total", "aleatoric", "epistemic")
SCORES = {  # in the pictures: colour and name
    PUBLISHED: ("s0", "published"),
    PLAIN: ("s1", "overfitted: softmax"),
    OVERFITTED: ("s2", "overfitted: published"),
}

Result = dict[str, Any]


def main() -> None:
    results = {name: read(f"uncertainty_{name}") for name in SETS}
    drawn = {name: read(f"uncertainty_{name}_drawn") for name in SETS}
    costs = read("uncertainty_costs")
    page = filled(PAGE.read_text(encoding="utf-8"), tables(results, drawn, costs))
    PAGE.write_text(page, encoding="utf-8")
    for name, svg in pictures(results, costs).items():
        (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"written: {PAGE} and its pictures")


def read(name: str) -> Result:
    """One result as it is."""
    found: Result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def filled(page: str, parts: dict[str, str]) -> str:
    """The page with every part between its marks.

    Example:
        >>> filled("a <!-- x -->old<!-- end x --> b", {"x": "new"})
        'a <!-- x -->\\nnew\\n<!-- end x --> b'
    """
    for name, text in parts.items():
        marks = re.compile(rf"(<!-- {name} -->).*?(<!-- end {name} -->)", re.DOTALL)
        page, count = marks.subn(lambda m, text=text: f"{m[1]}\n{text}\n{m[2]}", page)
        if count != 1:
            raise SystemExit(f"the page has the marks of '{name}' {count} times, not once")
    return page


def tables(results: dict[str, Result], drawn: dict[str, Result], costs: Result) -> dict[str, str]:
    """Every table by the name of its marks.

    Args:
        results: by the name of the set.
        drawn: the same with all labels drawn by chance.
        costs: of `--costs`.
    """
    return {
        "promise": _promise(results),
        "overfitted": _overfitted(results),
        "parts": _parts(results),
        "drawn": _overfitted(drawn),
        **{f"estimators {name}": _estimators(found) for name, found in results.items()},
        "shifted": _shifted(results["grocery"]),
        "costs": _costs(costs),
        "work": _work(costs),
    }


def pictures(results: dict[str, Result], costs: Result) -> dict[str, str]:
    """Every picture by the name of its file."""
    drawn = {}
    for name, result in results.items():
        found = result["labels"][PICTURED]["places"]["pool"]["reliability"]
        scores = {title: (colour, found[key]) for key, (colour, title) in SCORES.items()}
        label = f"{name}, {PICTURED} labels"
        drawn[f"reliability_{name}"] = reliability_diagram(scores, f"reliability, {label}")
        drawn[f"errors_{name}"] = error_by_score(found[PUBLISHED], f"errors by score, {label}")
    one = costs["requests"]["1"]
    dropout = one["full_network_dropout"]
    values = {"the networks, bare": 1000.0 * one["bare_forward_s_an_image"]}
    values |= {name: 1000.0 * value for name, value in one["predict_s_an_image"].items()}
    values["dropout, 20 passes"] = 1000.0 * dropout["s_an_image"]
    marked = ("the networks, bare", "dropout, 20 passes")
    drawn["costs"] = bars(values, "ms", "Milliseconds an image, logarithmic", marked=marked)
    return drawn


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown; the first column left, the others right."""
    names = list(head)
    lines = [names, ["---", *("---:" for _ in names[1:])], *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(row: Result, key: str, *, error: bool = False) -> str:
    """A measure, with its standard error if wanted."""
    if row.get(key) is None:
        return "–"
    text = f"{row[key]['mean']:.3f}"
    return f"{text} ± {row[key]['se']:.3f}" if error and row[key]["se"] is not None else text


def _methods(result: Result, labels: str, place: str = "pool") -> Result:
    found: Result = result["labels"][labels]["places"][place]["methods"]
    return found


def _promise(results: dict[str, Result]) -> str:
    rows = []
    for name, result in results.items():
        for labels, found in result["labels"].items():
            there = found["places"]["pool"]
            row = there["methods"][OURS + PUBLISHED]
            apart = there["published_against_best"]
            falls = there["reliability"][PUBLISHED]["is_monotone"]
            rows.append(
                (
                    f"{name}, {labels}",
                    mean(row, "accuracy"),
                    mean(row, "ece", error=True),
                    mean(row, "ece_if_perfect"),
                    mean(row, "error_auroc", error=True),
                    f"{mean(apart, 'error_auroc', error=True)} ({apart['best']})",
                    "falls" if falls else "does not fall",
                )
            )
    head = (
        "set, labels",
        "accuracy",
        "ECE",
        "ECE if true",
        "error-AUROC",
        "less the best other's",
        "error over 10 bins",
    )
    return table(head, rows)


def _overfitted(results: dict[str, Result]) -> str:
    rows = []
    for name, result in results.items():
        for labels, found in result["labels"].items():
            methods = _methods(result, labels)
            own, plain = methods[OURS + OVERFITTED], methods[PLAIN]
            rows.append(
                (
                    f"{name}, {labels}",
                    f"{found['overfitted_train_accuracy']:.0%}",
                    mean(plain, "accuracy"),
                    mean(plain, "ece", error=True),
                    mean(own, "ece", error=True),
                )
            )
    head = ("set, labels", "right on its labels", "on the pool", "ECE, softmax", "ECE, published")
    return table(head, rows)


def _estimators(result: Result) -> str:
    counts = list(result["labels"])
    methods = {n: _methods(result, n) for n in counts}
    names = [name for name in methods[counts[-1]] if all(name in methods[n] for n in counts)]
    names.sort(key=lambda name: -sum(methods[n][name]["error_auroc"]["mean"] for n in counts))

    def cells(name: str, key: str) -> str:
        return " / ".join(mean(methods[n][name], key) for n in counts)

    keys = ("ece", "error_auroc", "augrc", "accuracy")
    head = ("scores", "ECE", "error-AUROC", "AUGRC (less is better)", "accuracy")
    return table(head, ((_shown(name), *(cells(name, key) for key in keys)) for name in names))


def _parts(results: dict[str, Result]) -> str:
    keys = ("error_auroc", *(f"error_auroc_{part}" for part in PARTS))
    others = ("softmax", "laplace", "mc-dropout", "ensemble", "evidential")
    names = (PUBLISHED, *(name for name in others if name != PUBLISHED))
    rows = []
    for name in names:
        for set_name, result in results.items():
            row = _methods(result, PICTURED)[OURS + name]
            rows.append((f"{name}, {set_name}", *(mean(row, key) for key in keys)))
    return table((f"error-AUROC, {PICTURED} labels", "P(right)", *PARTS), rows)


def _shown(name: str) -> str:
    ours = name.startswith(OURS)
    short = name.removeprefix(OURS)
    if short == PUBLISHED:
        return f"**{short}** (default)"
    return f"{short}, published" if short == OVERFITTED else f"**{short}**" if ours else short


def _shifted(result: Result) -> str:
    rows = []
    for labels in result["labels"]:
        row = {
            place: _methods(result, labels, place)[OURS + PUBLISHED] for place in ("pool", "test")
        }
        falls = result["labels"][labels]["places"]["test"]["reliability"][PUBLISHED]["is_monotone"]
        cells = [
            f"{mean(row['pool'], key)} / {mean(row['test'], key)}"
            for key in ("accuracy", "ece", "error_auroc")
        ]
        rows.append((labels, *cells, "falls" if falls else "does not fall"))
    head = (
        "labels",
        "accuracy, pool / shifted",
        "ECE",
        "error-AUROC",
        "error over 10 bins, shifted",
    )
    return table(head, rows)


def _costs(costs: Result) -> str:
    one, many = costs["requests"]["1"], costs["requests"]["8"]
    rows = []
    for name in one["predict_s_an_image"]:
        if name == OVERFITTED:
            continue
        rows.append(
            (
                name + (" (default)" if name == PUBLISHED else ""),
                f"{1000 * one['predict_s_an_image'][name]:.2f}",
                f"{one['ratio_to_bare'][name]:.3f}",
                f"{many['ratio_to_bare'][name]:.3f}",
                f"{costs['queue']['scoring_s'][name]:.1f}",
                f"{costs['queue']['scoring_ratio_to_bare_forward'][name]:.4f}",
                f"{costs['retraining']['seconds'][name]:.2f}",
            )
        )
    dropout = [each["full_network_dropout"] for each in (one, many)]
    ratios = [f"{each['ratio_to_its_own_single_pass']:.1f}" for each in dropout]
    ms = f"{1000 * dropout[0]['s_an_image']:.0f}"
    rows.append(("dropout through the network, 20 passes", ms, *ratios, "–", "–", "–"))
    head = (
        "estimator",
        "ms an image",
        "ratio to bare, 1 image",
        "8 images",
        "100,000 cached, s",
        "ratio to bare",
        "retraining, s",
    )
    return table(head, rows)


def _work(costs: Result) -> str:
    training, queue = costs["retraining"], costs["queue"]
    bare = costs["requests"]["1"]["bare_forward_s_an_image"]
    return (
        f"Bare forward pass of both networks: {1000 * bare:.1f} ms an image. Retraining: "
        f"{training['labels']:,} labels x {training['features']:,} features x "
        f"{training['classes']} classes with calibration and label propagation over "
        f"{training['pool']:,} images, {training['seconds'][PUBLISHED]:.2f} s. Choosing the next "
        f"{queue['chosen']} of {queue['items']:,}: {queue['choosing_s']:.1f} s. Scoring "
        f"{queue['items']:,} from cached features: {queue['scoring_s'][PUBLISHED]:.1f} s. "
        "One thread."
    )


if __name__ == "__main__":
    main()
