"""A fleet as a whole: every host at once, each for itself; what goes wrong at one does not hold up the others."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.errors import DistsumError

from .environment import Wheels, gather
from .faults import HostFault
from .host_session import HostSession, LogPlace, Means, broker_user, worker_prefix
from .planning import Found, Scale, Start, Stop, Switch, Wanted, Worker, actions, differ
from .shares import AS_IN_FILE, Shares

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from .connections import Connections
    from .environment import Platform
    from .fleetfile import Host
    from .planning import Action
    from .preflight import Facts
    from .state import Scaled
    from .users import Users

_QUEUES_SECONDS: Final = 15.0
_LOOK_AGAIN_SECONDS: Final = 5.0
"""Between looks at a host with nothing to hold: what another command or master held there may have ended."""
_RETRY_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one host.

    Attributes:
        host: Its name.
        fault: What is wrong, with the remedy; None where all is well.
        unreachable: Whether it could not be reached.
        actions: What was done, or would be.
        environment: What its workers run in.
        wanted: How many workers its supervisor keeps; None where there is none.
        detached: Whether they live on without a command that holds them; None likewise.
        workers: Its workers.
        uploaded_bytes: How much was uploaded.
        proof: What was looked for and not found, by ``down``.
    """

    host: str
    fault: str | None = None
    unreachable: bool = False
    actions: tuple[str, ...] = ()
    environment: str | None = None
    wanted: int | None = None
    detached: bool | None = None
    workers: tuple[Worker, ...] = ()
    uploaded_bytes: int = 0
    proof: tuple[str, ...] = ()


class Release(asyncio.Event):
    """That held hosts are to be let go.

    Attributes:
        at_once: Whether tasks at hand need not be finished.
    """

    at_once = False


class Gathering:
    """Gathers the wheels of each platform once, however many hosts ask.

    Args:
        cache: Folder that keeps them.
        say: Tells a person.
    """

    def __init__(self, cache: str, say: Callable[[str, str], None]) -> None:
        self._cache = cache
        self._say = say
        self._locks: dict[Platform, asyncio.Lock] = {}
        self._gathered: dict[Platform, Wheels] = {}

    async def __call__(self, platform: Platform) -> Wheels:
        async with self._locks.setdefault(platform, asyncio.Lock()):
            if platform not in self._gathered:

                def tell() -> None:
                    self._say("here", f"download the wheels for {platform}")

                self._gathered[platform] = await asyncio.to_thread(gather, platform, self._cache, tell)
            return self._gathered[platform]


