"""Makes what distsum needs in a RabbitMQ broker: a virtual host, its queues, and users that may do little else."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distsum.brokers.amqp import SessionLostError, open_session
from distsum.brokers.local import DELIVERY_LIMIT
from distsum.brokers.management import Management
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.brokers.topology import EXCHANGES, MASTER_PERMISSIONS, WORKER_PERMISSIONS, queues
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
    """

    made: tuple[str, ...]
    worker: BrokerAddress | None


def set_up(master: BrokerAddress, management: BrokerAddress, worker_user: str) -> SetUp:
    """Make a virtual host, queues and two users; what is there already stays, but for permissions in this virtual host.

    Users that are there keep their passwords. Both are tried out, as far as their passwords are known.

    Args:
        master: The address that the deciding process will use. Its user is made with this password.
        management: The management API, entered as an administrator.
        worker_user: Who workers will enter as; a password is made for it.

    Raises:
        UsageError: The users are not three or, with the administrator as master, two.
        UnreachableError: The broker or its management API does not answer, or does not let us.
    """
    if worker_user in {master.user, management.user}:
        raise UsageError(f"--worker-user {printable(worker_user)}: workers need a user of their own, who may do less")
    api = Management(management)
    made = []
    if api.get("vhosts", master.vhost) is None:
        api.put({}, "vhosts", master.vhost)
        made.append(f"virtual host {printable(master.vhost)}")
    worker = None
    if api.get("users", master.user) is None:
        api.put({"password": master.password, "tags": ""}, "users", master.user)
        made.append(f"user {printable(master.user)}")
    if api.get("users", worker_user) is None:
        worker = replace(master, user=worker_user, password=secrets.token_urlsafe(24))
        api.put({"password": worker.password, "tags": ""}, "users", worker_user)
        made.append(f"user {printable(worker_user)}")
    permissions = {master.user: MASTER_PERMISSIONS, worker_user: WORKER_PERMISSIONS}
    for user, wanted in permissions.items():
        found = api.get("permissions", master.vhost, user)
        if user == management.user and found is not None:
            continue  # An administrator keeps what it has.
        if found is None or any(found.get(name) != pattern for name, pattern in wanted.items()):
            api.put(dict(wanted), "permissions", master.vhost, user)
            made.append(f"permissions of {printable(user)}")
    asyncio.run(_declare(master))
    if worker is not None:
        channel = RabbitWorkerChannel(worker, f"setup-{secrets.token_hex(4)}")
        channel.open()
        channel.close()
    return SetUp(tuple(made), worker)


async def _declare(address: BrokerAddress) -> None:
    session = await open_session(address, "distsum broker setup")
    try:
        await session.declare(EXCHANGES, queues(DELIVERY_LIMIT))
    except SessionLostError as error:
        raise UnreachableError(f"{address}: {error}") from None
    finally:
        await session.close()
