"""From a submit to a queue in a new order, and what people and Label Studio wait for meanwhile.

    ./run bench latency [--tasks 5000] [--labels 1000] [--rounds 3] [--out FILE]

Starts a real Label Studio and a real stack. Features are cached before anything is timed. In each
round one submit makes a training due; timed is until all predictions of the new version are in
Label Studio and live. In the same round the same predictions are imported into the same project
by hand, in one request: what Label Studio itself needs. Then, in a training of its own because the
questions cost processor time, `/webhook` and `/health` are asked by two and one clients.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from common import commit, machine  # noqa: E402
from support.real import Project, Server, Stack, until  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/latency.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="doubtless-latency-") as folder:
        server = Server(Path(folder) / "label-studio")
        stack = Stack(
            Path(folder) / "home",
            retrain_after=50,
            retrain_growth=0.05,
            quiet_s=100_000,
            reconcile_s=3600,
        )
        try:
            result = measure(server, stack, options)
        finally:
            stack.stop()
            server.stop()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def measure(server: Server, stack: Stack, options: argparse.Namespace) -> dict:
    project = Project(server, title="latency")
    say(f"importing {options.tasks} tasks")
    project.import_inline(options.tasks, distinct=min(1500, options.tasks))
    for task in list(project.truth)[: options.labels]:
        project.api.submit(task, project.result(task))
    key = project.connect(stack)
    say("features and first version")
    # Labels are there from the start, so the first version is a trained one.
    version = project.wait_for_version(prefix="v", seconds=1800)
    rounds = []
    for n in range(options.rounds):
        idle(stack, key)
        time.sleep(3.0)
        live_s, version = submit_to_live(project, stack, key, version)
        counts = project.api.model_versions(project.id)
        assert counts[version] == options.tasks, (version, counts)
        idle(stack, key)
        import_s = import_by_hand(project, stack, key, f"by-hand-{n}")
        fit = stack.database.versions(key)[-1].metrics
        time.sleep(3.0)
        probes = Probes(stack, key)
        _, version = submit_to_live(project, stack, key, version)
        probes.stop()
        row = {
            "submit_to_live_s": round(live_s, 3), "label_studio_import_s": round(import_s, 3),
            "ratio": round(live_s / import_s, 3), **probes.result(),
        }  # fmt: skip
        row["fit_s"] = round(fit["seconds"], 3)
        row["stage_s"] = fit["stage_seconds"]
        say(json.dumps(row))
        rounds.append(row)
    return {
        "benchmark": "latency", "tasks": options.tasks, "labels": options.labels,
        "ratio_median": statistics.median(r["ratio"] for r in rounds),
        "ratio_worst": max(r["ratio"] for r in rounds),
        "webhook_p99_ms": max(r["webhook_p99_ms"] for r in rounds),
        "health_p99_ms": max(r["health_p99_ms"] for r in rounds),
        "rounds": rounds, "machine": machine(), "commit": commit("model", "benchmarks"),
    }  # fmt: skip


def submit_to_live(project: Project, stack: Stack, key: str, version: str) -> tuple[float, str]:
    """One submit, and seconds until the version it makes due is live; also that version."""
    project.label(1)
    start = time.perf_counter()
    stack.database.update_project(key, requested_at=time.time(), request_reason="benchmark")
    found = until(lambda: (v := project.live()) != version and v, 300, "live", every=0.1)
    return time.perf_counter() - start, found


def idle(stack: Stack, key: str) -> None:
    """No run but pruning is active, and pruning is held back while we time."""
    stack.database.update_project(key, paused=True)
    until(lambda: not stack.database.runs(key), 1800, "idle", every=0.5)
    stack.database.update_project(key, paused=False)
    stop_pruning(stack, key)


def stop_pruning(stack: Stack, key: str) -> None:
    """Old predictions stay where they are: what is timed must not depend on their deletion."""
    database = stack.database
    for version in database.versions(key):
        if version.status in ("superseded", "abandoned", "kept"):
            database.update_version(key, version.number, on_platform=False)


def import_by_hand(project: Project, stack: Stack, key: str, name: str) -> float:
    """Seconds Label Studio takes to import the live version's predictions once more."""
    database = stack.database
    live = database.project(key).live_version
    rows = database.scores(key, live).values()
    items = [
        {
            "task": r.task_id, "score": r.score, "model_version": name,
            "result": [
                {
                    "from_name": "choice", "to_name": "image", "type": "choices",
                    "score": r.p_right, "value": {"choices": [r.label]},
                }
            ],
        }
        for r in rows
    ]  # fmt: skip
    start = time.perf_counter()
    answer = requests.post(
        f"{project.server.url}/api/projects/{project.id}/import/predictions",
        json=items,
        headers={"Authorization": f"Token {project.server.token}"},
        timeout=600,
    )
    took = time.perf_counter() - start
    assert answer.json()["created"] == len(items), answer.text[:200]
    return took


class Probes:
    """Asks /webhook (two clients) and /health (one) until stopped."""

    def __init__(self, stack: Stack, key: str) -> None:
        found = stack.database.project(key)
        url = f"http://127.0.0.1:{stack.port}"
        body = {
            "action": "PROJECT_UPDATED",
            "project": {
                "id": found.platform_id, "label_config": found.label_config,
                "created_at": time.strftime(
                    "%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(found.uid.split(".")[1]))
                ),
            },
        }  # fmt: skip
        headers = {"X-Doubtless-Key": key, "X-Doubtless-Secret": found.secret}
        self.times: dict[str, list[float]] = {"webhook": [], "health": []}
        self.done = threading.Event()
        self.threads = [
            threading.Thread(
                target=self.ask, args=("webhook", "POST", f"{url}/webhook", body, headers)
            )
            for _ in range(2)
        ]
        self.threads.append(
            threading.Thread(target=self.ask, args=("health", "GET", f"{url}/health", None, {}))
        )
        for thread in self.threads:
            thread.start()

    def ask(self, name: str, method: str, url: str, body: object, headers: dict) -> None:
        with requests.Session() as session:
            while not self.done.wait(0.02):
                start = time.perf_counter()
                answer = session.request(method, url, json=body, headers=headers, timeout=10)
                self.times[name].append(time.perf_counter() - start)
                assert answer.ok, answer.text

    def stop(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join()

    def result(self) -> dict:
        return {
            f"{name}_{label}_ms": round(1000 * value, 1)
            for name, times in self.times.items()
            for label, value in (
                ("median", statistics.median(times)),
                ("p99", statistics.quantiles(times, n=100)[98]),
            )
        } | {"webhooks": len(self.times["webhook"]), "healths": len(self.times["health"])}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
