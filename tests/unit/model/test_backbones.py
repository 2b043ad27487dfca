from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.backbones import BACKBONES, Backbone, backbone_hash, cache, feature_dim, load_backbone
from model.backbones.efficientnet_lite import load_eager
from model.errors import BackboneError, ShapeError, UnknownNameError
from model.heads.plain import PLAIN_BACKBONE


def noise(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_export_equals_the_eager_network(name: str, export_dir: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs doubtless[train]")
    backbone = load_backbone(name, export_dir)
    inputs = np.stack([backbone.prepare(noise(seed)) for seed in range(2)])
    with torch.no_grad():
        parts = [
            load_eager(int(part[-1]), backbone.size_px)
            .extract_features(torch.from_numpy(inputs))
            .mean(dim=(2, 3))
            for part in name.split("+")
        ]
    expected = torch.cat(parts, dim=1).numpy()
    assert expected.shape == (2, backbone.dim)
    assert expected.max() > 1
    assert np.abs(backbone.forward(inputs) - expected).max() < 1e-4


def test_side_by_side_begins_with_the_plain_heads_features(export_dir: Path) -> None:
    """So `simulate` needs no second pass for the plain head."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs doubtless[train]")
    plain = load_backbone(PLAIN_BACKBONE, export_dir)
    pair = load_backbone(f"{PLAIN_BACKBONE}+lite0", export_dir)
    images = [noise(seed) for seed in range(2)]
    both = pair.features(images)[:, : plain.dim]
    np.testing.assert_allclose(both, plain.features(images), atol=1e-4)


def test_preparing_equals_the_plain_formula(lite0: Backbone) -> None:
    image = noise(1, (224, 224))
    expected = (np.asarray(image).transpose(2, 0, 1).astype(np.float64) - 127) / 128
    np.testing.assert_allclose(lite0.prepare(image), expected, atol=1e-6)


def test_features_do_not_depend_on_the_batch(lite0: Backbone) -> None:
    images = [noise(seed, (30 + seed, 80)) for seed in range(5)]
    together = lite0.features(images)
    alone = np.concatenate([lite0.features([image]) for image in images])
    assert together.shape == (5, lite0.dim)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_no_images_and_wrong_shapes(lite0: Backbone) -> None:
    assert lite0.features([]).shape == (0, lite0.dim)
    with pytest.raises(ShapeError):
        lite0.forward(np.zeros((1, 3, 10, 10), np.float32))


def test_what_is_known_without_loading_agrees_with_the_session(lite0: Backbone) -> None:
    assert lite0.hash == backbone_hash("efficientnet-lite0")
    assert lite0.dim == feature_dim("efficientnet-lite0")
    assert len({spec.hash for spec in BACKBONES.values()}) == len(BACKBONES)


def test_the_hash_follows_weights_and_preprocessing() -> None:
    spec = BACKBONES["efficientnet-lite0"]
    changed = [
        replace(spec, size_px=192),
        replace(spec, weights_sha256="0"),
        replace(spec, mean=1.0),
    ]
    assert len({spec.hash, *(other.hash for other in changed)}) == 4


def test_unknown_backbone() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'efficientnet-lite2'"):
        load_backbone("efficientnet-lite3", Path("unused"))


def test_neither_hashes_nor_sessions_import_torch(export_dir: Path, lite0: Backbone) -> None:
    code = (
        "import sys; from pathlib import Path; from model.backbones import *;"
        "backbone_hash('efficientnet-lite2'); feature_dim('efficientnet-lite2');"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules);"
        "load_backbone('efficientnet-lite0', Path(sys.argv[1]));"
        "assert not {'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(export_dir)], check=True)


@pytest.fixture
def counted_exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports replaced by a file of known content, and counted."""
    calls: list[str] = []

    def export(name: str, path: Path) -> float:
        calls.append(name)
        path.write_bytes(b"network")
        return 1e-6

    monkeypatch.setattr(cache, "_export_elsewhere", export)
    return calls


def test_a_half_written_export_is_made_again(tmp_path: Path, counted_exports: list[str]) -> None:
    spec = BACKBONES["efficientnet-lite0"]
    assert cache.exported(spec, tmp_path) == b"network"
    path = tmp_path / "backbones" / f"{spec.name}-{spec.hash}.onnx"
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["sha256"] == hashlib.sha256(b"network").hexdigest()
    path.write_bytes(b"netw")
    assert cache.exported(spec, tmp_path) == b"network"
    path.with_suffix(".json").write_text("{")
    assert cache.exported(spec, tmp_path) == b"network"
    assert len(counted_exports) == 3
    assert cache.exported(spec, tmp_path) == b"network"
    assert len(counted_exports) == 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_two_at_once_export_once(tmp_path: Path, counted_exports: list[str]) -> None:
    found: list[bytes] = []
    spec = BACKBONES["efficientnet-lite0"]
    threads = [
        threading.Thread(target=lambda: found.append(cache.exported(spec, tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"network"] * 4
    assert len(counted_exports) == 1


def test_an_export_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(name: str, path: Path) -> float:
        path.write_bytes(b"network")
        return float("nan")

    monkeypatch.setattr(cache, "_export_elsewhere", export)
    with pytest.raises(BackboneError, match="differs from the eager network"):
        cache.exported(BACKBONES["efficientnet-lite0"], tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_failing_export_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"exporting nonsense failed: .*unknown backbone"):
        cache._export_elsewhere("nonsense", tmp_path / "out")
