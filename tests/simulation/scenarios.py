"""A run drawn from a seed: a cluster, jobs, and what befalls them."""

from __future__ import annotations

import math
import random
import zlib
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.actors.actor import TRACKER
from distsum.actors.master import MasterSettings
from distsum.actors.modelled_broker import BrokerModel
from distsum.actors.modelled_worker import WorkerModel
from distsum.actors.simulated_cluster import SimulatedCluster, simulated_job
from distsum.actors.speculation_words import HEEDED, RANGES, check_silence, speculation_settings, speculation_text
from distsum.actors.task_tracker import TrackerSettings
from distsum.messages import DismissWorker, PauseWorker, ResumeWorker, SwitchSpeculation, TaskId, TaskStarted
from distsum.wording import printable
from tests.simulation.invariants import BadWorkerInvariants, Invariants
from tests.simulation.plants import PLANTS

if TYPE_CHECKING:
    from distsum.actors.speculation import SpeculationSettings

HORIZON_SECONDS: Final = 60.0
"""Faults come before it, and what they did is undone at it."""
LIMIT_SECONDS: Final = 5_000.0
"""Virtual time after which a job that has not ended stands still."""
CALM_SECONDS: Final = 30.0
"""Time without faults after which everybody must know who is there."""
SLOW_HOST_SHARE: Final = 0.05
"""Of the runs; in all others nearly everything may happen."""
SLOW_HOST_TIMES: Final = 2.0
SLOW_HOST_SECONDS: Final = 20.0
"""What a slow host may cost at most: so many times what a healthy cluster takes, and this."""
BAD_WORKERS_SHARE: Final = 0.04
"""Of the runs: in them all attempts of some workers fail, and the broker is away for a while."""
_HEARTBEAT_SECONDS: Final = {True: 0.5, False: 2.0}
"""Of workers, if they are embedded and if not."""
_VALUES: Final = {
    "quantile": (0.25, 0.5, 0.9),
    "multiplier": (1.0, 1.5, 3.0),
    "min_seconds": (0.1, 2.0, 10.0),
    "max_share": (0.1, 0.5),
    "copies": (1, 3),
    "gain": (1.0, 3.0),
    "silence_seconds": (2.5, 10.0),
    "slow": (1.5, 5.0),
    "few": (2, 20),
    "check_seconds": (0.2, 3.0, 10.0),
}
"""Of speculation's settings, beside the least and the most that each may be."""
TICKS: Final = 100_000
"""Actions after which a run that has not ended goes in circles."""


class SimulationError(AssertionError):
    """A run broke a promise. The message says which, when, after what, and how to see it again."""


