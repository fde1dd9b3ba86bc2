"""RabbitMQ beyond what every broker does: who serves it, what is refused, how workers leave, what faults are told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import distsum
from distsum.brokers import amqp
from distsum.brokers.address import BrokerAddress
from distsum.brokers.base import ChannelClosedError
from distsum.brokers.envelope import APPLICATION, PROTOCOL_HEADER, seal
from distsum.brokers.rabbitmq import RabbitBroker
from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel
from distsum.brokers.topology import (
    CONTROL_EXCHANGE,
    DEAD,
    DEAD_EXCHANGE,
    EVERY_WORKER,
    HEARTBEATS,
    REFUSED,
    RESULTS,
    RESULTS_EXCHANGE,
    TASKS,
    TASKS_EXCHANGE,
    TELEMETRY_EXCHANGE,
)
from distsum.errors import BrokerBusyError, DistsumError, SupersededError, UnreachableError
from distsum.messages import (
    PROTOCOL,
    CancelTask,
    Heartbeat,
    Introduce,
    PauseTasks,
    RunTask,
    TaskDeadLettered,
    TaskStarted,
    TaskSucceeded,
    WorkerJoined,
    WorkerLost,
)
from distsum.service.rabbitmq import serve
from distsum.stores.local import LocalStore
from tests.faultproxy import Line
from tests.serving import DEADLINE_SECONDS, Serving, receive, serving, success, task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rabbitmq import Node

CANARY = "c4n4ry-p4ssw0rd"


@pytest.fixture
def address(rabbitmq: Node, vhost: str) -> BrokerAddress:
    return BrokerAddress.parse(rabbitmq.url(vhost))


# Who may serve it -----------------------------------------------------------------------------------------------------


def test_one_process_serves_a_virtual_host_and_the_next_only_after_it(address):
    async def body():
        async with serving(address) as first:
            with pytest.raises(BrokerBusyError, match="served by another process") as caught:
                async with serving(address, lock_seconds=0.3):
                    pass
            assert caught.value.exit_code == 2
            second = Serving(address, lock_seconds=None)
            standby = asyncio.create_task(second.broker.start(second.heard.put_nowait))
            await asyncio.sleep(0.5)  # not for it: against it, which must not happen
            assert not standby.done()
            first.broker.publish(RunTask(task(0), b"/work"))
            worker = await first.worker("w")
            assert (await receive(worker)).task == task(0), "the one who waits took nothing from it"
            await first.broker.close()
            await asyncio.wait_for(standby, DEADLINE_SECONDS)
            assert (await second.expect(WorkerJoined)).worker == "w", "it learns which workers there are"
            await second.close()

    asyncio.run(body())


def test_what_an_earlier_process_left_is_dropped(rabbitmq, vhost, address):
    async def body():
        async with serving(address) as first:
            first.broker.publish(RunTask(task(0), b"/work"))
        async with serving(address) as second:
            second.broker.publish(RunTask(task(1), b"/work"))
            worker = await second.worker("w")
            assert (await receive(worker)).task == task(1)

    asyncio.run(body())


@pytest.mark.parametrize("moment", ["just before", "afterwards"])
def test_a_master_that_is_asked_to_end_while_another_follows_it_tells_of_no_fault_that_nobody_heard(
    address, tmp_path, monkeypatch, caplog, moment
):
    made = []

    class Followed(RabbitBroker):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            made.append(self)

        async def close(self):
            if moment == "afterwards":
                self._on_failure(SupersededError("it was served by another process"))
            await super().close()

    async def body():
        told, ready = [], asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        master = asyncio.create_task(serve(address, LocalStore(), os.fsencode(tmp_path), on_ready=ready.set))
        await asyncio.wait_for(ready.wait(), DEADLINE_SECONDS)
        if moment == "just before":
            made[0]._on_failure(SupersededError("it was served by another process"))
        master.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await master
        return told

    monkeypatch.setattr("distsum.service.rabbitmq.RabbitBroker", Followed)
    with caplog.at_level(logging.DEBUG):
        told = asyncio.run(body())
    made.clear()
    gc.collect()
    assert told == []
    assert "it was served by another process" in caplog.text, "it is told, and not with a traceback"


def test_whatever_is_asked_of_a_session_that_has_ended_is_answered_by_why_it_has(address):
    async def body():
        session = await amqp.open_session(address, "test")
        await session.close()
        for asked in (
            session.counts(TASKS),
            session.declare_own("own"),
            session.consume(TASKS, lambda _: asyncio.sleep(0), prefetch=1),
        ):
            with pytest.raises(amqp.SessionLostError, match="closed"):
                await asked

    asyncio.run(body())


def test_counting_takes_one_channel_however_often_also_beside_queues_that_are_not_there(rabbitmq, vhost, address):
    def channels():
        return rabbitmq.control("list_channels", "-q", "vhost").split().count(vhost)

    async def body():
        session = await amqp.open_session(address, "test")
        await session.declare_own("own")
        before = await asyncio.to_thread(channels)
        for _ in range(3):
            found = await asyncio.gather(
                *(session.counts(name) for name in ("own", "none", "own")), return_exceptions=True
            )
            assert [found[0], found[2]] == [(0, 0), (0, 0)]
            assert isinstance(found[1], amqp.NoSuchQueueError)
        await session.counts("own")
        numbers = {await asyncio.to_thread(channels) for _ in range(2) if await session.counts("own") == (0, 0)}
        assert numbers == {before + 1}
        await session.close()

    asyncio.run(body())


# What cannot be reached -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """A TCP server that is no broker: says one thing and closes, or says nothing for as long as it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    taken.append(connection)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def faults(address: BrokerAddress) -> list[DistsumError]:
    """Return what both sides raise, after they have been asked to connect."""
    found = []

    async def serve() -> None:
        await RabbitBroker(address, found.append).start(found.append)

    def work() -> None:
        RabbitWorkerChannel(address, "w").open()

    for attempt in (lambda: asyncio.run(serve()), work):
        with pytest.raises(DistsumError) as caught:
            attempt()
        found.append(caught.value)
    return found


