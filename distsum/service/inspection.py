"""Looking at a RabbitMQ virtual host as a user would use it, without changing what is in it.

What a user may do is found out by doing it: making a queue of its own that ends with the connection, and publishing
messages that no queue takes.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from distsum.brokers.amqp import NoSuchQueueError, Session, SessionLostError, open_session
from distsum.brokers.envelope import Envelope
from distsum.brokers.local import DELIVERY_LIMIT
from distsum.brokers.management import Management
from distsum.brokers.topology import (
    CONTROL_EXCHANGE,
    JOBS_CHANNEL,
    REQUESTS_EXCHANGE,
    RESULTS_EXCHANGE,
    TASKS,
    TASKS_EXCHANGE,
    VIEWS_CHANNEL,
    VIEWS_EXCHANGE,
    queues,
    worker_key,
    worker_queue,
)
from distsum.errors import UnreachableError
from distsum.service.findings import BrokerFound, ManagementFound, NodeFound, QueueCount

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress

_PUBLISH_SECONDS: Final = 5.0
_NOBODY: Final = "distsum.doctor"
"""Routing key of messages that no queue takes."""
_CALL_SECONDS: Final = 5.0
_NODE_COLUMNS: Final = ("name", "running", "mem_alarm", "disk_free_alarm", "partitions")


async def inspect_broker(address: BrokerAddress) -> BrokerFound:
    """Return what a virtual host looks like to a user; whatever is wrong is in the answer."""
    found = BrokerFound(address=str(address), user=address.user)
    try:
        session = await open_session(address, "distsum doctor")
    except UnreachableError as error:
        return msgspec.structs.replace(found, fault=_without_place(error, address))
    try:
        there, missing = [], []
        for queue in queues(DELIVERY_LIMIT):
            try:
                there.append(QueueCount(queue.name, *await session.counts(queue.name)))
            except NoSuchQueueError:
                missing.append(queue.name)
        found = msgspec.structs.replace(
            found, version=session.broker_version, queues=tuple(there), missing=tuple(missing)
        )
    except (SessionLostError, UnreachableError) as error:
        return msgspec.structs.replace(found, fault=_without_place(error, address))
    finally:
        await session.close()
    if missing:
        return found
    token = secrets.token_hex(4)
    name = f"doctor-{token}"
    try:
        worker_fault = await _try(
            address, worker_queue(name, token), CONTROL_EXCHANGE, worker_key(name), (RESULTS_EXCHANGE,)
        )
        reply = JOBS_CHANNEL.reply_queue(name)
        master_fault = await _try(address, reply, REQUESTS_EXCHANGE, reply, (REQUESTS_EXCHANGE, TASKS_EXCHANGE))
        looks = VIEWS_CHANNEL.reply_queue(name)
        viewer_fault = await _try(address, looks, VIEWS_EXCHANGE, looks, (VIEWS_EXCHANGE,))
    except TimeoutError:
        return msgspec.structs.replace(found, blocked=True)
    return msgspec.structs.replace(
        found, worker_fault=worker_fault, master_fault=master_fault, viewer_fault=viewer_fault
    )


async def _try(address: BrokerAddress, queue: str, source: str, key: str, targets: tuple[str, ...]) -> str | None:
    """Make and bind a queue that ends with the connection, and publish what nobody takes; return what hinders it.

    Raises:
        TimeoutError: The broker takes no messages.
    """
    session: Session | None = None
    try:
        session = await open_session(address, "distsum doctor")
        await session.declare_own(queue, source, (key,))
        for target in targets:
            async with asyncio.timeout(_PUBLISH_SECONDS):
                await session.publish(target, _NOBODY, Envelope(b"", "Probe"), persistent=False)
    except (UnreachableError, SessionLostError) as error:
        return _without_place(error, address)
    except NoSuchQueueError:
        return f"there is no {source}"
    finally:
        if session is not None:
            await session.close()
    return None


def inspect_management(address: BrokerAddress, vhost: str) -> ManagementFound:
    """Return what the management API tells of a virtual host; whatever is wrong is in the answer."""
    api = Management(address, _CALL_SECONDS)
    try:
        version = _table(api.get("overview", columns=("rabbitmq_version",))).get("rabbitmq_version", "")
        nodes = _tables(api.get("nodes", columns=_NODE_COLUMNS))
        limits = _tables(api.get("vhost-limits", vhost))
        tasks = _table(api.get("queues", vhost, TASKS, columns=("arguments", "effective_policy_definition")))
    except UnreachableError as error:
        return ManagementFound(address=str(address), fault=_without_place(error, address))
    connections = _table(limits[0].get("value")).get("max-connections") if limits else None
    timeout = _table(tasks.get("arguments")).get("x-consumer-timeout")
    timeout = timeout or _table(tasks.get("effective_policy_definition")).get("consumer-timeout")
    return ManagementFound(
        address=str(address),
        version=str(version),
        nodes=tuple(
            NodeFound(
                str(node.get("name")),
                bool(node.get("running", True)),
                bool(node.get("mem_alarm")),
                bool(node.get("disk_free_alarm")),
                bool(node.get("partitions")),
            )
            for node in nodes
        ),
        max_connections=connections if type(connections) is int and connections >= 0 else None,
        consumer_timeout_seconds=timeout / 1000 if type(timeout) is int else None,
    )


def _without_place(error: Exception, address: BrokerAddress) -> str:
    return str(error).removeprefix(f"{address}: ")


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