class Run:
    """One run, from its seed to its end.

    Args:
        seed: Decides everything.
        plant: Name of a fault that is planted into the actors.
    """

    def __init__(self, seed: int, *, plant: str | None = None) -> None:
        self.seed = seed
        self.faults: list[str] = []
        self._submissions_to_come = 0
        self._plant = plant
        self._draw = draw = random.Random(seed)
        kind = draw.random()
        self._slow_host = kind < SLOW_HOST_SHARE
        self._bad_workers = kind >= 1.0 - BAD_WORKERS_SHARE
        if self._slow_host:
            self._build_slow_host()
            return
        if self._bad_workers:
            self._build_bad_workers()
            return
        embedded = draw.random() < 0.4
        self._speculation = self._speculation_settings(embedded=embedded)
        # More heartbeats than are needed only make runs longer.
        short = self._speculation.silence_seconds < 2 * _HEARTBEAT_SECONDS[False]
        self._heartbeat_seconds = _HEARTBEAT_SECONDS[embedded and short]
        self._workers = draw.randint(1, 8)
        self._hosts = draw.randint(1, self._workers)
        self._models = [self._worker_model(f"h{draw.randrange(self._hosts)}") for _ in range(self._workers)]
        self._spread = draw.choice((0.0, 0.1, 0.5, 2.0))
        self._scale = draw.choice((0.05, 0.3, 2.0))
        self.cluster = SimulatedCluster(
            draw,
            broker=self._broker_model(embedded=embedded),
            tracker=TrackerSettings(
                tasks_queued_per_worker=draw.choice((0, 1, 1, 2)),
                lease_seconds=draw.choice((8.0, 20.0)),
                retry_storage=not embedded,
                speculation=self._speculation,
            ),
            master=MasterSettings(running_jobs=draw.choice((1, 2, 4))),
            work_seconds=self._work_seconds,
            replacements=PLANTS[plant] if plant else None,
        )
        self.invariants = Invariants(self.cluster)
        for model in self._models:
            self.cluster.add_worker(model)
        for number in range(draw.choice((1, 1, 2, 3))):
            self._plan_job(f"job{number + 1}")
        for _ in range(draw.choice((0, 1, 2, 4, 8))):
            self._plan_fault()
        self._anew = draw.choice((0, 0, 1, 3))
        if self._anew:
            self.cluster.system.on_event = self._begin_anew_at_the_end
        if draw.random() < 0.05:
            self.cluster.store.poison.add(TaskId("job1", 1, 0, 0))
            self.cluster.respawn_seconds = 1.0
        self.cluster.system.at(HORIZON_SECONDS, self._end_faults)

    def _build_slow_host(self) -> None:
        """Nothing happens but that one host is slow from the beginning, while others have little to do."""
        draw = self._draw
        hosts, each = draw.randint(2, 4), draw.randint(1, 3)
        speed = draw.choice((0.01, 0.02, 0.05))
        self._spread, self._scale = 0.1, draw.uniform(1.0, 4.0)
        files, fan_in, exponent = draw.choice(((25, 5, 1), (60, 5, 1), (26, 5, 1), (50, 5, 2), (60, 5, 2), (31, 3, 2)))
        spec = simulated_job("job1", files, fan_in=fan_in, exponent=exponent)
        # One task of the first phase at least goes to another host. Where all of a new cluster's are equally slow there
        # is nothing to compare them with: the same would be heard of workers of usual speed and larger files.
        each = min(each, math.ceil(files / fan_in**exponent) - 1)
        names = [f"h{host}" for host in range(hosts) for _ in range(each)]

        def cluster(slow: float, plant: str | None) -> SimulatedCluster:
            made = SimulatedCluster(
                draw,
                broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003)),
                work_seconds=self._work_seconds,
                replacements=PLANTS[plant] if plant else None,
            )
            for name in names:
                made.add_worker(WorkerModel(name, speed=slow if name == "h0" else 1.0))
            made.system.at(3.0, made.submit, spec)
            return made

        healthy = cluster(1.0, None)
        while "job1" not in healthy.outcomes:
            healthy.system.step()
        self._most_seconds = SLOW_HOST_TIMES * (healthy.system.clock - 3.0) + SLOW_HOST_SECONDS
        self.cluster = cluster(speed, self._plant)
        self.invariants = Invariants(self.cluster, calm=True)

    def _build_bad_workers(self) -> None:
        """Some workers fail everything, and all lose the broker: one of them, or all of one host."""
        draw = self._draw
        self._spread, self._scale = 0.5, draw.uniform(0.3, 2.0)
        self.cluster = SimulatedCluster(
            draw,
            broker=BrokerModel(embedded=False, delay_seconds=(0.001, 0.003)),
            tracker=TrackerSettings(retry_storage=True),
            work_seconds=self._work_seconds,
            replacements=PLANTS[self._plant] if self._plant else None,
        )
        alone = draw.random() < 0.5
        for host in range(draw.randint(2, 6)):
            self.cluster.add_worker(WorkerModel("h" if alone else f"h{host}"))
        for _ in range(1 if alone else draw.randint(1, 4)):
            self.cluster.add_worker(WorkerModel("h" if alone else "bad", speed=draw.choice((1.0, 20.0)), failures=1.0))
        self.invariants = BadWorkerInvariants(self.cluster)
        system = self.cluster.system
        for name, when in (("job1", 3.0), ("job2", 20.0)):
            system.at(when, self.cluster.submit, simulated_job(name, draw.choice((60, 100, 150)), fan_in=5))
        system.at(20.0 + draw.uniform(0.0, 10.0), self._fault, "broker", self._cut_broker)

    def _cut_broker(self) -> None:
        """The broker is away, for longer than some connections live."""
        away = self._draw.uniform(3.0, 30.0)
        for worker in self.cluster.living():
            worker.partition()
            self.cluster.system.after(away, worker.heal)

    def go(self) -> None:
        """Run to the end.

        Raises:
            SimulationError: A promise was broken.
        """
        cluster = self.cluster
        try:
            cluster.system.settle()
            for _ in range(TICKS):
                if not (cluster.open_jobs or self._submissions_to_come) and cluster.system.clock > HORIZON_SECONDS:
                    break
                cluster.system.step()
                assert cluster.system.clock < LIMIT_SECONDS, f"{cluster.open_jobs} stand still"
            else:
                raise AssertionError(f"{cluster.open_jobs} have not ended after {TICKS} actions")
            self.invariants.check_end()
            if self._slow_host:
                took = self.invariants.ended_seconds["job1"] - 3.0
                assert took <= self._most_seconds, f"a slow host holds up the job: {took:.1f} s"
            if not cluster.broker_model.loss:
                cluster.system.advance(CALM_SECONDS)
                self.invariants.check_calm()
        except Exception as error:
            raise SimulationError(self._told(error)) from error

    def digest(self) -> int:
        """Return a number that two runs share only if they went the same way."""
        system = self.cluster.system
        last = [(round(when, 9), address, str(message)) for when, address, message in system.trace]
        return zlib.crc32(repr((system.clock, system.delivered, last, self.cluster.outcomes)).encode())

    def _told(self, error: Exception) -> str:
        system = self.cluster.system
        plant = f" --plant {self._plant}" if self._plant else ""
        lines = [
            f"seed {self.seed}, {system.clock:.3f} s: {type(error).__name__}: {error}",
            f"  speculation {speculation_text(self.cluster.speculation)}",
            *(f"  fault {each}" for each in self.faults),
            *(f"  {when:9.3f} {address:8} {printable(str(message), 150)}" for when, address, message in system.trace),
            f"replay: uv run python -m tests.simulation --seed {self.seed}{plant}",
        ]
        return "\n".join(lines)

    # What is drawn ----------------------------------------------------------------------------------------------------

    def _worker_model(self, host: str) -> WorkerModel:
        draw = self._draw
        return WorkerModel(
            host=host,
            failure_kind=draw.choice(("error", "error", "storage")),
            speed=draw.choice((1.0, 1.0, 1.0, 0.5, 0.1)),
            start_seconds=draw.uniform(0.1, 2.0),
            heartbeat_seconds=self._heartbeat_seconds,
            object_seconds=draw.choice((0.0, 0.001, 0.001, 0.02, 0.3, 2.0)),
            object_spread=draw.choice((0.0, 0.0, 1.0, 3.0)),
            failures=draw.choice((0.0, 0.0, 0.05, 0.3)),
        )

    def _speculation_settings(self, *, embedded: bool) -> SpeculationSettings:
        """Draw settings as a person may give them: the default, or a policy with some keys, as often as not extreme."""
        draw = self._draw
        policy = draw.choice(("guarded", "guarded", "guarded", "guarded", "none", "bare", "spark", "late", "mapreduce"))
        given: dict[str, object] = {"policy": policy}
        if draw.random() < 0.7:
            for key in HEEDED[policy]:
                if draw.random() < 0.4:
                    given[key] = draw.choice((*RANGES[key], *_VALUES[key]))
        settings = speculation_settings(given)
        try:
            check_silence(settings, _HEARTBEAT_SECONDS[embedded])
        except ValueError:
            settings = msgspec.structs.replace(settings, silence_seconds=2.5)
        return settings

    def _broker_model(self, *, embedded: bool) -> BrokerModel:
        draw = self._draw
        if embedded:
            return BrokerModel()
        return BrokerModel(
            embedded=False,
            delay_seconds=(0.001, draw.choice((0.001, 0.01, 0.5, 3.0))),
            loss=draw.choice((0.0, 0.1, 0.5)),
            doubling=draw.choice((0.0, 0.0, 0.1, 0.3)),
            shuts_silent=draw.random() < 0.3,
        )

    def _work_seconds(self, task: TaskId, children: int) -> float:
        return self._scale * children * (0.2 + self._draw.random() * self._spread)

    def _plan_job(self, name: str) -> None:
        draw = self._draw
        fan_in, exponent = draw.choice(((2, 1), (2, 2), (3, 1), (5, 1), (5, 2)))
        files = draw.choice((1, 2, 3, 5, 6, 7, 11, 25, 26, 31, 60))
        spec = simulated_job(
            name,
            files,
            fan_in=fan_in,
            exponent=exponent,
            tiles=draw.choice((1, 1, 1, 2, 3)),
            sliced=files % 3 > 0,
        )
        when = 0.0 if draw.random() < 0.6 else draw.uniform(0.0, HORIZON_SECONDS / 2)
        system = self.cluster.system
        system.at(when, self.cluster.submit, spec, draw.choice((0, 0, 1, 5)))
        if draw.random() < 0.15:
            cancelled = when + draw.uniform(0.0, 20.0) * draw.choice((0.1, 1.0))
            system.at(cancelled, self._fault, f"cancel {name}", self.cluster.cancel, name)
            if draw.random() < 0.7:
                again = cancelled + draw.uniform(0.0, 10.0) * draw.choice((0.1, 1.0))
                system.at(again, self._fault, f"submit {name} again", self.cluster.submit, spec)
        if draw.random() < 0.1:
            system.at(when + draw.uniform(0.0, 20.0), self.cluster.change_priority, name, draw.choice((0, 1, 9)))

    def _begin_anew_at_the_end(self, event: msgspec.Struct) -> None:
        """Have a job cancelled and submitted again just when its result is written, the first times that it is."""
        self.invariants.take_event(event)
        if not isinstance(event, TaskStarted) or event.child is not None:
            return
        job, worker = event.task.job, self.cluster.workers[event.worker]
        if event.task.phase < self.cluster.store.tree(job).phases or (attempt := worker._attempt) is None:
            return
        system = self.cluster.system
        self._anew -= 1
        if not self._anew:
            system.on_event = self.invariants.take_event
        moment = system.clock + attempt.total / max(worker.model.speed, 0.1) + self._draw.uniform(-0.01, 0.01)
        system.at(moment, self._fault, f"cancel {job}", self.cluster.cancel, job)
        system.at(moment + self._draw.uniform(0.0, 0.01), self._fault, f"submit {job} again", self._submit_again, job)
        self._submissions_to_come += 1

    def _submit_again(self, job: str) -> None:
        self._submissions_to_come -= 1
        self.cluster.submit(self.cluster.specs[job])

    def _plan_fault(self) -> None:
        draw, system = self._draw, self.cluster.system
        kind = draw.choice(
            (
                "crash", "vanish", "freeze", "slow", "partition", "leave", "join", "join",
                "master", "master_over_losses", "lose", "damage", "pause", "dismiss", "ask", "ask", "switch",
                "store", "slow_store",
            )
        )  # fmt: skip
        when = draw.uniform(0.0, HORIZON_SECONDS) * draw.choice((0.05, 0.3, 1.0))
        system.at(when, self._fault, kind, getattr(self, f"_{kind}"))

    def _fault(self, told: str, action: object, *arguments: object) -> None:
        self.faults.append(f"{self.cluster.system.clock:9.3f} {told}")
        action(*arguments)

    def _some_worker(self) -> object:
        living = self.cluster.living()
        return self._draw.choice(living) if living else None

    def _crash(self) -> None:
        if (worker := self._some_worker()) is not None:
            worker.crash()
            self._maybe_replace(worker)

    def _vanish(self) -> None:
        if (worker := self._some_worker()) is not None:
            worker.vanish()
            self._maybe_replace(worker)

    def _maybe_replace(self, worker: object) -> None:
        if self._draw.random() < 0.7:
            self.cluster.add_worker(worker.model)

    def _freeze(self) -> None:
        if (worker := self._some_worker()) is not None:
            worker.freeze()
            self.cluster.system.after(self._draw.uniform(0.1, 50.0), worker.thaw)

    def _slow(self) -> None:
        if (worker := self._some_worker()) is not None:
            worker.set_speed(worker.model.speed * self._draw.choice((0.01, 0.1, 0.5)))
            self.cluster.system.after(self._draw.uniform(1.0, 40.0), worker.set_speed, worker.model.speed)

    def _partition(self) -> None:
        if not self.cluster.broker_model.embedded and (worker := self._some_worker()) is not None:
            worker.partition()
            self.cluster.system.after(self._draw.uniform(0.1, 50.0), worker.heal)

    def _leave(self) -> None:
        if (worker := self._some_worker()) is not None:
            worker.leave(hand_back=self._draw.random() < 0.5)

    def _join(self) -> None:
        self.cluster.add_worker(self._worker_model(f"h{self._draw.randrange(9)}"))

    def _master(self) -> None:
        cluster = self.cluster
        cluster.crash_master()
        again = partial(self._master_again, purge=self._draw.random() < 0.5)
        cluster.system.after(self._draw.uniform(0.0, 10.0), again)

    def _master_again(self, *, purge: bool) -> None:
        self.cluster.start_master(purge=purge)
        if self.cluster.broker_model.embedded:
            for model in self._models:
                self.cluster.add_worker(model)

    def _master_over_losses(self) -> None:
        """Some partials go just after the new master has looked which there are."""
        if not self.cluster.master_up:
            return
        self.cluster.crash_master()
        self._master_again(purge=self._draw.random() < 0.5)
        self._draw.choice((self._lose, self._damage))()

    def _lose(self) -> None:
        for task in self._some_partials():
            self.cluster.store.lose(task)

    def _damage(self) -> None:
        self.cluster.store.damaged.update(self._some_partials())

    def _store(self) -> None:
        """The store does not do what it is asked, always or now and then, for a while."""
        store = self.cluster.store
        store.errors = self._draw.choice((0.1, 0.5, 1.0))
        self.cluster.system.after(self._draw.uniform(0.1, 10.0), setattr, store, "errors", 0.0)

    def _slow_store(self) -> None:
        """The store takes long for what it is asked, for a while."""
        store = self.cluster.store
        store.slowness = self._draw.choice((3.0, 20.0))
        self.cluster.system.after(self._draw.uniform(0.1, 10.0), setattr, store, "slowness", 1.0)

    def _some_partials(self) -> list[TaskId]:
        partials = list(self.cluster.store.partials)
        return self._draw.sample(partials, min(len(partials), self._draw.randint(1, 5)))

    def _pause(self) -> None:
        if (worker := self._some_worker()) is not None:
            self._order(PauseWorker(worker.name, "asked for"))
            self.cluster.system.after(self._draw.uniform(0.0, 30.0), self._order, ResumeWorker(worker.name))

    def _dismiss(self) -> None:
        if (worker := self._some_worker()) is not None:
            self._order(DismissWorker(worker.name, "drained"))

    def _ask(self) -> None:
        """A person asks for backups, of what is out and, by mistake, of what is not."""
        tracker = self.cluster.system.actors.get(TRACKER)
        out = list(tracker._tasks) if tracker is not None else []
        for task in [*self._draw.sample(out, min(len(out), 3)), TaskId("job1", 1, 0, 0)]:
            self.cluster.back_up(task)

    def _switch(self) -> None:
        for name in self.cluster.open_jobs:
            self._order(SwitchSpeculation(name, on=False))
            self.cluster.system.after(self._draw.uniform(0.0, 30.0), self._order, SwitchSpeculation(name, on=True))

    def _order(self, message: msgspec.Struct) -> None:
        self.cluster.system.deliver(TRACKER, message)

    def _end_faults(self) -> None:
        """From here on nothing more happens, and there is somebody to do the work: every job must end."""
        cluster = self.cluster
        cluster.start_master(purge=True)
        cluster.respawn_seconds = 1.0
        cluster.store.errors = 0.0
        cluster.store.slowness = 1.0
        for worker in cluster.living():
            worker.thaw()
            worker.heal()
            worker.set_speed(max(worker.model.speed, 0.1))
            self._order(ResumeWorker(worker.name))
        for _ in range(2):
            cluster.add_worker(WorkerModel("spare"))
