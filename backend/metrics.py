"""Prometheus metrics; queue and label gauges are read from the stores when asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from backend.app import App

BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """What the web process counts."""

    def __init__(self, app: App) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "doubtless_request_seconds",
            "Time to answer, by route and status.",
            ["route", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._events = Counter(
            "doubtless_events",
            "Webhook events, by action and outcome.",
            ["action", "outcome"],
            registry=self.registry,
        )
        self.registry.register(_Stores(app))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, str(status)).observe(seconds)

    def event(self, action: str, outcome: str) -> None:
        """Count one webhook event."""
        self._events.labels(action, outcome).inc()

    def render(self) -> tuple[bytes, str]:
        """The text and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Stores(Collector):
    def __init__(self, app: App) -> None:
        self.app = app

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        database = self.app.database
        labels = GaugeMetricFamily("doubtless_labels", "Labelled tasks.", labels=["project"])
        tasks = GaugeMetricFamily("doubtless_tasks", "Tasks.", labels=["project", "state"])
        live = GaugeMetricFamily("doubtless_live_version", "Live version.", labels=["project"])
        runs = GaugeMetricFamily("doubtless_runs", "Unfinished runs.", labels=["kind", "status"])
        for project in database.projects():
            labels.add_metric([project.key], database.label_count(project.key))
            live.add_metric([project.key], project.live_version or 0)
            for state, count in database.task_counts(project.key).items():
                tasks.add_metric([project.key, state], count)
        counts: dict[tuple[str, str], int] = {}
        for run in database.runs():
            counts[run.kind, run.status] = counts.get((run.kind, run.status), 0) + 1
        for (kind, status), count in counts.items():
            runs.add_metric([kind, status], count)
        queued = GaugeMetricFamily("doubtless_queue_depth", "Waiting jobs.", labels=["queue"])
        try:
            for name, depth in self.app.queue.depth().items():
                queued.add_metric([name], depth)
        except Exception:  # Redis is down: the other numbers are still true
            queued = GaugeMetricFamily("doubtless_queue_depth", "Waiting jobs.", labels=["queue"])
        return [labels, tasks, live, runs, queued]
