"""A broker within its contract and no better: it delays, reorders, doubles, and loses what may be lost.

The contract is ``brokers.base`` and its suite of tests: each task is handed to one worker at a time and acknowledged by
its result, comes back from a broken channel a bounded number of times, and then is dead-lettered. Results are never
lost. What workers merely report may be; so may what is sent to a worker whose channel breaks.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import msgspec

from distsum.actors.actor import BROKER, TRACKER, WORKERS
from distsum.messages import (
    AssignTask,
    CancelJob,
    KillWorker,
    PauseWorker,
    ResumeWorker,
    RunTask,
    Shutdown,
    TaskDeadLettered,
    TaskFailed,
    TaskReturned,
    TaskSucceeded,
    TellWorker,
    WorkerLost,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from distsum.actors.modelled_worker import ModelledWorker
    from distsum.actors.simulated import SimulatedSystem
    from distsum.messages import TaskId


class BrokerModel(msgspec.Struct, frozen=True):
    """How a broker behaves.

    Attributes:
        embedded: As the local one: a pipe to each process, so nothing is lost or reordered, a killed worker is noticed
            at once and a frozen one never, and workers end with the master. Otherwise a server between them.
        delay_seconds: The shortest and longest way of a message through it.
        loss: Share of the reports (heartbeats, starts) that get lost.
        doubling: Share of the tasks and results that are published twice, as after a lost confirmation.
        notice_seconds: The shortest and longest time after which it gives up a channel that has fallen silent.
        shuts_silent: Whether a worker that the tracker gives up is told to leave, should it still hear.
        delivery_limit: How often a task is handed out before it is dead-lettered.
    """

    embedded: bool = True
    delay_seconds: tuple[float, float] = (0.0005, 0.0005)
    loss: float = 0.0
    doubling: float = 0.0
    notice_seconds: tuple[float, float] = (5.0, 20.0)
    shuts_silent: bool = False
    delivery_limit: int = 4


class Channel:
    """The broker's side of one worker's connection."""

    def __init__(self, worker: ModelledWorker) -> None:
        self.worker = worker
        self.open = True
        self.joined = False
        self.paused = False
        self.cut = False
        self.listed = False
        self.held: RunTask | None = None
        self.assigned: dict[int, TaskId] = {}
        self.down = 0.0
        self.direct = 0.0
        self.results = 0.0
        self.reports = 0.0
        self.stalled: list[tuple[Callable[..., None], tuple[Any, ...]]] = []


class ModelledBroker:
    """Queues, channels and the gateways in front of them.

    Args:
        system: Where it lives.
        model: How it behaves.
        draw: Where its chances come from.

    Attributes:
        pending: For each task, the copies of it that are queued, handed out, or whose end the tracker has not heard.
        dead: Tasks that were dead-lettered.
    """

    def __init__(self, system: SimulatedSystem, model: BrokerModel, draw: random.Random) -> None:
        self._system = system
        self._model = model
        self._draw = draw
        self._queue: deque[RunTask] = deque()
        self._idle: deque[Channel] = deque()
        self._channels: dict[str, Channel] = {}
        self._backlog: list[msgspec.Struct] | None = None
        self.pending: Counter[TaskId] = Counter()
        self.dead: set[TaskId] = set()
        system.gateway(BROKER, self._take_command)
        system.gateway(WORKERS, self._take_order)

    # What the actors ask --------------------------------------------------------------------------------------------

    def _take_command(self, message: msgspec.Struct) -> None:
        if isinstance(message, RunTask):
            self._publish(message)
        elif isinstance(message, CancelJob):
            self._purge(message.job)

    def _take_order(self, message: msgspec.Struct) -> None:
        match message:
            case TellWorker():
                if (channel := self._channels.get(message.worker)) is not None:
                    self._send_down(channel, message.message, direct=True)
            case AssignTask():
                self._assign(message.worker, message.message)
            case PauseWorker():
                if (channel := self._channels.get(message.worker)) is not None:
                    channel.paused = True
                    channel.worker.paused = message.told
            case ResumeWorker():
                if (channel := self._channels.get(message.worker)) is not None:
                    channel.paused = False
                    channel.worker.paused = None
                    self._list_idle(channel)
                    self._hand_out()
            case KillWorker():
                self._kill(message)

    def _publish(self, message: RunTask) -> None:
        for _ in range(2 if self._chance(self._model.doubling) else 1):
            self.pending[message.task] += 1
            self._queue.append(message)
        self._hand_out()

    def _assign(self, worker: str, message: RunTask) -> None:
        """Hand a task to one worker; it is in no queue, and is not handed out again."""
        self.pending[message.task] += 1
        if (channel := self._channels.get(worker)) is None:
            self._tell_of_loss(WorkerLost(worker, "is gone"), [message.task])
            return
        channel.assigned[message.attempt] = message.task
        for _ in range(2 if self._chance(self._model.doubling) else 1):
            self._send_down(channel, message, direct=True)

    def _purge(self, job: str) -> None:
        for message in self._queue:
            if message.task.job == job:
                self._drop_copy(message.task)
        self._queue = deque(message for message in self._queue if message.task.job != job)

    def _kill(self, message: KillWorker) -> None:
        channel = self._channels.get(message.worker)
        if self._model.embedded:
            if channel is not None:
                channel.worker.crash()
            return
        # It is no process of ours; it counts as lost from now on.
        if channel is not None and self._model.shuts_silent:
            self._send_down(channel, Shutdown("no heartbeat"), direct=True)
        self._system.after(self._delay(), self._tell_tracker, WorkerLost(message.worker, message.reason))

    # What workers do --------------------------------------------------------------------------------------------------

    def connect(self, worker: ModelledWorker) -> Channel:
        """Open a worker's channel; a former one of it is given up."""
        if (former := self._channels.get(worker.name)) is not None:
            self._close(former, "replaced")
        channel = self._channels[worker.name] = Channel(worker)
        return channel

    def join(self, channel: Channel, message: msgspec.Struct) -> None:
        """Take a worker's introduction; from then on it is handed tasks."""
        channel.paused = channel.worker.paused is not None
        self._send_up(channel, self._joined, channel, message)

    def report(self, channel: Channel, message: msgspec.Struct) -> None:
        """Take what may be lost; from a server it may come before or after a result that was sent with it."""
        if self._model.embedded:
            self._send_up(channel, self._tell_tracker, message)
        elif not channel.cut and not self._chance(self._model.loss):
            channel.reports = max(channel.reports, self._system.clock + self._delay())
            self._system.at(channel.reports, self._tell_tracker, message)

    def finish(self, channel: Channel, message: TaskSucceeded | TaskFailed) -> None:
        """Take a result, which acknowledges the task that the channel holds."""
        self._send_up(channel, self._finished, channel, message)

    def cut(self, channel: Channel) -> None:
        """Let nothing through, either way, until ``mend`` or until the silence is noticed."""
        channel.cut = True
        self._notice_later(channel)

    def mend(self, channel: Channel) -> None:
        """Let through what has waited."""
        channel.cut = False
        stalled, channel.stalled = channel.stalled, []
        for action, arguments in stalled:
            self._system.after(self._delay(), action, *arguments)

    def fall_silent(self, channel: Channel) -> None:
        """The worker's process does nothing any more, not even close its channel; only a server misses that."""
        if not self._model.embedded:
            self._notice_later(channel)

    def break_off(self, channel: Channel) -> None:
        """The worker's process has ended: what it has sent still arrives, then the channel's end does."""
        self._send_up(channel, self._close, channel, "ended")

    # The master's side ------------------------------------------------------------------------------------------------

    def master_ended(self) -> None:
        """Keep results until there is a master again."""
        self._backlog = []

    def master_began(self, *, purge: bool) -> None:
        """Deliver what has waited; a new master may drop all queued tasks first."""
        if purge:
            for message in self._queue:
                self._drop_copy(message.task)
            self._queue.clear()
        backlog, self._backlog = self._backlog or [], None
        for waiting in backlog:
            self._tell_tracker(waiting)

    def drop_all(self) -> None:
        """Forget tasks and channels, as a broker does that lives in the master's process."""
        for channel in self._channels.values():
            channel.open = False
        self._channels.clear()
        self._idle.clear()
        self._queue.clear()
        self.pending.clear()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _list_idle(self, channel: Channel) -> None:
        free = channel.held is None and not channel.assigned
        if channel.open and channel.joined and not channel.paused and free and not channel.listed:
            channel.listed = True
            self._idle.append(channel)

    def _hand_out(self) -> None:
        while self._queue and self._idle:
            channel = self._idle.popleft()
            channel.listed = False
            if not channel.open or channel.paused or channel.held is not None or channel.assigned:
                continue
            task = channel.held = self._queue.popleft()
            self._send_down(channel, task)

    def _send_down(self, channel: Channel, message: msgspec.Struct, *, direct: bool = False) -> None:
        moment = self._system.clock + self._delay()
        if direct and not self._model.embedded:
            moment = channel.direct = max(channel.direct, moment)
        else:
            moment = channel.down = max(channel.down, moment)
        self._system.at(moment, self._arrive, channel, message)

    def _arrive(self, channel: Channel, message: msgspec.Struct) -> None:
        if not channel.open:
            return
        if channel.cut:
            channel.stalled.append((self._arrive, (channel, message)))
        else:
            channel.worker.receive(channel, message)

    def _send_up(self, channel: Channel, action: Callable[..., None], *arguments: Any) -> None:
        if channel.cut:
            channel.stalled.append((action, arguments))
            return
        channel.results = max(channel.results, self._system.clock + self._delay())
        self._system.at(channel.results, action, *arguments)

    def _joined(self, channel: Channel, message: msgspec.Struct) -> None:
        if not channel.open:
            return
        channel.joined = True
        self._list_idle(channel)
        self._tell_tracker(message)
        self._hand_out()

    def _finished(self, channel: Channel, message: TaskSucceeded | TaskFailed) -> None:
        if self._model.embedded and not channel.open:
            return  # of a master that has ended, and its workers with it
        if (held := channel.held) is not None and (held.task, held.attempt) == (message.task, message.attempt):
            channel.held = None
            self._hop(self._tell_of_copy, message)
        elif message.attempt in channel.assigned:
            del channel.assigned[message.attempt]
            self._hop(self._tell_of_copy, message)
        else:
            self._hop(self._tell_tracker, message)
        self._list_idle(channel)
        if self._chance(self._model.doubling):
            self._hop(self._tell_tracker, message)
        self._hand_out()

    def _close(self, channel: Channel, reason: str) -> None:
        if not channel.open:
            return
        channel.open = False
        worker = channel.worker
        if self._channels.get(worker.name) is channel:
            del self._channels[worker.name]
            self._tell_of_loss(WorkerLost(worker.name, reason), list(channel.assigned.values()))
        else:
            for task in channel.assigned.values():
                self._drop_copy(task)
        channel.assigned.clear()
        stalled, channel.stalled = channel.stalled, []
        for action, arguments in stalled:
            if action == self._finished:
                worker.not_delivered(arguments[1])
        if (message := channel.held) is not None:
            channel.held = None
            if message.delivery >= self._model.delivery_limit:
                self.dead.add(message.task)
                self._hop(self._tell_of_copy, TaskDeadLettered(message.task, message.delivery))
            else:
                self._queue.appendleft(msgspec.structs.replace(message, delivery=message.delivery + 1))
                self._hop(self._tell_tracker, TaskReturned(message.task, message.delivery))
        worker.disconnected(channel)
        self._hand_out()

    def _notice_later(self, channel: Channel) -> None:
        self._system.after(self._draw.uniform(*self._model.notice_seconds), self._notice, channel)

    def _notice(self, channel: Channel) -> None:
        if channel.cut or channel.worker.frozen:
            self._close(channel, "fell silent")

    def _tell_of_copy(self, message: TaskSucceeded | TaskFailed | TaskDeadLettered) -> None:
        """Tell how one copy of a task ended; it counts as pending until the tracker hears of it."""
        if self._backlog is None:
            self._drop_copy(message.task)
            self._system.deliver(TRACKER, message)
        else:
            self._backlog.append(message)
            self._drop_copy(message.task)

    def _tell_of_loss(self, message: WorkerLost, assigned: list[TaskId]) -> None:
        """Tell that a worker is lost, and with it the copies that it was assigned, when the tracker hears of it."""

        def tell(lost: msgspec.Struct) -> None:
            self._tell_tracker(lost)
            for task in assigned:
                self._drop_copy(task)

        self._hop(tell, message)

    def _tell_tracker(self, message: msgspec.Struct) -> None:
        if self._backlog is None:
            self._system.deliver(TRACKER, message)
        elif isinstance(message, TaskSucceeded | TaskFailed | TaskDeadLettered):
            self._backlog.append(message)

    def _drop_copy(self, task: TaskId) -> None:
        self.pending[task] -= 1
        if not self.pending[task]:
            del self.pending[task]

    def _delay(self) -> float:
        low, high = self._model.delay_seconds
        return low if low == high else self._draw.uniform(low, high)

    def _hop(self, action: Callable[..., None], message: msgspec.Struct) -> None:
        """Bring a message from the broker to the master: at once where they are one process."""
        if self._model.embedded:
            action(message)
        else:
            self._system.after(self._delay(), action, message)

    def _chance(self, share: float) -> bool:
        return share > 0.0 and self._draw.random() < share