def told(errors: list[DistsumError], *words: str) -> None:
    for error in errors:
        assert isinstance(error, UnreachableError)
        assert error.exit_code == 3
        assert "\n" not in str(error)
        for word in words:
            assert word in str(error)
        # Whatever is shown of it, with all frames and their variables, holds no password.
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        assert CANARY not in "".join(lines)


@pytest.fixture
def logged(caplog):
    """Every word that any part logs is kept, and held against the password afterwards."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert CANARY not in caplog.text


def test_nobody_listens(logged):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    told(
        faults(BrokerAddress.parse(f"amqp://ada:{CANARY}@127.0.0.1:{port}/v")),
        f"amqp://ada@127.0.0.1:{port}/v",
        "RabbitMQ",
    )


def test_no_such_host(logged):
    told(faults(BrokerAddress.parse(f"amqp://ada:{CANARY}@nowhere.invalid/v")), "nowhere.invalid")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["a closed door", "another protocol"]
)
def test_what_listens_is_no_broker(logged, answer):
    with server(answer) as port:
        told(faults(BrokerAddress.parse(f"amqp://ada:{CANARY}@127.0.0.1:{port}/v")), "RabbitMQ")


def test_what_listens_says_nothing(logged, monkeypatch):
    monkeypatch.setattr(amqp, "CONNECT_SECONDS", 0.3)
    with server(None) as port:
        told(faults(BrokerAddress.parse(f"amqp://ada:{CANARY}@127.0.0.1:{port}/v")), "no answer")


@pytest.mark.parametrize("user", ["operator", "nobody"])
def test_a_wrong_user_or_password(logged, rabbitmq, vhost, user):
    told(faults(BrokerAddress.parse(rabbitmq.url(vhost, user, CANARY))), user, "refused", "password")


def test_no_such_virtual_host(logged, rabbitmq):
    rabbitmq.management("PUT", "/api/users/canary", {"password": CANARY, "tags": ""})
    try:
        told(
            faults(BrokerAddress.parse(rabbitmq.url("missing", "canary", CANARY))),
            "virtual host missing",
            "broker setup",
        )
    finally:
        rabbitmq.management("DELETE", "/api/users/canary")


def test_a_worker_that_comes_before_everything_is_set_up_is_told_so(address):
    with pytest.raises(UnreachableError, match="nothing is set up"):
        RabbitWorkerChannel(address, "w").open()


def test_a_worker_of_another_protocol_takes_no_task_and_is_told_why(rabbitmq, vhost, address):
    program = (
        "import sys, distsum.messages\n"
        "distsum.messages.PROTOCOL += 1\n"
        "from distsum.brokers.address import BrokerAddress\n"
        "from distsum.brokers.rabbitmq_worker import RabbitWorkerChannel\n"
        "RabbitWorkerChannel(BrokerAddress.parse(sys.stdin.read()), 'w').open()\n"
    )

    async def body():
        async with serving(address):
            return await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", program],
                input=address.uri(),
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )

    done = asyncio.run(body())
    assert done.returncode == 1
    assert f"nothing is set up there for distsum {distsum.__version__} (protocol {PROTOCOL + 1})" in done.stderr


def test_queues_of_another_make_are_told_and_not_used(address):
    async def body():
        async with serving(address, delivery_limit=3):
            pass
        with pytest.raises(UnreachableError, match=r"x-delivery-limit.*another version"):
            await RabbitBroker(address, print).start(print)

    asyncio.run(body())


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_task_beyond_the_limit_is_dead_lettered_also_where_the_broker_does_not_count(address):
    async def body():
        async with serving(address, delivery_limit=20) as made:
            made.broker.publish(RunTask(task(0), b"/work"))
            for delivery in (1, 2):
                worker = await made.worker(f"w{delivery}", delivery_limit=2)
                assert (await receive(worker)).delivery == delivery
                await asyncio.to_thread(worker.close)
            last = await made.worker("last", delivery_limit=2)
            assert await made.expect(TaskDeadLettered) == TaskDeadLettered(task(0), 2)
            made.broker.publish(RunTask(task(1), b"/work"))
            assert (await receive(last)).task == task(1)

    asyncio.run(body())


TARGETS = [
    (TASKS_EXCHANGE, TASKS, TASKS),
    (RESULTS_EXCHANGE, RESULTS, RESULTS),
    (DEAD_EXCHANGE, DEAD, DEAD),
    (CONTROL_EXCHANGE, EVERY_WORKER, CONTROL_EXCHANGE),
    (TELEMETRY_EXCHANGE, HEARTBEATS, TELEMETRY_EXCHANGE),
]
BODIES = st.binary(max_size=200) | st.sampled_from(
    [
        seal(message).body[:-1]
        for message in (RunTask(task(0), b"/work"), success("w", task(0)), Heartbeat("w", None, 0))
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from([PROTOCOL_HEADER, "x-delivery-count", "x-acquired-count", "reason", "deliveries", "x-death"]),
    st.sampled_from([PROTOCOL, PROTOCOL + 1, -1, 2**40, True, None, "1", 1.5, bytearray(b"\xff"), [1], {"a": [None]}]),
)


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(TARGETS),
        BODIES,
        HEADERS,
        st.sampled_from([None, APPLICATION, "another"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    ),
    min_size=1,
    max_size=8,
)


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Return examples that were drawn before the test begins.

    While it runs, threads of the library draw random numbers, which Hypothesis takes for a strategy that does.
    """
    found = []

    @settings(max_examples=count, phases=[Phase.generate])
    @given(strategy)
    def draw(example: Any) -> None:
        found.append(example)

    draw()
    return found


