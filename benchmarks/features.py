"""Images per second of the feature jobs, decoding included, against the bare network.

    python benchmarks/features.py --data ../shared/data/grocery --data ../shared/data/bccd

Both are measured in turns within one run, so that a busy machine slows both: `extract` as the jobs
call it (encoded bytes in, features out), and the same ONNX Runtime session, with the same number
of threads, on arrays that are ready. The ratio is the median over turns of the paired speeds.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import CACHE, header, write

from model.backbones import BACKBONES, Backbone, load_backbone
from model.datasets import read_dataset
from model.extract import extract
from model.images import decode_image


def main() -> None:
    arguments = parse()
    rows = []
    for name in arguments.backbone or sorted(BACKBONES):
        backbone = load_backbone(name, CACHE, threads=arguments.threads)
        for source in arguments.data or ["digits"]:
            items = [(i.name, i.data) for i in islice(read_dataset(source), arguments.images)]
            row = measure(backbone, items, arguments)
            rows.append({"backbone": name, "data": Path(source).name, **row})
            print(
                f"{name} {rows[-1]['data']}: {row['extract_images_per_s']} images/s with decoding, "
                f"{row['bare_images_per_s']} bare, ratio {row['ratio']} "
                f"({row['ratio_low']} to {row['ratio_high']})",
                flush=True,
            )
    result = header(
        benchmark="features",
        threads=arguments.threads,
        decode_threads=arguments.decode_threads,
        batch=arguments.batch,
        turns=arguments.turns,
    )
    write({**result, "rows": rows}, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", action="append", help="'digits' or a folder; may be repeated")
    parser.add_argument("--backbone", action="append", help="may be repeated; all without")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--decode-threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def measure(
    backbone: Backbone, items: list[tuple[str, bytes]], arguments: argparse.Namespace
) -> dict[str, Any]:
    images = [decode_image(data, size_hint=backbone.size_px) for _, data in items]
    prepared = np.stack([backbone.prepare(image) for image in images])
    batches = [
        prepared[start : start + arguments.batch]
        for start in range(0, len(prepared), arguments.batch)
    ]

    def bare() -> None:
        for batch in batches:
            backbone.forward(batch)

    def whole() -> None:
        done = extract(
            backbone, items, batch=arguments.batch, decode_threads=arguments.decode_threads
        )
        assert sum(len(names) for names, _, _ in done) == len(items)

    speeds: dict[str, list[float]] = {"bare": [], "extract": []}
    for turn in range(arguments.turns + 1):
        for label, work in (("bare", bare), ("extract", whole)):
            begin = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                speeds[label].append(len(items) / (time.perf_counter() - begin))
    ratios = np.array(speeds["extract"]) / np.array(speeds["bare"])
    return {
        "images": len(items),
        "first_image_px": list(images[0].size),
        "extract_images_per_s": round(float(np.median(speeds["extract"])), 1),
        "bare_images_per_s": round(float(np.median(speeds["bare"])), 1),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_low": round(float(ratios.min()), 3),
        "ratio_high": round(float(ratios.max()), 3),
    }


if __name__ == "__main__":
    main()
