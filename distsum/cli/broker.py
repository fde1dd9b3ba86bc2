"""``distsum broker``: what an administrator does to a RabbitMQ broker."""

from __future__ import annotations

import json as json_module
from typing import Annotated

from cyclopts import App, Parameter

from distsum.cli import streams
from distsum.cli.options import Json, Quiet, RunFlags, settings_of
from distsum.errors import UsageError
from distsum.wording import printable

app = App(name="broker", help="Prepare a RabbitMQ broker.", help_format="plaintext")

Broker = Annotated[
    str | None,
    Parameter(
        help="amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS. Better in DISTSUM_BROKER: others see options."
    ),
]


@app.command
def setup(
    *,
    broker: Broker = None,
    management: Annotated[
        str | None,
        Parameter(
            help="http://ADMIN:PASSWORD@HOST:PORT of the management API, or https://. Better in DISTSUM_MANAGEMENT."
        ),
    ] = None,
    worker_user: Annotated[str, Parameter(help="Who workers enter as.")] = "distsum-worker",
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Make a virtual host, its queues, and a user each for the master and the workers, who may do what they must.

    What is there stays, and users that are there keep their passwords. The workers' address is printed when their user
    is made, and not again.
    """
    settings = settings_of(RunFlags(), quiet=quiet, broker=broker, management=management)
    for name in ("broker", "management"):
        if getattr(settings, name) is None:
            raise UsageError(f"--{name} is missing; give it, or set DISTSUM_{name.upper()}")
    assert settings.broker is not None
    assert settings.management is not None
    from distsum.brokers.setup import set_up

    done = set_up(settings.broker, settings.management, worker_user)
    worker = None if done.worker is None else done.worker.uri()
    if not settings.quiet:
        for made in done.made:
            streams.say(f"made {made}")
        streams.say(f"{settings.broker} is ready")
        if worker is None:
            streams.say(f"the password of {printable(worker_user)} is what it was")
        elif not json:
            streams.say("workers enter by what follows; keep it, since it is not shown again")
    if json:
        streams.emit(json_module.dumps({"broker": str(settings.broker), "made": list(done.made), "worker": worker}))
    elif worker is not None:
        streams.emit(worker)
    return 0