def test_whatever_others_send_is_refused_with_a_reason_and_harms_nobody(rabbitmq, vhost, address):
    async def check(made, worker, channel, messages):
        for (exchange, key, _), body, headers, application, kind in messages:
            message = aio_pika.Message(body, headers=headers, app_id=application, type=kind)
            await (await channel.get_exchange(exchange, ensure=False)).publish(message, key)
        refused = await asyncio.to_thread(rabbitmq.take, vhost, REFUSED, len(messages))
        assert sorted(each["properties"]["headers"]["from"] for each in refused) == sorted(
            place for (_, _, place), *_ in messages
        )
        assert all(each["properties"]["headers"]["reason"] for each in refused)
        made.broker.publish(RunTask(task(1), b"/work"))
        assert await receive(worker) == RunTask(task(1), b"/work", delivery=1)
        await asyncio.to_thread(worker.finish, success("w", task(1)))
        assert await made.expect(TaskSucceeded) == success("w", task(1))
        assert made.heard.empty()

    async def body():
        async with serving(address) as made, await aio_pika.connect(rabbitmq.url(vhost), timeout=10) as connection:
            worker = await made.worker("w")
            await made.expect(WorkerJoined)
            channel = await connection.channel(on_return_raises=True)
            for messages in examples:
                await check(made, worker, channel, messages)

    examples = drawn(MESSAGES, 60)
    asyncio.run(body())


