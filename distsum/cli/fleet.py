"""``distsum mean … --fleet FILE``: one job on workers that are brought to other hosts for it, and gone after it.

The job is one of a service. Where a master serves the broker's virtual host, that does it; otherwise this process is
the master for as long as the job takes, with its work in the fleet's store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from distsum.cli import streams
from distsum.cli.lender import lender
from distsum.cli.options import paths_of, service_options
from distsum.cli.processes import make_folder
from distsum.cli.service import follow, interrupted_by
from distsum.cli.submitting import submit_job
from distsum.errors import InterruptedRunError, UnreachableError, UsageError
from distsum.wording import byte_size, counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType

    from distsum.brokers.address import BrokerAddress
    from distsum.cli.options import FileName, RunFlags
    from distsum.config import Settings
    from distsum.request import ReductionName
    from distsum.service.client import ServiceClient

_MASTER_SECONDS: Final = 60.0
"""How long a master may take to answer, be it this process's own."""
_ANSWER_SECONDS: Final = 20.0
_ENDING_SECONDS: Final = 10.0
_MOMENT_SECONDS: Final = 1.0
"""Between a master's first answer and when this process knows that it is that master."""


class Loan(Protocol):
    """A fleet's workers for one job.

    What lends them is made of a file, settings, a function that tells a person something, and ``broker_given``: whether
    the settings' broker counts more than the file's.
    """

    broker: BrokerAddress
    store: str
    memory_bytes: int

    async def hold(self, on_ready: Callable[[int], None]) -> None:
        """Bring them up, tell how many are ready, and hold them until they are released or this is cancelled."""
        ...

    def release(self, *, at_once: bool) -> None:
        """Let them go, from the event loop that holds them, with their tasks at hand finished or not."""
        ...


