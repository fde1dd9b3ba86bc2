"""A service's views from elsewhere: followed over RabbitMQ by a thread of its own, through whatever happens to it.

What a viewer has stays while nothing new is heard, and says how old it is. A broker that is lost is tried again, and a
master that is replaced is followed by its successor.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from distsum.brokers.amqp import NoSuchQueueError, SessionLostError, backoff_seconds
from distsum.brokers.envelope import APPLICATION, MAX_MESSAGE_BYTES, PROTOCOL_HEADER
from distsum.brokers.rabbitmq_requests import open_questions
from distsum.brokers.topology import (
    EVENTS_EXCHANGE,
    SERVICE_EVENTS,
    VIEWER_ARGUMENTS,
    VIEWS_CHANNEL,
    job_events,
    viewer_queue,
)
from distsum.errors import ServiceError, UnreachableError
from distsum.messages import PROTOCOL
from distsum.observe.feed import FeedReader, FrameError
from distsum.observe.view import JobView
from distsum.service import messages as channel
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from distsum.brokers.address import BrokerAddress
    from distsum.brokers.amqp import Delivery
    from distsum.brokers.rabbitmq_requests import Questions

_View = TypeVar("_View", bound=msgspec.Struct)
log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 5.0
"""A third of the time for which a master tells."""
STALE_SECONDS: Final = 3.0
"""Even where nothing changes a master says so every second."""
_ANSWER_SECONDS: Final = 5.0
_ASK_AGAIN_SECONDS: Final = 0.5
"""Between two questions for the same thing, at least, however much is missed."""
_PREFETCH: Final = 8
"""What waits beyond these waits at the broker, where what is old is dropped."""
_ACKNOWLEDGED_TOGETHER: Final = _PREFETCH // 2
"""An acknowledgement costs both sides about as much as a frame; the other half is on its way meanwhile."""
_PATIENT_FAILURES: Final = 3
"""From then on the pauses before another attempt to connect get no longer: somebody sits there and waits."""
_JOB: Final = re.compile(r"[0-9A-Za-z_-]{1,80}")
"""What may be a job's id: it becomes part of a routing key, in which some characters mean something."""
_CLOSE_SECONDS: Final = 5.0


class Connection(NamedTuple):
    """How a viewer stands to the service.

    Attributes:
        state: ``connecting`` before the first answer; ``connected``; ``silent`` where the broker is there and no master
            is heard; ``lost`` where the broker is not.
        words: What is wrong, harmless to show; empty of what is well. That a broker that is lost is tried again
            follows from the state, and is not told here.
        heard_seconds: How long ago something was heard of the master; None if it never was.
        replaced_seconds: How long ago another master was heard in place of the one before; None if none was.
    """

    state: str
    words: str
    heard_seconds: float | None
    replaced_seconds: float | None


class Followed(Generic[_View]):
    """A view that is followed.

    Attributes:
        job: The job that it is of; None is the service.
        reader: What puts it together.
        heard: When something was last heard of it, by the monotonic clock; None before.
        ended: The job's end, if it was not under way any more when it was asked for.
        refused: Why the master tells nothing of it.
    """

    def __init__(self, job: str | None, kind: type[_View]) -> None:
        self.job = job
        self.reader = FeedReader(kind)
        self.heard: float | None = None
        self.ended: channel.JobStatus | None = None
        self.refused: str | None = None
        self.wanted = asyncio.Event()

    @property
    def key(self) -> str:
        """The routing key of what is told of it."""
        return SERVICE_EVENTS if self.job is None else job_events(self.job)

    @property
    def is_possible(self) -> bool:
        """Whether there can be such a job."""
        return self.job is None or _JOB.fullmatch(self.job) is not None

    @property
    def view(self) -> _View | None:
        """The newest view; None before there is one."""
        return self.reader.view


