"""Memory, CPU time and open files of the frontend's processes."""

import json
import subprocess
import sys

# One worker uses CPU time and exits; another one prints its own memory and the metrics of all processes.
_PROCESSES = """
import json, os, sys, time
from pathlib import Path
from frontend import metrics_folder

metrics_folder.prepare(Path(sys.argv[1]))
if not (busy := os.fork()):
    while time.process_time() < 0.3:
        pass
    os._exit(0)
os.waitpid(busy, 0)
if not (worker := os.fork()):
    import psutil
    from frontend.gateway.process_metrics import process_metrics
    own = psutil.Process().memory_info().rss
    found = {sample.name: sample.value for family in process_metrics() for sample in family.samples}
    print(json.dumps([own, found]), flush=True)
    os._exit(0)
os.waitpid(worker, 0)
"""


def test_the_values_are_sums_over_all_processes(tmp_path):
    output = subprocess.run(
        [sys.executable, "-c", _PROCESSES, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    own_memory, found = json.loads(output.stdout)
    assert found["process_resident_memory_bytes"] > own_memory + 5e6, "the parent's memory is included"
    assert found["process_cpu_seconds_total"] >= 0.3, "the CPU time of processes that have exited is included"
    assert found["process_open_fds"] > 5
