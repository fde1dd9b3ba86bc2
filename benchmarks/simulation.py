"""How fast the actors decide: messages a second with up to 10,000 workers and a million tasks, in one thread."""

from __future__ import annotations

import gc
import random
import resource
import time

from benchmarks.measure import report
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job

_CASES = ((100, 10_000), (1_000, 100_000), (10_000, 100_000), (10_000, 1_000_000))


def main() -> None:
    """Run the cases, and print one row for each."""
    report("simulation", [measured(workers, tasks) for workers, tasks in _CASES])


def measured(workers: int, tasks: int) -> dict[str, object]:
    """Run one job, and return a row of the table."""
    draw = random.Random(1)
    cluster = SimulatedCluster(draw, checking=False, work_seconds=lambda _task, _children: 0.9 + 0.2 * draw.random())
    for number in range(workers):
        cluster.add_worker(WorkerModel(f"h{number}"))
    cluster.submit(simulated_job("job", tasks * 4))  # with a fan-in of 5 that is about as many tasks in all phases
    gc.collect()
    gc.disable()  # nothing here is a cycle, and the collector would look at a million objects again and again
    began, cpu = time.perf_counter(), time.process_time()
    ended = cluster.run(1e9)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    gc.enable()
    if not ended:
        raise RuntimeError(f"{workers} workers did not finish {tasks} tasks")
    made = len(cluster.store.partials)
    return {
        "workers": workers,
        "tasks": made,
        "messages": cluster.system.delivered,
        "seconds": seconds,
        "messages/s": cluster.system.delivered / cpu,
        "us CPU/task": cpu / made * 1e6,
        "virtual s": cluster.system.clock,
        "ideal virtual s": made / workers,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
