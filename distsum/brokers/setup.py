"""Makes what distsum needs in a RabbitMQ broker: a virtual host, its queues, and users that may do little else."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distsum.brokers.amqp import SessionLostError, open_session
from distsum.brokers.local import DELIVERY_LIMIT
from distsum.brokers.management import Management
from distsum.brokers.rabbitmq_requests import open_questions
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.brokers.topology import (
    EXCHANGES,
    MASTER_PERMISSIONS,
    VIEWER_PERMISSIONS,
    VIEWS_CHANNEL,
    WORKER_PERMISSIONS,
    queues,
)
from distsum.errors import UnreachableError, UsageError
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress


@dataclass(frozen=True)
class SetUp:
    """What was done.

    Attributes:
        made: What was not there before, in words.
        worker: The workers' address with its password if their user was made now; otherwise None, since the password
            that it had stands.
        viewer: Likewise the address of those who only look.
    """

    made: tuple[str, ...]
    worker: BrokerAddress | None
    viewer: BrokerAddress | None


def set_up(master: BrokerAddress, management: BrokerAddress, worker_user: str, viewer_user: str | None = None) -> SetUp:
    """Make a virtual host, queues and users; what is there already stays, but for permissions in this virtual host.

    Users that are there keep their passwords. All are tried out, as far as their passwords are known.

    Args:
        master: The address that the deciding process will use. Its user is made with this password.
        management: The management API, entered as an administrator.
        worker_user: Who workers will enter as; a password is made for it.
        viewer_user: Who those will enter as who only look; likewise. None makes none.

    Raises:
        UsageError: Workers or viewers are to enter as somebody who may do more.
        UnreachableError: The broker or its management API does not answer, or does not let us.
    """
    if worker_user in {master.user, management.user}:
        raise UsageError(f"--worker-user {printable(worker_user)}: workers need a user of their own, who may do less")
    if viewer_user in {master.user, management.user, worker_user}:
        raise UsageError(f"--viewer-user {printable(viewer_user)}: who only looks needs a user who may do nothing else")
    api = Management(management)
    made = []
    if api.get("vhosts", master.vhost) is None:
        api.put({}, "vhosts", master.vhost)
        made.append(f"virtual host {printable(master.vhost)}")
    if api.get("users", master.user) is None:
        api.put({"password": master.password, "tags": ""}, "users", master.user)
        made.append(f"user {printable(master.user)}")
    wanted_users = {worker_user: WORKER_PERMISSIONS} | ({viewer_user: VIEWER_PERMISSIONS} if viewer_user else {})
    addresses: dict[str, BrokerAddress] = {}
    for user in wanted_users:
        if api.get("users", user) is None:
            address = addresses[user] = replace(master, user=user, password=secrets.token_urlsafe(24))
            api.put({"password": address.password, "tags": ""}, "users", user)
            made.append(f"user {printable(user)}")
    permissions = {master.user: MASTER_PERMISSIONS} | wanted_users
    for user, wanted in permissions.items():
        found = api.get("permissions", master.vhost, user)
        if user == management.user and found is not None:
            continue  # An administrator keeps what it has.
        if found is None or any(found.get(name) != pattern for name, pattern in wanted.items()):
            api.put(dict(wanted), "permissions", master.vhost, user)
            made.append(f"permissions of {printable(user)}")
    asyncio.run(_declare(master))
    worker, viewer = addresses.get(worker_user), addresses.get(viewer_user or "")
    if worker is not None:
        channel = RabbitWorkerChannel(worker, f"setup-{secrets.token_hex(4)}")
        channel.open()
        channel.close()
    if viewer is not None:
        asyncio.run(_look(viewer))
    return SetUp(tuple(made), worker, viewer)


async def _look(address: BrokerAddress) -> None:
    """Do what a viewer does, to see that it may."""
    try:
        questions = await open_questions(address, "distsum broker setup", VIEWS_CHANNEL)
    except SessionLostError as error:
        raise UnreachableError(f"{address}: {error}") from None
    await questions.session.close()


async def _declare(address: BrokerAddress) -> None:
    session = await open_session(address, "distsum broker setup")
    try:
        await session.declare(EXCHANGES, queues(DELIVERY_LIMIT))
    except SessionLostError as error:
        raise UnreachableError(f"{address}: {error}") from None
    finally:
        await session.close()
