"""Looks at broker, store and service from this machine, and goes on where one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from distsum.errors import DistsumError, UnreachableError, WorkDirBusyError
from distsum.service import messages as channel
from distsum.service.diagnosis import serves
from distsum.service.findings import BrokerFound, Findings, MasterFound, StoreFound
from distsum.stores.routing import is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.brokers.address import BrokerAddress
    from distsum.stores.base import Store

_ANSWER_SECONDS: Final = 12.0
_PROBE: Final = b"distsum doctor"


def examine(
    broker: BrokerAddress | None, management: BrokerAddress | None, store: Store, work: bytes | None
) -> Findings:
    """Return what is found; whatever is wrong is part of it.

    Args:
        broker: The virtual host; None leaves it and its master out.
        management: Its management API, if that may be asked.
        store: Where work folders lie.
        work: URI of the work folder; None is the master's.
    """
    found = told = None
    if broker is not None:
        # Not needed by those who look at a store only, and perhaps not installed.
        from distsum.service.inspection import inspect_broker, inspect_management

        found = asyncio.run(inspect_broker(broker))
        told = inspect_management(management, broker.vhost) if management is not None else None
    master = ask_master(broker, found) if broker is not None and found is not None and found.fault is None else None
    folder = work
    if folder is None and master is not None and master.told is not None:
        folder = master.told.work
    return Findings(
        broker=found,
        management=told,
        master=master,
        store=inspect_store(store, folder) if folder is not None else None,
        work=work,
    )


def ask_master(broker: BrokerAddress, found: BrokerFound) -> MasterFound:
    """Ask the master what it sees."""
    from distsum.service.rabbitmq import RabbitTransport

    if not serves(found):
        return MasterFound(fault="none serves this virtual host; start one with `distsum master`")
    if found.blocked:
        return MasterFound(fault="one serves, and cannot be asked while the broker takes no messages")
    if found.master_fault is not None:
        return MasterFound(
            fault=f"one serves, and {printable(found.user)} may not ask it; name the master's user to know more"
        )
    transport = RabbitTransport(broker)
    try:
        before = time.time()
        reply = transport.ask(channel.Diagnose(), _ANSWER_SECONDS)
        after = time.time()
    except DistsumError as error:
        return MasterFound(fault=str(error).removeprefix(f"{broker}: "))
    finally:
        transport.close()
    if not isinstance(reply, channel.Diagnosis):
        reason = reply.reason if isinstance(reply, channel.Refused) else f"it answers {type(reply).__name__}"
        return MasterFound(fault=f"it cannot be asked: {reason}; install the same version everywhere")
    return MasterFound(told=reply, ahead_seconds=_apart(reply.now_seconds, before, after))


def inspect_store(store: Store, work: bytes) -> StoreFound:
    """Write, read and remove a small object in a work folder, and see whether a folder can be held."""
    shown = printable(work)
    found = StoreFound(work=shown)
    if not is_remote(work) and not os.path.isdir(work):
        return msgspec.structs.replace(found, there=False)
    try:
        store.preflight(work)
    except UnreachableError as error:
        return msgspec.structs.replace(found, unreachable=str(error))
    except DistsumError as error:
        return msgspec.structs.replace(found, unusable=str(error))
    folder = work + b"/doctor-" + secrets.token_hex(6).encode()
    fault = None
    try:
        found = _probe(store, folder, found)
    except DistsumError as error:
        fault = str(error)
    finally:
        try:
            store.delete_all(folder, set())
        except DistsumError as error:
            fault = fault or str(error)
    return msgspec.structs.replace(found, unusable=fault) if fault is not None else found


def _probe(store: Store, folder: bytes, found: StoreFound) -> StoreFound:
    uri = folder + b"/probe"
    before = time.time()
    store.put(uri, [_PROBE])
    after = time.time()
    reader = store.open(uri)
    content = None
    if reader is not None:
        with reader:
            content = reader.read(0, reader.size)
    if content != _PROBE:
        return msgspec.structs.replace(found, unusable=f"{found.work}: what was written there is not what is read")
    written = store.written_seconds(uri)
    ahead = None if written is None else _apart(written, before - (1.0 if is_remote(uri) else 0.0), after)
    store.delete(uri)
    if store.exists(uri):
        return msgspec.structs.replace(found, unusable=f"{found.work}: what was removed there is there still")
    return msgspec.structs.replace(found, ahead_seconds=ahead, guarded=_is_guarded(store, folder))


def _is_guarded(store: Store, folder: bytes) -> bool:
    """Whether a second run is kept out of a folder that is held."""
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock(folder))
        try:
            held.enter_context(store.lock(folder))
        except WorkDirBusyError:
            return True
    return False


def _apart(theirs: float, before: float, after: float) -> float:
    """Return how far a clock is ahead that was read between two moments of ours: 0 if it may have been right."""
    return theirs - min(max(theirs, before), after)
