from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest


@pytest.fixture
def document() -> ModuleType:
    return importlib.import_module("document")


@pytest.fixture
def summary() -> ModuleType:
    return importlib.import_module("_summary")


def test_the_page_says_what_was_measured(document: ModuleType) -> None:
    results = {name: document.read(f"uncertainty_{name}") for name in document.SETS}
    drawn = {name: document.read(f"uncertainty_{name}_drawn") for name in document.SETS}
    costs = document.read("uncertainty_costs")
    page = document.PAGE.read_text(encoding="utf-8")
    assert document.filled(page, document.tables(results, drawn, costs)) == page
    for name, svg in document.pictures(results, costs).items():
        ElementTree.fromstring(svg)
        assert (document.PICTURES / f"{name}.svg").read_text(encoding="utf-8") == svg
        assert f"(images/{name}.svg)" in page


def test_a_page_without_its_marks_is_refused(document: ModuleType) -> None:
    with pytest.raises(SystemExit, match="'x' 0 times"):
        document.filled("nothing", {"x": "new"})


def test_bars_grow_with_the_logarithm() -> None:
    pictures = importlib.import_module("_pictures")
    svg = pictures.bars({"a": 1.0, "b": 10.0, "c": 100.0}, "ms", "title")
    drawn = [
        float(node.attrib["width"])
        for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
        if "style" in node.attrib
    ]
    assert drawn[0] == 1.0
    assert drawn[2] == pytest.approx(2 * drawn[1])


def run(summary: ModuleType, **auroc: float) -> dict[str, Any]:
    return {"measured": {"pool": {name: {"error_auroc": value} for name, value in auroc.items()}}}


def test_the_published_score_is_compared_seed_by_seed_with_the_best_other(
    summary: ModuleType,
) -> None:
    published, overfitted = summary.OURS + summary.PUBLISHED, summary.OURS + summary.OVERFITTED
    runs = [
        run(summary, **{published: 0.8, "b": 0.9, overfitted: 1.0}),
        run(summary, **{published: 0.7, "b": 0.7, overfitted: 1.0}),
    ]
    found = summary.against(runs, "pool", [overfitted, "b", published])
    assert found["best"] == "b"
    assert found["error_auroc"] == {"mean": -0.05, "se": 0.05}
    alone = summary.against([run(summary, **{published: 0.8})], "pool", [published, "b"])
    assert alone == {"best": "b"}


def test_the_network_descends_the_slopes_that_torch_finds() -> None:
    torch = pytest.importorskip("torch")
    overfitted = importlib.import_module("_overfitted")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 5)).astype(np.float32)
    labels = np.arange(12) % 3
    sizes = ((5, 4), (4, 4), (4, 3))
    weights = [rng.normal(size=size).astype(np.float32) for size in sizes]
    biases = [rng.normal(size=size[1]).astype(np.float32) for size in sizes]
    found = overfitted._slopes(rows, labels, weights, biases)
    leaves = [torch.from_numpy(array).requires_grad_() for array in (*weights, *biases)]
    hidden = torch.from_numpy(rows)
    for number in range(2):
        hidden = torch.relu(hidden @ leaves[number] + leaves[number + 3])
    torch.nn.functional.cross_entropy(
        hidden @ leaves[2] + leaves[5], torch.from_numpy(labels)
    ).backward()
    for slope, leaf in zip(found, leaves, strict=True):
        np.testing.assert_allclose(slope, leaf.grad.numpy(), rtol=1e-3, atol=1e-6)
