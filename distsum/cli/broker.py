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
    viewer_user: Annotated[
        str | None,
        Parameter(help="Who those enter as who only look: nothing they do changes anything. [default: none]"),
    ] = None,
    quiet: Quiet = None,
    json: Json = False,
) -> int:
    """Make a virtual host, its queues, and a user each for the master and the workers, who may do what they must.

    What is there stays, and users that are there keep their passwords. The workers' address is printed when their user
    is made, and not again; so is that of those who only look.
    """
    settings = settings_of(RunFlags(), quiet=quiet, broker=broker, management=management)
    for name in ("broker", "management"):
        if getattr(settings, name) is None:
            raise UsageError(f"--{name} is missing; give it, or set DISTSUM_{name.upper()}")
    assert settings.broker is not None
    assert settings.management is not None
    from distsum.brokers.setup import set_up

    done = set_up(settings.broker, settings.management, worker_user, viewer_user)
    entering = [("workers", worker_user, done.worker)]
    if viewer_user is not None:
        entering.append(("viewers", viewer_user, done.viewer))
    if not settings.quiet:
        for made in done.made:
            streams.say(f"made {made}")
        streams.say(f"{settings.broker} is ready")
        for who, user, address in entering:
            if address is None:
                streams.say(f"the password of {printable(user)} is what it was")
            elif not json:
                streams.say(f"{who} enter by {printable(user)}'s address, on stdout; keep it, it is not shown again")
    if json:
        told = {"broker": str(settings.broker), "made": list(done.made)}
        uris = {who[:-1]: None if address is None else address.uri() for who, _, address in entering}
        streams.emit(json_module.dumps(told | uris))
    else:
        for _, _, address in entering:
            if address is not None:
                streams.emit(address.uri())
    return 0