def run_on_fleet(
    reduction: ReductionName,
    inputs: Sequence[FileName],
    output: FileName,
    flags: RunFlags,
    settings: Settings,
    file: FileName,
    *,
    broker_given: bool,
    speculation_given: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Have a job done by a fleet's workers as if it were done here, and leave the hosts as they were.

    Raises:
        UnreachableError: There is no broker or store, or no host has workers.
        JobError: The job has failed.
        InterruptedRunError: Ctrl-C or SIGTERM; the same command goes on with the job.
    """

    def say(line: str) -> None:
        if not settings.quiet:
            streams.say(f"distsum: {line}")

    loan: Loan = lender()(os.fspath(file), settings, say, broker_given=broker_given)
    options = service_options(flags, settings, force=force)
    _check_job(inputs, output, settings, force=force)
    with interrupted_by(signal.SIGTERM), _Beside(loan, settings, say) as beside, _client(loan) as client:
        beside.serve()
        beside.await_master(client, speculation_given=speculation_given)
        workers = beside.bring_up()
        say(f"{counted(workers, 'worker')} of the fleet ready")
        import msgspec

        if options.workers is None:
            options = msgspec.structs.replace(options, workers=workers)
        if loan.memory_bytes < options.memory_bytes:
            say(f"planned for {byte_size(loan.memory_bytes)} a worker, as {printable(os.fspath(file))} says")
            options = msgspec.structs.replace(options, memory_bytes=loan.memory_bytes)
        job = submit_job(client, reduction, inputs, output, options, settings, joins=True)
        say(f"job {job} of {loan.broker}")
        follow(
            client,
            job,
            settings,
            as_json=as_json,
            goes_on=f"job {job} is stored; the same command goes on with it, and so does a master that serves "
            f"{printable(loan.store)}",
        )


def _check_job(inputs: Sequence[FileName], output: FileName, settings: Settings, *, force: bool) -> None:
    """Find before hosts are asked what is wrong with a job by its names."""
    from contextlib import closing

    from distsum.preparation import check_output
    from distsum.stores.routing import RoutingStore

    with closing(RoutingStore(settings.s3_deadline)) as store:
        check_output(os.fsencode(output), paths_of(inputs, settings), store, force=force)


def _client(loan: Loan) -> ServiceClient:
    from distsum.service.rabbitmq import connect
    from distsum.stores.routing import RoutingStore

    return connect(loan.broker, RoutingStore(), _ANSWER_SECONDS)


class _Beside:
    """What goes on beside the job, on an event loop in a thread: the fleet's connections, and a master.

    A context manager: at its end the hosts are let go, at once where the block ends with an error, and then the master.
    """

    def __init__(self, loan: Loan, settings: Settings, say: Callable[[str], None]) -> None:
        self._loan = loan
        self._settings = settings
        self._say = say
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distsum fleet", daemon=True)
        self._tasks: dict[Future[None], asyncio.Task[None]] = {}
        self._is_master = threading.Event()
        self._serving: Future[None] | None = None
        self._holding: Future[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._holding is not None:
                self._let_go(self._holding, at_once=kind is not None)
        finally:
            if self._serving is not None:
                self._cancel(self._serving)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def serve(self) -> None:
        """Begin to be a master, which waits where there is one."""
        from contextlib import closing

        from distsum.logs import LogStyle, begin_logging
        from distsum.service.rabbitmq import serve
        from distsum.stores.routing import RoutingStore, is_remote

        # Its story is told by the job's own lines; what is left are faults.
        begin_logging(sys.stderr, LogStyle("error"), secrets=self._loan.broker.secrets)
        work = self._work()
        if not is_remote(work):
            make_folder(work, "store")

        async def serving() -> None:
            with closing(RoutingStore(self._settings.s3_deadline)) as store:
                await serve(
                    self._loan.broker,
                    store,
                    work,
                    on_ready=self._is_master.set,
                    management=self._settings.management,
                    speculation=self._settings.speculation,
                )

        self._serving = self._start(serving())

    def await_master(self, client: ServiceClient, *, speculation_given: bool) -> None:
        """Wait until a master answers, be it ours.

        Raises:
            UnreachableError: None does.
            UsageError: Another one does, and speculation was asked for, which is the master's.
            ServiceError: It is of another version.
        """
        assert self._serving is not None
        deadline = time.monotonic() + _MASTER_SECONDS
        service = None
        while service is None:
            try:
                service = client.fitting_service()
            except UnreachableError:
                if self._serving.done():
                    self._serving.result()  # raises what has kept ours from serving
                if time.monotonic() > deadline:
                    raise
        if service.work != self._work():
            self._cancel(self._serving)  # Should that one end, ours would not know of its jobs.
            self._say(f"a master serves there, with its work in {printable(service.work)}")
        elif self._is_master.wait(_MOMENT_SECONDS if speculation_given else 0.0):
            return
        if speculation_given:
            raise UsageError("--speculation: a service's master says what is done about stragglers; leave it out here")

    def bring_up(self) -> int:
        """Bring the hosts up; return how many workers are ready.

        Raises:
            UnreachableError: None is.
        """
        ready: Future[int] = Future()
        holding = self._holding = self._start(self._loan.hold(ready.set_result))
        holding.add_done_callback(lambda _: ready.cancel())  # without effect once it is set
        try:
            workers = ready.result()
        except CancelledError:
            holding.result()
            raise
        if not workers:
            raise UnreachableError("no host of the fleet has workers; see what is said of each above")
        return workers

    def _work(self) -> bytes:
        from distsum.stores.routing import absolute_folder

        return absolute_folder(os.fsencode(self._loan.store))

    def _let_go(self, holding: Future[None], *, at_once: bool) -> None:
        self._loop.call_soon_threadsafe(lambda: self._loan.release(at_once=at_once))
        try:
            wait_for((holding,))
        except KeyboardInterrupt:
            self._say("ended at once; `distsum fleet down` removes what is left on hosts")
            self._cancel(holding)
            raise InterruptedRunError("interrupted while the hosts were let go") from None
        holding.result()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        ended: Future[None] = Future()

        async def run() -> None:
            try:
                await coroutine
            except asyncio.CancelledError:
                ended.set_result(None)
            except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
                ended.set_exception(error)
            else:
                ended.set_result(None)

        def begin() -> None:
            self._tasks[ended] = asyncio.ensure_future(run())

        self._loop.call_soon_threadsafe(begin)
        return ended

    def _cancel(self, ended: Future[None]) -> None:
        """Cancel what goes on, and wait for its end; an error of it is nobody's any more."""
        self._loop.call_soon_threadsafe(self._cancel_there, ended)
        wait_for((ended,), timeout=_ENDING_SECONDS)

    def _cancel_there(self, ended: Future[None]) -> None:
        self._tasks[ended].cancel()
