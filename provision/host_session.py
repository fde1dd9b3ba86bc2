"""One host while it is connected: looks at it, and carries out what was planned for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncssh
import msgspec

from distsum.errors import DistsumError
from distsum.wording import byte_size, counted, printable
from distsum.worker.launch import MEMORY_VARIABLE

from .agent import FLEET_VARIABLE, LOG_AT, MARK
from .asking import NO_PYTHON, agent_answer, agent_command, agent_input, ask
from .endpoints import Endpoint, through_tunnel, tunnelled_broker
from .environment import Wheels, fit, here
from .faults import HostFault
from .planning import Found, Install, Prune, Remove, Scale, Start, Stop, Switch, Upgrade
from .preflight import Facts, findings, space_fault
from .supervisor import ANOTHER, HELD, LEASE_SECONDS, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distsum.brokers.address import BrokerAddress

    from .environment import Platform
    from .fleetfile import Host
    from .planning import Action
    from .users import Users

_PROBE_SECONDS: Final = 30.0
_INSTALL_SECONDS: Final = 900.0
_UPLOAD_SECONDS: Final = 900.0
_START_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 120.0
_END_SECONDS: Final = 5.0
_SLACK_SECONDS: Final = 15.0


@dataclass(frozen=True, kw_only=True)
class Means:
    """What all hosts of a command share.

    Attributes:
        fleet: Name of the fleet.
        broker: The broker, as the one who runs the command enters it; None where nothing is started.
        users: Makes a user for each host; None where the management API is not at hand: then all enter as we do.
        variables: Variables of the workers' environment, with the store's keys.
        store: URI or folder of the store.
        store_endpoint: Where its server is.
        gather: Returns the wheels of a platform, once for all hosts.
        say: Tells a person what goes on at a host.
        ready_seconds: How long workers may take to reach the broker.
        drain_seconds: How long tasks at hand may take to be finished.
        log: How supervisors and workers log, as ``logs.LogStyle`` words it.
    """

    fleet: str
    broker: BrokerAddress | None
    users: Users | None
    variables: Mapping[str, str]
    store: str | None
    store_endpoint: Endpoint | None
    gather: Callable[[Platform], Any]
    say: Callable[[str, str], None]
    ready_seconds: float
    drain_seconds: float
    log: str


@dataclass
class LogPlace:
    """Where in a host's log the telling of it is.

    Attributes:
        position: Bytes of the log that were told or skipped; None before its host has said anything.
    """

    position: int | None = None


async def _told(
    output: asyncssh.SSHReader[bytes], pythons: Sequence[str], place: LogPlace, on_line: Callable[[str], None]
) -> bool:
    """Tell what comes; return whether its host has said that this is all, and not the end of the connection."""
    began = False
    async for line in output:
        if not line.endswith(b"\n"):
            break  # the connection was lost within it; it is told in full when the telling goes on
        text = line.decode(errors="replace").rstrip("\n")
        if text.startswith((MARK, NO_PYTHON)):
            agent_answer(text, pythons)
            return True
        if text.startswith(LOG_AT):
            began = True
            place.position = int(text.removeprefix(LOG_AT))
        elif began:  # what a login shell prints comes before
            assert place.position is not None
            place.position += len(line)
            if text:
                on_line(text)
    return False


async def _holds(output: asyncssh.SSHReader[bytes]) -> bool:
    """Whether a supervisor says that it holds its fleet, after whatever a login shell prints; it may end instead."""
    async for line in output:
        if line.rstrip() == HELD.encode():
            return True
    return False


class HostSession:
    """A connected host.

    Args:
        means: What it shares with the others.
        host: What is wanted of it.
        connection: The way to it.

    Attributes:
        uploaded_bytes: How much was uploaded.
        holding: The channel that tethers its supervisor, once one was started so.
        drain_seconds: How long tasks at hand may take to be finished.
    """

    def __init__(self, means: Means, host: Host, connection: asyncssh.SSHClientConnection) -> None:
        self._means = means
        self.host = host
        self._connection = connection
        self._id = f"{means.fleet}@{_folder_name(host.name)}"
        self._pythons = (host.python,) if host.python else (f"python{here().python[0]}.{here().python[1]}", "python3")
        self._wheels: Wheels | None = None
        self._tunnels: list[asyncssh.SSHListener] = []
        self._ports: dict[Endpoint, int] = {}
        self._switched: str | None = None
        self.uploaded_bytes = 0
        self.holding: asyncssh.SSHClientProcess[bytes] | None = None
        self.drain_seconds = means.drain_seconds

    @property
    def user(self) -> str:
        """The broker user of this host."""
        return broker_user(self._means.fleet, self.host)

    @property
    def prefix(self) -> str:
        """What the names of this host's workers begin with."""
        return worker_prefix(self._means.fleet, self.host)

    @property
    def terms(self) -> str:
        """What workers are started with that cannot be changed while they run, in words without secrets."""
        broker, store = self._means.broker, self._means.store_endpoint
        assert broker is not None
        words = [f"{broker.scheme}://{broker.host}:{broker.port}/{printable(broker.vhost)}"]
        words += [f"S3 at {store.host}:{store.port}"] if store is not None else []
        words += [f"{byte_size(self.host.memory_bytes)} each"]
        return ", ".join([*words, *(["through a tunnel"] if self.host.tunnel else [])])

    # Looking

    async def probe(self) -> tuple[Facts, float, float]:
        """Ask the host what it is; return that, our clock then, and how long the answer took."""
        await self._open_tunnels()
        endpoints = self._endpoints()
        reach = [
            [("127.0.0.1" if each in self._ports else each.host), self._ports.get(each, each.port)]
            for each in endpoints
        ]
        store = self._means.store if self._means.store_endpoint is None else None
        began = time.monotonic()
        answer = await self._ask("probe", _PROBE_SECONDS, fleet=self._id, reach=reach, store=store)
        took = time.monotonic() - began
        facts = msgspec.convert(answer, Facts)
        return facts, time.time(), took

    async def found(self) -> Found:
        """Ask the host what it has of the fleet, and nothing else: it may be unfit to work."""
        return msgspec.convert(await self._ask("found", _PROBE_SECONDS, fleet=self._id), Found)

    async def environment(self, facts: Facts) -> str:
        """Return the identity of the environment that this host is to have; its wheels are gathered for that.

        Raises:
            HostFault: There are no wheels for it.
        """
        reason = fit(facts.platform, here())
        if reason is not None:
            raise HostFault(reason)
        self._wheels = await self._means.gather(facts.platform)
        assert self._wheels is not None
        return self._wheels.identity(facts.platform)

    def check(self, facts: Facts, workers: int, clock_seconds: float, took_seconds: float) -> None:
        """Raise where the host cannot work.

        Raises:
            HostFault: All that was found, with the remedies.
        """
        said = findings(facts, self.host, workers, clock_seconds, took_seconds)
        if said:
            raise HostFault("; ".join(said))

    # Acting

    async def carry_out(self, action: Action, facts: Facts | None, *, detached: bool) -> None:
        """Do one thing.

        Raises:
            HostFault: It cannot be done.
        """
        self._means.say(self.host.name, str(action))
        match action:
            case Install():
                assert facts is not None
                await self._install(action.environment, facts)
            case Switch():
                await self._ask("switch", _PROBE_SECONDS, fleet=self._id, environment=action.environment)
                self._switched = action.environment
            case Start():
                assert facts is not None
                await self._start(action.workers, facts, detached=detached)
            case Scale():
                await self.scale(action)
                await self._await_scaled(action)
            case Stop():
                await self._stop()
            case Prune():
                await self._ask("prune", _INSTALL_SECONDS, settle_seconds=_SETTLE_SECONDS)
            case Remove():
                await self._ask("remove", _INSTALL_SECONDS, fleet=self._id, settle_seconds=_SETTLE_SECONDS)
            case Upgrade():
                pass  # it only says what another command would do

    async def scale(self, action: Scale) -> None:
        """Have the supervisor keep another number of workers; what that leads to is not waited for.

        Raises:
            HostFault: The supervisor does not take it in.
        """
        await self._ask(
            "scale", _START_SECONDS, fleet=self._id, workers=action.workers, patience_seconds=_START_SECONDS / 2
        )

    async def await_ready(self, workers: int) -> Found:
        """Wait until so many workers are connected to the broker.

        Raises:
            HostFault: They are not in time, or crash.
        """
        seconds = self._means.ready_seconds
        answer = await self._ask(
            "await", seconds + _SLACK_SECONDS, fleet=self._id, workers=workers, patience_seconds=seconds, drained=False
        )
        found = msgspec.convert(answer["found"], Found)
        ready = [] if found.supervisor is None else [each for each in found.supervisor.workers if each.state == "ready"]
        if found.supervisor is None or len(ready) != workers:
            what = (
                "its workers have ended"
                if found.supervisor is None
                else f"{len(ready)} of {counted(workers, 'worker')} reached the broker"
                + ("" if answer["in_time"] else f" within {seconds:.0f} s")
            )
            raise HostFault(f"{what}; the log ends with: {printable(answer['log'], 400) or 'nothing'}")
        return found

    async def hold(self) -> bool:
        """Keep a tethered supervisor until it ends; return whether somebody has told it to, so all is well.

        Being cancelled leaves it as it is.
        """
        assert self.holding is not None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEASE_SECONDS / 4):
                    await self.holding.wait_closed()
                return self.holding.exit_status == 0
            with contextlib.suppress(OSError, asyncssh.Error):
                self.holding.stdin.write(b"\n")

    async def follow(self, lines: int, place: LogPlace, on_line: Callable[[str], None], *, follow: bool) -> None:
        """Tell the last lines of the host's log, and with ``follow`` what comes, until cancelled.

        Args:
            lines: How many of the last lines, where nothing was told before.
            place: Where the telling is; with one that was used before it goes on there.
            on_line: Told of each line.
            follow: Whether to go on with what comes.

        Raises:
            HostFault: The host says what is wrong, or the connection ends.
        """
        words = "nothing more comes"
        try:
            process = await self._connection.create_process(agent_command(self._pythons), encoding=None)
            try:
                question = agent_input("logs", fleet=self._id, lines=lines, since=place.position, follow=follow)
                process.stdin.write(question)
                if await _told(process.stdout, self._pythons, place, on_line):
                    return
            finally:
                process.close()
        except (asyncssh.Error, OSError) as error:
            words = printable(str(error) or type(error).__name__, 200)
        remedy = "see the network and its sshd" if follow else "run the command again"
        raise HostFault(f"the connection ended: {words}; {remedy}", unreachable=True)

    async def execute(self, arguments: list[str], seconds: float) -> str:
        """Run a module of the current environment; return what it prints.

        Raises:
            HostFault: It fails, or there is no environment.
        """
        if (await self.found()).current is None:
            raise HostFault("nothing is installed there; run `distsum fleet up`")
        folder = f"$HOME/.distsum/fleets/{self._id}/current/bin/python"
        command = f'exec "{folder}" -I {shlex.join(arguments)}'
        await self._open_tunnels()
        task = await self._task(0, "", detached=False)
        try:
            async with asyncio.timeout(seconds):
                done = await self._connection.run(
                    shlex.join(["sh", "-c", command]),
                    input=msgspec.json.encode(task) + b"\n",
                    encoding=None,
                    check=False,
                )
        except (TimeoutError, asyncssh.Error, OSError) as error:
            raise HostFault(f"the check did not end: {printable(str(error) or 'no answer in time', 200)}") from None
        output = done.stdout if isinstance(done.stdout, bytes) else b""
        if done.exit_status != 0:
            raise HostFault(_errors(done))
        return output.decode(errors="replace")

    # Parts

    async def _ask(self, question: str, seconds: float, **arguments: Any) -> Any:
        return await ask(self._connection, self._pythons, question, seconds, **arguments)

    def _endpoints(self) -> list[Endpoint]:
        broker, store = self._means.broker, self._means.store_endpoint
        return [*([Endpoint(broker.host, broker.port)] if broker else []), *([store] if store else [])]

    async def _open_tunnels(self) -> None:
        if not self.host.tunnel:
            return
        for endpoint in self._endpoints():
            if endpoint in self._ports:
                continue
            try:
                async with asyncio.timeout(_START_SECONDS):
                    listener = await self._connection.forward_remote_port("127.0.0.1", 0, endpoint.host, endpoint.port)
            except (asyncssh.Error, OSError, TimeoutError) as error:
                raise HostFault(
                    f"refuses the tunnel ({printable(str(error), 200)}); let its sshd allow TCP forwarding "
                    "(AllowTcpForwarding remote), or open the way and set tunnel = false"
                ) from None
            self._tunnels.append(listener)
            self._ports[endpoint] = listener.get_port()

    async def _install(self, environment: str, facts: Facts) -> None:
        wheels = self._wheels
        assert wheels is not None
        names = dict(wheels.names)
        lacking = await self._ask("missing", _PROBE_SECONDS, wheels=names)
        size = wheels.bytes_of(lacking)
        reason = space_fault(facts, size, wheels.bytes_of(list(names)))
        if reason is not None:
            raise HostFault(reason)
        if lacking:
            self._means.say(self.host.name, f"upload {counted(len(lacking), 'wheel')}, {byte_size(size)}")
            await self._upload(wheels, lacking, facts)
            self.uploaded_bytes += size
        await self._ask(
            "install",
            _INSTALL_SECONDS,
            environment=environment,
            wheels=names,
            pip=wheels.pip,
            requirements=wheels.requirements,
            settle_seconds=_SETTLE_SECONDS,
        )

    async def _upload(self, wheels: Wheels, lacking: list[str], facts: Facts) -> None:
        below = f"{facts.home}/.distsum/wheels"
        mark = secrets.token_hex(4)
        try:
            async with asyncio.timeout(_UPLOAD_SECONDS), self._connection.start_sftp_client() as sftp:
                private = asyncssh.SFTPAttrs(permissions=0o700)
                await sftp.makedirs(below, private, exist_ok=True)
                for digest in lacking:
                    # Complete or not there at all: a folder is renamed when its wheel is whole.
                    part = f"{below}/{digest}.{mark}"
                    try:
                        await sftp.mkdir(part)
                        await sftp.put(os.path.join(wheels.folder, wheels.names[digest]), part)
                        await sftp.rename(part, f"{below}/{digest}")
                    except BaseException as error:
                        with contextlib.suppress(asyncssh.Error, OSError):
                            await sftp.rmtree(part, ignore_errors=True)
                        # Otherwise another command was quicker, and its wheel is as good.
                        if not isinstance(error, asyncssh.SFTPError) or not await sftp.exists(f"{below}/{digest}"):
                            raise
        except TimeoutError:
            raise HostFault(f"took no wheels within {_UPLOAD_SECONDS:.0f} s; see the network") from None
        except (asyncssh.Error, OSError) as error:
            words = printable(str(error) or type(error).__name__, 200)
            raise HostFault(f"cannot take the wheels ({words}); see its disk, and that its sshd has SFTP") from None

    async def _task(self, workers: int, environment: str, *, detached: bool) -> Task:
        means = self._means
        assert means.broker is not None
        broker = means.broker
        variables = dict(means.variables) | {MEMORY_VARIABLE: str(self.host.memory_bytes)}
        try:
            if means.users is not None and workers:
                broker = await asyncio.to_thread(means.users.make, self.user)
            if self.host.tunnel:
                broker = tunnelled_broker(broker, self._ports[Endpoint(means.broker.host, means.broker.port)])
                if means.store_endpoint is not None:
                    variables = through_tunnel(variables, self._ports[means.store_endpoint])
        except DistsumError as error:
            raise HostFault(str(error)) from None
        return Task(
            environment=environment,
            workers=workers,
            host=self.prefix,
            broker=broker.uri(),
            variables=variables,
            detached=detached,
            log=means.log,
            store=means.store,
            terms=self.terms,
        )

    async def _start(self, workers: int, facts: Facts, *, detached: bool) -> None:
        environment = self._switched or facts.found.current
        assert environment is not None
        python = f"{facts.home}/.distsum/environments/{environment}/bin/python"
        command = shlex.join(
            ["env", f"{FLEET_VARIABLE}={self._id}", python, "-I", "-m", "distsum.provision.supervisor"]
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                process = await self._connection.create_process(command, encoding=None)
                if await _holds(process.stdout):
                    task = await self._task(workers, environment, detached=detached)
                    process.stdin.write(msgspec.json.encode(task) + b"\n")
                    if not detached:
                        self.holding = process
                    elif (done := await process.wait()).exit_status != 0:
                        raise HostFault(f"the supervisor does not start: {_errors(done)}")
                elif (done := await process.wait()).exit_status == ANOTHER:
                    self._means.say(self.host.name, "another command was quicker; its workers are waited for")
                else:
                    raise HostFault(f"the supervisor does not start: {_errors(done)}")
        except TimeoutError:
            raise HostFault(f"the supervisor does not start within {_START_SECONDS:.0f} s; see its load") from None
        except (asyncssh.Error, OSError) as error:
            raise HostFault(f"the supervisor does not start: {printable(str(error), 200)}") from None
        await self.await_ready(workers)

    async def _await_scaled(self, action: Scale) -> None:
        grows = action.workers > action.before
        seconds = self._means.ready_seconds if grows else self.drain_seconds
        answer = await self._ask(
            "await",
            seconds + _SLACK_SECONDS,
            fleet=self._id,
            workers=action.workers,
            patience_seconds=seconds,
            drained=not grows,
        )
        if not answer["in_time"]:
            raise HostFault(
                f"does not have {counted(action.workers, 'worker')} after {seconds:.0f} s; it goes on, see "
                "`distsum fleet status`"
            )

    async def _stop(self) -> None:
        seconds = self.drain_seconds + 6 * _END_SECONDS + _SLACK_SECONDS
        answer = await self._ask(
            "stop", seconds, fleet=self._id, drain_seconds=self.drain_seconds, end_seconds=_END_SECONDS
        )
        if not answer["drained"]:
            self._means.say(self.host.name, "tasks were not finished in time; others do them again")
        if answer["processes"]:
            pids = ", ".join(map(str, answer["processes"]))
            raise HostFault(f"processes {pids} do not end, not even when they are killed; see the host's log")


def broker_user(fleet: str, host: Host) -> str:
    """Return the broker user of a host's workers (pure)."""
    return f"distsum-fleet.{fleet}.{host.name}"


def worker_prefix(fleet: str, host: Host) -> str:
    """Return what the names of a host's workers begin with at the broker (pure).

    >>> from .fleetfile import Host
    >>> worker_prefix("lab", Host(name="node1.lab"))
    'lab-node1-lab'
    """
    return re.sub(r"[^A-Za-z0-9-]+", "-", f"{fleet}-{host.name}")[:60]


def _folder_name(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", host)


def _errors(done: asyncssh.SSHCompletedProcess) -> str:
    """Return the last that a command has said on its standard error."""
    words = done.stderr if isinstance(done.stderr, bytes) else b""
    lines = words.decode(errors="replace").strip().splitlines()
    return printable(lines[-1], 400) if lines else "it does not say why"