class Rollout:
    """Does something to the hosts of a fleet.

    Args:
        means: What they share.
        hosts: Those that are meant, by the file or by options.
        connections: Makes the connections.
        everyone: All hosts of the fleet, which share the workers.
        scaled: How many workers are wanted, where the file does not say.
        on_report: Told of each host's report as it comes.

    Attributes:
        fresh: Hosts that had nothing of the fleet when they were looked at first, of those that were to get some.
    """

    def __init__(
        self,
        means: Means,
        hosts: Sequence[Host],
        connections: Connections,
        everyone: Sequence[Host],
        scaled: Scaled = AS_IN_FILE,
        on_report: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._means = means
        self._hosts = hosts
        self._connections = connections
        self._shares = Shares(everyone, scaled)
        self._on_report = on_report
        self._seen: set[str] = set()
        self.fresh: list[Host] = []

    async def plan(self) -> list[Report]:
        """Tell what ``up`` would do; nothing is changed."""

        async def work(session: HostSession) -> Report:
            _, found, steps = await self._planned(session)
            return _report(session, found, steps)

        async with self._counting():
            return await self._each(work)

    async def up(self) -> list[Report]:
        """Bring every host to what is wanted, with workers that live on without this command."""
        async with self._counting():
            return await self._each(lambda session: self._bring_up(session, detached=True))

    @property
    def wanted(self) -> int | None:
        """How many workers the hosts are to have together; None before each was looked at."""
        return self._shares.total

    def resize(self, total: int | None) -> None:
        """Have another number of workers in all on hosts that are held: begun at once, and told of by ``say``.

        Args:
            total: How many; None is what the file says of each host.
        """
        self._shares.resize(total)

    async def hold(self, released: Release, *, resizable: bool = False) -> list[Report]:
        """Bring every host to what is wanted, and hold the workers until released; then drain and end them.

        A host whose connection ends is connected and brought up again. Hosts whose workers are held by others, or are
        detached, are left alone once they are as wanted.

        Args:
            released: Ends it.
            resizable: Whether hosts with nothing to hold are waited with, too, for ``resize`` to give them workers.
        """
        async with self._counting():
            held = (self._held(host, released, resizable=resizable) for host in self._hosts)
            return list(await asyncio.gather(*held))

    async def status(self) -> list[Report]:
        """Tell how every host is doing."""

        async def work(session: HostSession) -> Report:
            return _report(session, await session.found(), ())

        return await self._each(work)

    async def drain(self) -> list[Report]:
        """Let the workers finish their tasks, and end them; what is installed stays."""

        async def work(session: HostSession) -> Report:
            found = await session.found()
            environment = found.current or ""
            steps = actions(Wanted(environment=environment, workers=0), found, stop=True)
            for step in steps:
                await session.carry_out(step, None, detached=False)
            return _report(session, await session.found(), steps)

        return await self._each(work)

    async def upgrade(self) -> list[Report]:
        """Move hosts to the wanted environment, one after the other, as long as all goes well."""
        reports: list[Report] = []
        async with self._counting(one_by_one=True):
            for host in self._hosts:
                if any(report.fault is not None and not report.unreachable for report in reports):
                    reports.append(Report(host=host.name, fault="left as it was, since the host before it failed"))
                    self._on_report(reports[-1])
                    continue
                reports.append(await self._one(host, self._upgraded))
        return reports

    async def down(self, hosts: Sequence[Host] | None = None) -> list[Report]:
        """Remove everything from hosts, and their users at the broker; tell what was looked for and not found.

        Args:
            hosts: Which; None is all.
        """

        async def work(session: HostSession) -> Report:
            steps = actions(None, await session.found())
            for step in steps:
                await session.carry_out(step, None, detached=False)
            left = await session.found()
            if left.processes or left.files:
                raise HostFault("something is left; run `distsum fleet down` again, or look there")
            proof: tuple[str, ...] = ("no process", "no file of the fleet")
            if self._means.users is not None:
                proof = (*proof, *await self._revoked(self._means.users, session.host))
            return msgspec.structs.replace(_report(session, left, steps), proof=proof)

        return await self._each(work, self._revoke_anyway, hosts)

    async def each_session(self, work: Callable[[HostSession], Awaitable[Report]]) -> list[Report]:
        """Do something else with every host."""
        return await self._each(work)

    async def logs(self, lines: int, on_line: Callable[[str, str], None], *, follow: bool) -> list[Report]:
        """Tell the last lines of every host's log after its name, and with ``follow`` what comes, until cancelled.

        Where it is followed, a host that goes away is connected again, and told of from where it was.
        """

        async def one(host: Host) -> Report:
            place = LogPlace()
            pauses = iter(_RETRY_SECONDS)
            said = None

            def tell(line: str) -> None:
                nonlocal pauses, said
                pauses, said = iter(_RETRY_SECONDS), None
                on_line(host.name, line)

            while True:
                try:
                    async with self._connections.to(host) as connection:
                        session = HostSession(self._means, host, connection)
                        await session.follow(lines, place, tell, follow=follow)
                        return Report(host=host.name)
                except HostFault as fault:
                    if not (follow and fault.unreachable):
                        if follow:  # the others may go on for ever
                            self._means.say(host.name, f"{fault}; it is not followed")
                        return Report(host=host.name, fault=str(fault), unreachable=fault.unreachable)
                    if str(fault) != said:
                        said = str(fault)
                        self._means.say(host.name, f"{fault}; it is followed again when it is back")
                await asyncio.sleep(next(pauses, _RETRY_SECONDS[-1]))

        return list(await asyncio.gather(*map(one, self._hosts)))

    # Parts ------------------------------------------------------------------------------------------------------------

    async def _each(
        self,
        work: Callable[[HostSession], Awaitable[Report]],
        otherwise: Callable[[Host], Awaitable[str]] | None = None,
        hosts: Sequence[Host] | None = None,
    ) -> list[Report]:
        reports: dict[str, Report] = {}
        meant = self._hosts if hosts is None else hosts

        async def one(host: Host) -> None:
            reports[host.name] = await self._one(host, work, otherwise)

        async with asyncio.TaskGroup() as group:
            for host in meant:
                group.create_task(one(host))
        return [reports[host.name] for host in meant]

    async def _one(
        self,
        host: Host,
        work: Callable[[HostSession], Awaitable[Report]],
        otherwise: Callable[[Host], Awaitable[str]] | None = None,
    ) -> Report:
        try:
            async with self._connections.to(host) as connection:
                report = await work(HostSession(self._means, host, connection))
        except HostFault as fault:
            more = "" if otherwise is None else await otherwise(host)
            report = Report(host=host.name, fault=f"{fault}{more}", unreachable=fault.unreachable)
        finally:
            self._shares.note(host, None)
        self._on_report(report)
        return report

    async def _planned(self, session: HostSession, *, upgrade: bool = False) -> tuple[Facts, Found, tuple[Action, ...]]:
        facts, clock_seconds, took_seconds = await session.probe()
        if session.host.name not in self._seen and not facts.found.files:
            self.fresh.append(session.host)
        self._seen.add(session.host.name)
        own = facts.cpus if session.host.workers is None else session.host.workers
        self._shares.note(session.host, own)
        workers = await self._shares.of(session.host, own)
        session.check(facts, workers, clock_seconds, took_seconds)
        environment = await session.environment(facts) if workers else facts.found.current or ""
        wanted = Wanted(environment=environment, workers=workers, terms=session.terms)
        running = facts.found.supervisor
        if running is not None and not running.detached and differ(wanted, running):
            raise HostFault(
                f"another command holds its workers, with {running.terms}; end that, or give one of the two fleets "
                "another name"
            )
        return facts, facts.found, actions(wanted, facts.found, upgrade=upgrade)

    @contextlib.asynccontextmanager
    async def _counting(self, *, one_by_one: bool = False) -> AsyncIterator[None]:
        """Count beside the block on hosts that share the workers and are not meant, or are not asked at once.

        Args:
            one_by_one: Whether the block asks the hosts that are meant one after the other.
        """
        others = self._shares.unasked(() if one_by_one else self._hosts)
        tasks = [asyncio.ensure_future(self._count(host)) for host in others]
        try:
            yield
        finally:
            # Who is still being asked is not needed any more.
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _count(self, host: Host) -> None:
        try:
            async with self._connections.to(host) as connection:
                facts, _, _ = await HostSession(self._means, host, connection).probe()
                self._shares.note(host, facts.cpus if host.workers is None else host.workers)
        except HostFault:
            pass  # it has no share; what is wrong is told by whoever means it
        finally:
            self._shares.note(host, None)

    async def _bring_up(self, session: HostSession, *, detached: bool) -> Report:
        facts, found, steps = await self._planned(session)
        for step in steps:
            await session.carry_out(step, facts, detached=detached)
        if steps:
            found = await session.found()
        if found.supervisor is not None and any(each.state != "ready" for each in found.supervisor.workers):
            found = await session.await_ready(found.supervisor.wanted)
        return _report(session, found, steps)

    async def _held(self, host: Host, released: Release, *, resizable: bool) -> Report:
        pauses = iter(_RETRY_SECONDS)
        first: Report | None = None
        said = ""
        while True:
            try:
                async with self._connections.to(host) as connection:
                    session = HostSession(self._means, host, connection)
                    resized = self._shares.changed  # before the number is read, so that none is missed
                    report = await self._bring_up(session, detached=False)
                    if first is None:
                        first = report
                        self._on_report(report)
                    if session.holding is None and not resizable:
                        return first
                    pauses, said = iter(_RETRY_SECONDS), ""
                    told_to_end = await self._held_in_size(session, resized, released)
                    if released.is_set():
                        if session.holding is None:
                            return first
                        if released.at_once:
                            session.drain_seconds = 0.0
                        await session.carry_out(Stop(len(report.workers)), None, detached=False)
                        return first
                    if told_to_end:
                        self._means.say(host.name, "its workers were ended by another command")
                        return first
                    self._means.say(host.name, "its workers have ended, or the connection; they are brought up again")
            except HostFault as fault:
                if first is None:
                    first = Report(host=host.name, fault=str(fault), unreachable=fault.unreachable)
                    self._on_report(first)
                    if not resizable:
                        return first
                elif str(fault) != said:
                    self._means.say(host.name, str(fault))
                said = str(fault)
            finally:
                self._shares.note(host, None)
            if released.is_set():
                return first
            pause = next(pauses, _RETRY_SECONDS[-1])
            await _first(asyncio.sleep(pause), released.wait())
            if released.is_set():
                return first

    async def _held_in_size(self, session: HostSession, resized: asyncio.Event, released: Release) -> bool:
        """Hold a host through changes of the number of workers; return what ``HostSession.hold`` does, or at release.

        Raises:
            HostFault: The host cannot be reached any more.
        """
        while True:
            holding = session.holding is not None
            kept = session.hold() if holding else asyncio.sleep(_LOOK_AGAIN_SECONDS, result=False)
            told_to_end = await _first(kept, resized.wait(), released.wait())
            if released.is_set() or (holding and not resized.is_set()):
                return bool(told_to_end)
            if not resized.is_set() and (await session.found()).supervisor is not None:
                continue  # another command's, which alone changes their number until it ends
            resized = self._shares.changed
            try:
                # The supervisor hears of us meanwhile, so that it does not end the workers.
                if session.holding is None:
                    await self._resize(session)
                else:
                    await _first(self._resize(session), session.hold())
            except HostFault as fault:
                if fault.unreachable:
                    raise
                self._means.say(session.host.name, str(fault))  # its other workers go on

    async def _resize(self, session: HostSession) -> None:
        facts, _, steps = await self._planned(session)
        for step in steps:
            if isinstance(step, Scale):
                # Who has tasks to finish is not waited for: the number may be another one before they have.
                self._means.say(session.host.name, str(step))
                await session.scale(step)
            else:
                await session.carry_out(step, facts, detached=False)
        for step in steps:
            if isinstance(step, Start) or (isinstance(step, Scale) and step.workers > step.before):
                await session.await_ready(step.workers)
                self._means.say(session.host.name, f"{step.workers} ready")

    async def _upgraded(self, session: HostSession) -> Report:
        facts, found, steps = await self._planned(session, upgrade=True)
        before = found.supervisor
        if before is not None and not before.detached and any(isinstance(step, Stop) for step in steps):
            raise HostFault(
                "its workers are held by `distsum fleet up` or a master; end that and start it again, which upgrades"
            )
        try:
            for step in steps:
                await session.carry_out(step, facts, detached=True)
        except HostFault as fault:
            if found.current is None or before is None:
                raise
            self._means.say(session.host.name, f"{fault}; going back to environment {found.current}")
            back: list[Action] = [Stop(before.wanted), Switch(found.current, None), Start(before.wanted)]
            for step in back:
                await session.carry_out(step, facts, detached=True)
            raise HostFault(f"was put back to environment {found.current}: {fault}") from None
        return _report(session, await session.found() if steps else found, steps)

    async def _revoked(self, users: Users, host: Host) -> tuple[str, ...]:
        try:
            await asyncio.to_thread(users.remove, broker_user(self._means.fleet, host))
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _QUEUES_SECONDS
            while queues := await asyncio.to_thread(users.queues, worker_prefix(self._means.fleet, host)):
                if loop.time() > deadline:
                    raise HostFault(f"the broker still has the queue {queues[0]}; see who uses it")
                await asyncio.sleep(0.2)
        except DistsumError as error:
            raise HostFault(str(error)) from None
        return ("no user at the broker", "no queue")

    async def _revoke_anyway(self, host: Host) -> str:
        """Shut a host out of the broker that could not be cleared; say so."""
        if self._means.users is None:
            return ""
        try:
            removed = await asyncio.to_thread(self._means.users.remove, broker_user(self._means.fleet, host))
        except DistsumError as error:
            return f"; and {error}"
        return "; its user at the broker was removed, so its workers can do nothing more" if removed else ""


async def _first(*waits: Awaitable[Any]) -> Any:
    """Return the result of the first that ends; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(session: HostSession, found: Found, steps: Sequence[Action]) -> Report:
    running = found.supervisor
    return Report(
        host=session.host.name,
        actions=tuple(map(str, steps)),
        environment=running.environment if running is not None else found.current,
        wanted=None if running is None else running.wanted,
        detached=None if running is None else running.detached,
        workers=() if running is None else running.workers,
        uploaded_bytes=session.uploaded_bytes,
    )


def select(hosts: Sequence[Host], names: Sequence[str], labels: Sequence[str]) -> tuple[Host, ...]:
    """Return the hosts with any of some names and any of some labels, in order; no names or labels are all (pure)."""
    return tuple(
        host for host in hosts if (not names or host.name in names) and (not labels or set(labels) & set(host.labels))
    )