class Viewer(Generic[_View]):
    """Follows a service, and one job at a time.

    Args:
        address: The virtual host.
        kind: The type of the service's view.

    Attributes:
        service: The service's view.
        job: The view of the job that is followed; None if none is.
    """

    def __init__(self, address: BrokerAddress, kind: type[_View]) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distsum viewer", daemon=True)
        self._draw = random.Random()  # noqa: S311 - spreads reconnections, and keeps no secret
        self._changed = asyncio.Event()
        self._runner: asyncio.Future[None] | None = None
        self._questions: Questions | None = None
        self._fault = ""
        self._lost_broker = False
        self._master = ""
        self._replaced: float | None = None
        self.service: Followed[_View] = Followed(None, kind)
        self.job: Followed[JobView] | None = None
        self._thread.start()

    def start(self) -> None:
        """Connect, and follow from then on.

        Raises:
            UnreachableError: The broker does not answer, or does not let us in.
        """
        questions = self._call(self._first())
        self._loop.call_soon_threadsafe(self._begin, questions)

    def close(self) -> None:
        """Follow nothing any more."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def follow(self, job: str | None) -> None:
        """Follow a job in place of the one before, or none; from any thread."""
        if job != (self.job.job if self.job is not None else None):
            followed = None if job is None else Followed(job, JobView)
            if followed is not None and not followed.is_possible:
                followed.refused = f"there is no job {printable(job or '', 80)}; `distsum jobs` lists them"
            self.job = followed
            self._loop.call_soon_threadsafe(self._changed.set)

    def look(self, request: channel.LookRequest, seconds: float) -> channel.AnyReply:
        """Ask the master for what changes nothing; from any thread but the viewer's.

        Raises:
            UnreachableError: There is no broker at the moment, or no master answers in time.
            ServiceError: The question is refused.
        """
        return self.begin_look(request, seconds).result()

    def begin_look(self, request: channel.LookRequest, seconds: float) -> Future[channel.AnyReply]:
        """Ask as ``look`` does, and do not wait; from any thread."""
        return asyncio.run_coroutine_threadsafe(self._look(request, seconds), self._loop)

    def connection(self) -> Connection:
        """Return how it stands; from any thread.

        Raises:
            BaseException: What has ended the thread's work, which is a fault in distsum.
        """
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            self._runner.result()
        now = time.monotonic()
        heard = max((each.heard for each in (self.service, self.job) if each and each.heard is not None), default=None)
        age = None if heard is None else now - heard
        if self._lost_broker:
            state = "lost"
        elif age is None:
            state = "silent" if self._fault else "connecting"
        else:
            state = "connected" if age < STALE_SECONDS else "silent"
        words = "" if state in {"connected", "connecting"} else self._fault or "nothing is heard of the master"
        return Connection(state, words, age, None if self._replaced is None else now - self._replaced)

    # Below, all runs in the thread ------------------------------------------------------------------------------------

    def _call(self, body: Coroutine[None, None, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(body, self._loop).result()

    async def _look(self, request: channel.LookRequest, seconds: float) -> channel.AnyReply:
        if self._questions is None:
            raise UnreachableError(f"{self._address}: not connected at the moment")
        try:
            reply: channel.AnyReply = channel.REPLY.decode(
                await self._questions.ask(msgspec.msgpack.encode(request), seconds)
            )
        except (SessionLostError, NoSuchQueueError, TimeoutError):
            raise UnreachableError(f"{self._address}: no master answers") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnreachableError(f"the master's answer is none that this version knows: {error}") from None
        return reply

    async def _first(self) -> Questions | None:
        try:
            return await open_questions(self._address, "distsum viewer", VIEWS_CHANNEL)
        except NoSuchQueueError:
            return None  # No master was ever there, or it is starting.
        except SessionLostError as error:
            raise UnreachableError(f"{self._address}: {error}") from None

    def _begin(self, questions: Questions | None) -> None:
        self._runner = asyncio.ensure_future(self._run(questions))

    async def _end(self) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=_CLOSE_SECONDS)

    async def _run(self, questions: Questions | None) -> None:
        failures = 0
        while True:
            if questions is None:
                await asyncio.sleep(backoff_seconds(min(failures, _PATIENT_FAILURES), self._draw))
                failures += 1
                questions = await self._connect()
                continue
            failures = 0
            self._lost_broker, self._fault, self._questions = False, "", questions
            try:
                reason = await self._serve(questions)
            finally:
                self._questions = None
                await questions.session.close()
            self._lost_broker = True
            self._fault = f"{self._address}: the connection was lost ({reason})"
            questions = None

    async def _connect(self) -> Questions | None:
        try:
            return await open_questions(self._address, "distsum viewer", VIEWS_CHANNEL)
        except NoSuchQueueError:
            self._lost_broker = False
            self._fault = f"{self._address}: no master was ever there; `distsum master` starts one"
        except SessionLostError as error:
            self._lost_broker, self._fault = True, f"{self._address}: {error}"
        except UnreachableError as error:
            self._lost_broker, self._fault = True, str(error)
        return None

    async def _serve(self, questions: Questions) -> str:
        """Follow what is to be followed until the session ends; return why it did."""
        running: dict[Followed[Any], asyncio.Task[None]] = {}
        lost = asyncio.ensure_future(questions.session.wait_lost())
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            while True:
                if changed.done():
                    self._changed.clear()
                    changed = asyncio.ensure_future(self._changed.wait())
                wanted = {each for each in (self.service, self.job) if each is not None and each.is_possible}
                for gone in running.keys() - wanted:
                    running.pop(gone).cancel()
                for new in wanted - running.keys():
                    running[new] = asyncio.create_task(self._follow(new, questions))
                await asyncio.wait({lost, changed, *running.values()}, return_when=asyncio.FIRST_COMPLETED)
                for each in running.values():
                    if each.done():
                        each.result()
                if lost.done():
                    return lost.result()
        except (SessionLostError, NoSuchQueueError, UnreachableError) as error:
            return str(error) or "what a master makes is not there"
        finally:
            left = (lost, changed, *running.values())
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _follow(self, followed: Followed[Any], questions: Questions) -> None:
        """Follow one view until cancelled.

        Raises:
            SessionLostError: The session ended.
        """
        session = questions.session
        queue = viewer_queue(secrets.token_hex(8))
        await session.declare_own(queue, EVENTS_EXCHANGE, (followed.key,), VIEWER_ARGUMENTS, auto_delete=True)

        taken: list[Delivery] = []

        async def acknowledge() -> None:
            if taken:
                newest = taken[-1]
                taken.clear()
                await newest.acknowledge(with_earlier=True)

        async def on_frame(delivery: Delivery) -> None:
            self._take(followed, delivery)
            taken.append(delivery)
            if len(taken) >= _ACKNOWLEDGED_TOGETHER:
                await acknowledge()

        consumer = await session.consume(queue, on_frame, prefetch=_PREFETCH)
        try:
            while True:
                followed.wanted.clear()
                await self._ask(followed, questions)
                await acknowledge()  # RabbitMQ gives up who keeps one for too long, and there may be no fourth
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
                try:
                    async with asyncio.timeout(RENEW_SECONDS):
                        await followed.wanted.wait()
                except TimeoutError:
                    continue  # It is time to ask again.
        finally:
            if not session.is_lost:
                await consumer.cancel()

    async def _ask(self, followed: Followed[Any], questions: Questions) -> None:
        """Ask to be told of a view, and for the whole of it where that is missing."""
        reader = followed.reader
        request = channel.Watch(followed.job, "" if reader.needs_picture else reader.stream)
        try:
            answer = channel.REPLY.decode(await questions.ask(msgspec.msgpack.encode(request), _ANSWER_SECONDS))
        except TimeoutError:
            self._fault = f"no master answers at {self._address}; waiting for one"
            return
        except NoSuchQueueError:
            self._fault = f"no master was ever at {self._address}, or one of another version; waiting for one"
            return
        except ServiceError as error:
            self._fault = str(error)
            return
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._fault = f"the master's answer is none that this version knows: {printable(str(error), 200)}"
            return
        self._fault = ""
        self._hear(followed)
        match answer:
            case channel.Watching():
                followed.refused = None
                if answer.picture is not None:
                    self._take_frame(followed, answer.picture)
            case channel.Job():
                followed.ended = answer.status
            case channel.Refused():
                followed.refused = answer.reason

    def _take(self, followed: Followed[Any], delivery: Delivery) -> None:
        envelope = delivery.envelope
        if envelope.application != APPLICATION or envelope.headers.get(PROTOCOL_HEADER) != PROTOCOL:
            return
        if len(envelope.body) <= MAX_MESSAGE_BYTES:
            self._take_frame(followed, envelope.body)

    def _take_frame(self, followed: Followed[Any], frame: bytes) -> None:
        reader = followed.reader
        try:
            if reader.take(frame):
                self._hear(followed)
        except FrameError as error:
            log.info("a frame was left out: %s", error)
        if reader.needs_picture:
            followed.wanted.set()
        self._note_master(reader.stream.partition(".")[0])

    def _hear(self, followed: Followed[Any]) -> None:
        followed.heard = time.monotonic()

    def _note_master(self, name: str) -> None:
        if name and name != self._master:
            if self._master:
                self._replaced = time.monotonic()
            self._master = name
