"""``distsum fleet``: workers on other hosts over SSH."""

from __future__ import annotations

import asyncio
import json as json_module
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from distsum.cli import streams
from distsum.cli.options import FileName, Json, Quiet, as_given, settings_of, whole_number
from distsum.errors import UsageError
from distsum.service.scaling import MOST_WORKERS
from distsum.wording import byte_size, counted, printable

from .fleetfile import MOST_ON_HOST
from .state import Scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .fleetfile import Host
    from .host_session import HostSession
    from .rollout import Report, Rollout

app = App(name="fleet", help="Keep workers on other hosts, over SSH.", help_format="plaintext")

_DRAIN = "300"
_CHECK_SECONDS = 60.0
_DEFAULT_FILE = "fleet.toml"

Broker = Annotated[
    str | None, Parameter(metavar="URI", help="Instead of the file's. Better in DISTSUM_BROKER: others see options.")
]
DrainSeconds = Annotated[
    str, Parameter(metavar="N", help="How long tasks at hand may take to be finished before workers are ended.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class File:
    """The option that names the fleet."""

    file: Annotated[
        FileName,
        Parameter(name=["--file", "-f"], metavar="FILE", converter=as_given, help="What is wanted."),
    ] = _DEFAULT_FILE


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Selection:
    """Options that select hosts; without any all are meant."""

    host: Annotated[
        list[str] | None, Parameter(name="--host", negative=(), help="Only this host; may be repeated.")
    ] = None
    label: Annotated[
        list[str] | None, Parameter(name="--label", negative=(), help="Only hosts with this label; may be repeated.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Access:
    """Options of commands that let hosts in, or shut them out."""

    broker: Broker = None
    management: Annotated[
        str | None,
        Parameter(
            metavar="URI", help="RabbitMQ's management API, to give each host a user. Better in DISTSUM_MANAGEMENT."
        ),
    ] = None
    trust_new: Annotated[
        bool,
        Parameter(
            negative=(), show_default=False, help="Pin the keys of hosts of which none is known; refuse changed ones."
        ),
    ] = False


_FILE = File()
_ALL = Selection()
_AS_SET = Access()


@app.command
def plan(
    *,
    fleet: File = _FILE,
    selected: Selection = _ALL,
    access: Access = _AS_SET,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Show what up would change; nothing is changed."""
    command = _Command(fleet.file, selected, access, quiet=quiet, json=json)
    return command.run(lambda rollout: rollout.plan(), starts=True, done="would change")


@app.command
def up(
    *,
    fleet: File = _FILE,
    detach: Annotated[
        bool, Parameter(negative=(), show_default=False, help="End when workers are ready; they live on until down.")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False, help="Only show what would change.")] = False,
    selected: Selection = _ALL,
    access: Access = _AS_SET,
    drain_seconds: DrainSeconds = _DRAIN,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Install what is missing, and start the workers that are wanted.

    Without --detach it goes on, and holds them: Ctrl-C drains and ends them, and so does the end of the connection.
    """
    command = _Command(fleet.file, selected, access, drain_seconds, quiet=quiet, json=json)
    if dry_run:
        return command.run(lambda rollout: rollout.plan(), starts=True, done="would change")
    if detach:
        if any(each.tunnel for each in command.hosts):
            raise UsageError("--detach: a tunnel lasts as long as the command that holds it; leave out --detach")
        return command.run(lambda rollout: rollout.up(), starts=True, done="changed")
    return command.hold()


@app.command
def status(*, fleet: File = _FILE, selected: Selection = _ALL, quiet: Quiet = None, json: Json = False) -> int:
    """Show what the hosts have, and how their workers are doing."""
    return _Command(fleet.file, selected, quiet=quiet, json=json).run(lambda rollout: rollout.status(), done=None)


@app.command
def scale(
    workers: Annotated[
        str, Parameter(name="N", help="Workers in all, or of each host that is selected; `file` is what the file says.")
    ],
    /,
    *,
    fleet: File = _FILE,
    selected: Selection = _ALL,
    access: Access = _AS_SET,
    drain_seconds: DrainSeconds = _DRAIN,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Have another number of workers, also while jobs run; those too many finish their tasks first.

    They are spread over the hosts in proportion to what the file says of each. With --host or --label, each of those
    hosts has N, whatever is said of all. The numbers count for up as well.
    """
    command = _Command(fleet.file, selected, access, drain_seconds, quiet=quiet, json=json)
    number = None if workers == "file" else whole_number("N", workers, 0)
    selects = bool(selected.host or selected.label)
    most = MOST_ON_HOST if selects else MOST_WORKERS
    if number is not None and number > most:
        raise UsageError(f"N {printable(workers, 80)}: must be at most {most:,}")
    scaled = Scaled(number)
    if selects:
        scaled = command.state.scaled.of_hosts([host.name for host in command.hosts], number)
    return command.run(lambda rollout: rollout.up(), starts=True, scaled=scaled, done="changed")


@app.command
def drain(
    *,
    fleet: File = _FILE,
    selected: Selection = _ALL,
    drain_seconds: DrainSeconds = _DRAIN,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Let the workers finish their tasks, and end them; what is installed stays."""
    command = _Command(fleet.file, selected, _AS_SET, drain_seconds, quiet=quiet, json=json)
    return command.run(lambda rollout: rollout.drain(), done="changed")


@app.command
def upgrade(
    *,
    fleet: File = _FILE,
    selected: Selection = _ALL,
    access: Access = _AS_SET,
    drain_seconds: DrainSeconds = _DRAIN,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Move detached workers to this version, one host after the other; a host that fails goes back, and ends it."""
    command = _Command(fleet.file, selected, access, drain_seconds, quiet=quiet, json=json)
    return command.run(lambda rollout: rollout.upgrade(), starts=True, done="changed")


@app.command
def logs(
    *,
    file: Annotated[FileName, Parameter(metavar="FILE", converter=as_given, help="What is wanted.")] = _DEFAULT_FILE,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative=(), show_default=False, help="Go on with what comes.")
    ] = False,
    lines: Annotated[str, Parameter(metavar="N", help="The last lines of each host.")] = "20",
    selected: Selection = _ALL,
    json: Annotated[
        bool,
        Parameter(
            negative=(), show_default=False, help="Print an object for each line, and one with all reports last."
        ),
    ] = False,
) -> int:
    """Show what supervisors and workers have said, each line after its host's name."""
    count = whole_number("--lines", lines, 0)
    command = _Command(file, selected, json=json)

    def tell(host: str, line: str) -> None:
        if json:
            streams.emit(json_module.dumps({"host": host, "line": line}))
        else:
            streams.emit(f"{host}: {printable(line, 4000)}")

    return command.run(lambda rollout: rollout.logs(count, tell, follow=follow), done=None, shown=False)


@app.command
def exec_check(
    *,
    fleet: File = _FILE,
    selected: Selection = _ALL,
    broker: Broker = None,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Have each host's environment import what workers need, enter the broker, and look into the store."""
    command = _Command(fleet.file, selected, Access(broker=broker), quiet=quiet, json=json)

    async def work(session: HostSession) -> Report:
        from .rollout import Report

        said = json_module.loads(await session.execute(["-m", "distsum.provision.check"], _CHECK_SECONDS))
        words = ", ".join(f"{name} {version}" for name, version in said.items())
        return Report(host=session.host.name, proof=(f"enters the broker with {words}",))

    return command.run(lambda rollout: rollout.each_session(work), starts=True, done=None)


@app.command
def down(
    *,
    fleet: File = _FILE,
    selected: Selection = _ALL,
    access: Access = _AS_SET,
    drain_seconds: DrainSeconds = _DRAIN,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Drain the workers, and remove everything: processes, files, users of the broker, pinned keys.

    Each host is looked at afterwards, and what was not found there is told.
    """
    command = _Command(fleet.file, selected, access, drain_seconds, quiet=quiet, json=json)
    code = command.run(lambda rollout: rollout.down(), done="changed")
    if code == 0 and len(command.hosts) == len(command.fleet.hosts):
        command.state.remove()
    return code


# Parts ----------------------------------------------------------------------------------------------------------------


class _Command:
    """What all commands share: the file, the settings, and how reports are shown."""

    def __init__(
        self,
        file: FileName,
        selected: Selection,
        access: Access = _AS_SET,
        drain_seconds: str = _DRAIN,
        *,
        quiet: bool | None = None,
        json: bool = False,
    ) -> None:
        from .control import Control, read_fleet
        from .rollout import select

        self.fleet = read_fleet(str(file))
        names, labels = selected.host or (), selected.label or ()
        for name in names:
            if name not in {each.name for each in self.fleet.hosts}:
                raise UsageError(
                    f"--host {printable(name, 80)}: the fleet has no such host; see {printable(str(file))}"
                )
        self.hosts: tuple[Host, ...] = select(self.fleet.hosts, names, labels)
        if not self.hosts:
            raise UsageError(f"--label {printable(', '.join(labels), 80)}: no host of the fleet has it")
        settings = settings_of(quiet=quiet, broker=access.broker, management=access.management)
        self._quiet = settings.quiet
        self._json = json
        self._control = Control(
            self.fleet,
            self.hosts,
            settings,
            broker_given=access.broker is not None,
            drain_seconds=float(whole_number("--drain-seconds", drain_seconds, 0)),
            trust_new=access.trust_new,
            say=self._say_of,
        )
        self.state = self._control.state

    def run(
        self,
        work: Callable[[Rollout], Awaitable[list[Report]]],
        *,
        starts: bool = False,
        scaled: Scaled | None = None,
        done: str | None,
        shown: bool = True,
    ) -> int:
        """Do something to the hosts, and show the reports; return the exit code.

        Args:
            work: What is done.
            starts: Whether workers may be started, so that the broker and the store must be known.
            scaled: How many workers are wanted from now on; None is as before.
            done: What became of hosts with actions, in words; None where there are none to tell.
            shown: Whether hosts that are well are shown.
        """

        async def main() -> list[Report]:
            async with self._control.rollout(starts=starts, scaled=scaled) as rollout:
                return await work(rollout)

        reports = asyncio.run(main())
        self._show(reports, done, shown=shown)
        return 1 if any(report.fault is not None for report in reports) else 0

    def hold(self) -> int:
        """Bring the hosts up, and hold them until a signal comes; return the exit code."""
        return asyncio.run(self._hold())

    async def _hold(self) -> int:
        from .rollout import Release

        released = Release()
        first: list[Report] = []

        def on_report(report: Report) -> None:
            first.append(report)
            if len(first) == len(self.hosts):
                self._show(sorted(first, key=lambda each: order[each.host]), "changed", shown=True)
                held = [each for each in first if each.fault is None and each.detached is False and each.actions]
                if held:
                    workers = sum(len(each.workers) for each in held)
                    self._say(f"ready: holding {counted(workers, 'worker')}; Ctrl-C drains and ends them")

        order = {host.name: place for place, host in enumerate(self.hosts)}
        async with self._control.rollout(starts=True, on_report=on_report) as rollout:
            task = asyncio.ensure_future(rollout.hold(released))
            loop = asyncio.get_running_loop()

            def end() -> None:
                if released.is_set() or len(first) < len(self.hosts):
                    task.cancel()
                released.set()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, end)
            try:
                await task
            except asyncio.CancelledError:
                self._say("ended at once; what workers had at hand is done again by others")
                return 130
        return 1 if any(report.fault is not None for report in first) else 0

    def _show(self, reports: Sequence[Report], done: str | None, *, shown: bool) -> None:
        changed = any(report.actions for report in reports)
        for report in reports:
            if report.fault is not None:
                self._say_fault(f"{printable(report.host)}: {printable(report.fault, 2000)}")
        if self._json:
            hosts = [msgspec.to_builtins(report) for report in reports]
            streams.emit(json_module.dumps({"fleet": self.fleet.name, "changed": changed, "hosts": hosts}))
        elif shown:
            well = [report for report in reports if report.fault is None]
            streams.emit("\n".join(line for report in well for line in _lines(report)))
        if done is not None and not changed and not any(report.fault is not None for report in reports):
            self._say("nothing to change")

    def _say(self, words: str) -> None:
        if not self._quiet:
            streams.say(words)

    def _say_of(self, host: str, words: str) -> None:
        self._say(f"{printable(host)}: {printable(words, 2000)}")

    def _say_fault(self, words: str) -> None:
        streams.say(f"distsum: {words}")


def _lines(report: Report) -> list[str]:
    """Return what is shown of a host that is well."""
    ready = sum(worker.state == "ready" for worker in report.workers)
    if report.wanted is None:
        words = "no workers" if report.environment is None else "installed, no workers"
    else:
        held = "detached" if report.detached else "held"
        words = f"{ready} of {counted(report.wanted, 'worker')} ready, {held}, environment {report.environment}"
    if report.uploaded_bytes:
        words += f", {byte_size(report.uploaded_bytes)} uploaded"
    if report.proof:
        words = ", ".join(report.proof)
    lines = [f"{printable(report.host)}: {words}"]
    lines += [f"  {printable(action, 300)}" for action in report.actions]
    for worker in report.workers:
        if worker.crashes:
            lines.append(
                f"  {printable(worker.name)} {worker.state}: has ended {counted(worker.crashes, 'time')} unasked, "
                f"last with {printable(worker.reason)}"
            )
    return lines
