"""Metrics of the frontend's processes: memory, CPU time, start time and open files.

prometheus_client has none of them if several processes share their metrics. The values are sums over the frontend's
processes, without a label for the process, because each restart of a worker would add series.
"""

import contextlib
import os
from collections.abc import Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from frontend.metrics_folder import VARIABLE


def process_metrics() -> list[Metric]:
    """Return the metrics of the frontend's running processes."""
    parent = psutil.Process(os.getppid()) if VARIABLE in os.environ else psutil.Process()
    memory = cpu = files = 0.0
    for process in _processes(parent):
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():  # it may have exited in the meantime
            memory += process.memory_info().rss
            cpu += _cpu_seconds(process)
            files += process.num_fds()
    started = parent.create_time()
    return [
        GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory; shared pages count once per process", memory
        ),
        CounterMetricFamily("process_cpu_seconds_total", "User and system CPU time", cpu),
        GaugeMetricFamily("process_start_time_seconds", "Start time of the frontend since the Unix epoch", started),
        GaugeMetricFamily("process_open_fds", "Open file descriptors", files),
    ]


def _processes(parent: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the frontend's parent process and its workers, or only this process if there is no parent process."""
    yield parent
    if parent.pid != os.getpid():
        yield from parent.children()


def _cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and of its children that have exited, so that the sum does not decrease then."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