def test_a_message_whose_properties_nobody_can_read_is_refused_and_harms_nobody(rabbitmq, vhost, address):
    async def body():
        async with serving(address) as made:
            worker = await made.worker("w")
            await made.expect(WorkerJoined)
            places = [TASKS, RESULTS, DEAD]
            for queue in places:
                properties = {"timestamp": 2**63 - 1, "app_id": APPLICATION}
                message = {"properties": properties, "routing_key": queue, "payload": "", "payload_encoding": "string"}
                there = f"/api/exchanges/{vhost}/amq.default/publish"
                await asyncio.to_thread(rabbitmq.management, "POST", there, message)
            refused = await asyncio.to_thread(rabbitmq.take, vhost, REFUSED, len(places))
            assert sorted(each["properties"]["headers"]["from"] for each in refused) == sorted(places)
            assert all("unreadable" in each["properties"]["headers"]["reason"] for each in refused)
            made.broker.publish(RunTask(task(1), b"/work"))
            assert await receive(worker) == RunTask(task(1), b"/work", delivery=1)
            await asyncio.to_thread(worker.finish, success("w", task(1)))
            assert await made.expect(TaskSucceeded) == success("w", task(1))
            assert made.heard.empty()

    asyncio.run(body())


def test_what_is_said_under_a_name_that_no_worker_can_be_reached_by_is_refused(rabbitmq, vhost, address):
    names = ["", "x" * 300, "a.b", "#", "ä", "a\nb"]

    async def body():
        async with serving(address, ping_seconds=0.1) as made:
            for name in names:
                for message, queue in [(success(name, task(0)), RESULTS), (WorkerLost(name, "why"), RESULTS)]:
                    sent = seal(message)
                    await asyncio.to_thread(
                        rabbitmq.publish, vhost, queue, sent.body, headers=dict(sent.headers), app_id=APPLICATION
                    )
            sent = seal(Heartbeat(names[1], None, 0))
            async with await aio_pika.connect(rabbitmq.url(vhost), timeout=10) as connection:
                channel = await connection.channel()
                message = aio_pika.Message(sent.body, headers=dict(sent.headers), app_id=APPLICATION)
                await (await channel.get_exchange(TELEMETRY_EXCHANGE, ensure=False)).publish(message, HEARTBEATS)
            refused = await asyncio.to_thread(rabbitmq.take, vhost, REFUSED, 2 * len(names) + 1)
            assert all("no worker is called" in each["properties"]["headers"]["reason"] for each in refused)
            worker = await made.worker("w")
            await made.expect(WorkerJoined)
            await asyncio.to_thread(worker.close)
            assert await made.expect(WorkerLost) == WorkerLost("w", "is gone from the broker")

    asyncio.run(body())


# How workers leave ----------------------------------------------------------------------------------------------------


