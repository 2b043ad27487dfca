"""``python -m model.simulation.worker SET OUT``: plays the runs named on its standard input.

One job a line (JSON ``{"plan", "acquisition", "seed"}``; without a rule, all labels at once); a
finished run is written to OUT by this process itself. It answers in lines of JSON on standard
output: ``{"point"}`` after each round, ``{"done"}`` or ``{"error"}`` after each job. A process of
its own, started and not forked, so that its threads are its own whatever the parent has loaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.simulation.data import LabelledSet
from model.simulation.replay import Plan, Playable, replay, with_all_labels
from model.simulation.store import RunStore


def load(folder: Path) -> Playable:
    """What a set's `save` wrote, of either kind."""
    from model.simulation.detection import SET_FILE, DetectionSet

    return DetectionSet.load(folder) if (folder / SET_FILE).is_file() else LabelledSet.load(folder)


def play(data: Playable, store: RunStore, job: dict[str, Any], say: Any) -> None:
    """Do one job and keep its result."""
    plan = Plan(**job["plan"])
    if "acquisition" not in job:
        store.save_full(with_all_labels(data, plan.uncertainty, training_steps=plan.training_steps))
        say({"point": True})
    else:
        run = replay(
            data,
            plan,
            job["acquisition"],
            job["seed"],
            progress=lambda point: say({"point": True}),
        )
        store.save(run)


def main(folder: str, out: str) -> None:
    """Serve jobs until the input ends."""
    data, store = load(Path(folder)), RunStore(Path(out))

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)

    try:
        for line in sys.stdin:
            try:
                play(data, store, json.loads(line), say)
            except (ModelError, OSError, MemoryError) as exc:
                say({"error": f"{exc}" or type(exc).__name__})
            else:
                say({"done": True})
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