def test_a_worker_that_drains_finishes_its_task_takes_no_other_and_says_that_it_leaves(address):
    async def body():
        async with serving(address, ping_seconds=DEADLINE_SECONDS) as made:
            worker = await made.worker("w")
            made.broker.publish(RunTask(task(0), b"/work"))
            made.broker.publish(RunTask(task(1), b"/work"))
            assert (await receive(worker)).task == task(0)
            worker.drain()
            await asyncio.to_thread(worker.finish, success("w", task(0)))
            assert (await made.expect(TaskSucceeded)).task == task(0)
            assert await made.expect(WorkerLost) == WorkerLost("w", "left")
            with pytest.raises(ChannelClosedError):
                await receive(worker)
            other = await made.worker("other")
            assert await receive(other) == RunTask(task(1), b"/work", delivery=1)

    asyncio.run(body())


def test_a_paused_worker_says_so_to_whoever_asks_and_takes_nothing_until_it_is_resumed(address):
    async def body():
        why = PauseTasks("it has failed", quarantined=True)
        async with serving(address) as first:
            worker = await first.worker("w")
            await first.expect(WorkerJoined)
            first.broker.pause("w", why)
            first.broker.send("w", Introduce())
            told = await first.expect(WorkerJoined)
            assert (told.paused, told.quarantined) == ("it has failed", True)
            await first.broker.close()
            async with serving(address) as second:
                told = await second.expect(WorkerJoined)
                assert (told.paused, told.quarantined) == ("it has failed", True), "the next one learns it, too"
                second.broker.publish(RunTask(task(0), b"/work"))
                other = await second.worker("x")
                assert (await receive(other)).task == task(0)
                second.broker.publish(RunTask(task(1), b"/work"))
                second.broker.send("w", CancelTask(task(7)))
                assert await receive(worker) == CancelTask(task(7)), "it has taken no task before that"
                second.broker.resume("w")
                assert (await receive(worker)).task == task(1)

    asyncio.run(body())


def test_a_worker_that_only_rests_takes_tasks_when_it_is_asked_who_it_is(address):
    async def body():
        async with serving(address) as made:
            worker = await made.worker("w")
            await made.expect(WorkerJoined)
            made.broker.pause("w", PauseTasks())
            made.broker.send("w", CancelTask(task(7)))
            assert await receive(worker) == CancelTask(task(7))
            await made.broker.close()
            async with serving(address) as second:
                told = await second.expect(WorkerJoined)
                assert (told.paused, told.quarantined) == ("", False)
                second.broker.publish(RunTask(task(0), b"/work"))
                assert (await receive(worker)).task == task(0)

    asyncio.run(body())


def test_an_idle_worker_that_drains_leaves_at_once(address):
    async def body():
        async with serving(address, ping_seconds=DEADLINE_SECONDS) as made:
            worker = await made.worker("w")
            worker.drain()
            assert await made.expect(WorkerLost) == WorkerLost("w", "left")
            with pytest.raises(ChannelClosedError):
                await receive(worker)

    asyncio.run(body())


def test_a_worker_that_finds_no_broker_for_too_long_leaves_and_others_go_on_looking(rabbitmq, vhost, address):
    line = Line(rabbitmq.amqp_port)
    through = BrokerAddress.parse(rabbitmq.url(vhost).replace(f":{rabbitmq.amqp_port}", f":{line.port}"))

    async def body():
        async with serving(address, ping_seconds=DEADLINE_SECONDS) as made:
            leaving = await made.worker("leaving", through, reconnect_seconds=0.0)
            patient = await made.worker("patient", through)
            line.cut()
            with pytest.raises(ChannelClosedError) as closed:
                await receive(leaving)
            assert closed.value.exit_code == UnreachableError.exit_code, "by which whoever keeps it ends, too"
            line.mend()
            made.broker.publish(RunTask(task(0), b"/work"))
            assert (await receive(patient)).task == task(0)

    try:
        asyncio.run(body())
    finally:
        line.close()


def test_a_worker_that_only_works_is_not_missed(address):
    async def body():
        async with serving(address) as made:
            worker = await made.worker("w")
            made.broker.publish(RunTask(task(0), b"/work"))
            await receive(worker)
            worker.report(TaskStarted("w", task(0), 1))
            await asyncio.sleep(1.0)  # several times the silence after which it is asked for
            await asyncio.to_thread(worker.finish, success("w", task(0)))
            await made.expect(TaskSucceeded)
            assert made.heard.empty()

    asyncio.run(body())
