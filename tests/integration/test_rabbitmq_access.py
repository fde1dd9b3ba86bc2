"""Who may enter a broker, and do what there: TLS, and ``distsum broker setup``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aio_pika
import msgspec
import pytest
import trustme
from aiormq.exceptions import ChannelAccessRefused

from distsum.brokers.address import BrokerAddress
from distsum.brokers.amqp import open_session
from distsum.brokers.envelope import APPLICATION, MAX_MESSAGE_BYTES, PROTOCOL_HEADER
from distsum.brokers.rabbitmq_requests import open_questions
from distsum.brokers.topology import (
    CONTROL_EXCHANGE,
    DEAD,
    DEAD_EXCHANGE,
    EVENTS_EXCHANGE,
    EXCHANGES,
    HEARTBEATS,
    JOBS_CHANNEL,
    LOCK,
    REFUSED,
    REQUESTS,
    REQUESTS_EXCHANGE,
    RESULTS,
    RESULTS_EXCHANGE,
    TASKS,
    TASKS_EXCHANGE,
    TELEMETRY_EXCHANGE,
    VIEWER_ARGUMENTS,
    VIEWS,
    VIEWS_CHANNEL,
    VIEWS_EXCHANGE,
)
from distsum.errors import ServiceError, UnreachableError, UsageError
from distsum.messages import PROTOCOL, RunTask, TaskFailed, TaskId, WorkerJoined
from distsum.service import messages as channel
from distsum.service.view import ServiceView
from distsum.service.viewer import Viewer
from tests.command import distsum, wait_until
from tests.servicecommands import master
from tests.serving import receive, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distsum.brokers.topology import RequestChannel
    from tests.rabbitmq import Node

CANARY = "c4n4ry-p4ssw0rd"
TASK = TaskId("job", 1, 0, 0)
WORKER = "distsum-worker"
VIEWER = "distsum-viewer"
OTHERS_EXCHANGES = set(EXCHANGES) - {EVENTS_EXCHANGE, VIEWS_EXCHANGE}


async def enter(address: BrokerAddress) -> None:
    """Connect, and have a task done over it."""
    async with serving(address) as made:
        worker = await made.worker("w")
        await made.expect(WorkerJoined)
        made.broker.publish(RunTask(TASK, b"/work"))
        assert (await receive(worker)).task == TASK
        await asyncio.to_thread(worker.finish, TaskFailed("w", TASK, "error", "done"))
        assert (await made.expect(TaskFailed)).task == TASK


# TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secure(rabbitmq: Node, vhost: str) -> BrokerAddress:
    """The address of a virtual host with TLS, as it should be."""
    plain = BrokerAddress.parse(rabbitmq.url(vhost))
    authority = str(rabbitmq.folder / "authority.pem")
    return replace(plain, scheme="amqps", host="localhost", port=rabbitmq.tls_port, cacertfile=authority)


def test_a_broker_over_tls_serves_as_one_without(secure):
    assert BrokerAddress.parse(secure.uri()) == secure
    asyncio.run(enter(secure))


def test_a_certificate_of_ours_is_shown(rabbitmq, secure, tmp_path):
    ours = rabbitmq.authority.issue_cert("ada@science.example", common_name="ada")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "ours.pem")
    ours.private_key_pem.write_to_path(tmp_path / "ours.key")
    address = replace(secure, certfile=str(tmp_path / "ours.pem"), keyfile=str(tmp_path / "ours.key"))

    async def body():
        session = await open_session(address, "with a certificate")
        try:
            return await asyncio.to_thread(subjects)
        finally:
            await session.close()

    def subjects():
        while True:
            found = {each.get("peer_cert_subject") for each in rabbitmq.management("GET", "/api/connections")}
            if found != {None} and found:
                return found

    assert any("CN=ada" in subject for subject in asyncio.run(body()) if subject)


def refusal(address: BrokerAddress) -> str:
    with pytest.raises(UnreachableError) as caught:
        asyncio.run(open_session(address, "refused"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_broker_whose_authority_is_not_trusted_is_not_entered(secure, tmp_path):
    assert "certificate is not accepted" in refusal(replace(secure, cacertfile=None))
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    assert "certificate is not accepted" in refusal(replace(secure, cacertfile=str(tmp_path / "other.pem")))


def test_a_broker_of_another_name_is_not_entered(secure):
    said = refusal(replace(secure, host="127.0.0.1"))
    assert "certificate is not accepted" in said
    assert "127.0.0.1" in said


def test_tls_and_plain_ports_that_are_mixed_up_are_told(rabbitmq, secure):
    assert "TLS" in refusal(replace(secure, port=rabbitmq.amqp_port))
    assert "plain AMQP" in refusal(replace(secure, scheme="amqp"))


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_that_holds_no_certificate_is_named(secure, tmp_path, content):
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    for change in ({"cacertfile": str(path)}, {"certfile": str(path)}):
        with pytest.raises(UsageError, match=r"file.pem.*cannot be used"):
            asyncio.run(open_session(replace(secure, **change), "refused"))


# Setting up -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(rabbitmq: Node) -> Iterator[BrokerAddress]:
    """An address that nothing has been made for."""
    address = BrokerAddress(host="127.0.0.1", port=rabbitmq.amqp_port, vhost="a/b c", user="mästér", password=CANARY)
    yield address
    for path in (
        "/api/vhosts/a%2Fb%20c",
        "/api/users/m%C3%A4st%C3%A9r",
        f"/api/users/{WORKER}",
        f"/api/users/{VIEWER}",
    ):
        with contextlib.suppress(urllib.error.HTTPError):  # some tests end before it is made
            rabbitmq.management("DELETE", path)


@pytest.fixture
def setup(rabbitmq: Node, fresh: BrokerAddress):
    """Run ``distsum broker setup`` as a person would, with secrets in the environment; nothing shows them."""

    def run(*arguments: str, **environment: str):
        management = f"http://operator:{rabbitmq.password}@127.0.0.1:{rabbitmq.management_port}"
        secrets = {"DISTSUM_BROKER": fresh.uri(), "DISTSUM_MANAGEMENT": management} | environment
        done = distsum("broker", "setup", *arguments, env=secrets)
        assert CANARY not in done.stdout + done.stderr
        assert rabbitmq.password not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


async def enter_as_both(master: BrokerAddress, worker: BrokerAddress) -> None:
    async with serving(master) as made:
        channel = await made.worker("w", worker)
        await made.expect(WorkerJoined)
        made.broker.publish(RunTask(TASK, b"/work"))
        assert (await receive(channel)).task == TASK
        channel.drain()
        await asyncio.to_thread(channel.finish, TaskFailed("w", TASK, "error", "done"))
        assert (await made.expect(TaskFailed)).task == TASK


def test_setup_makes_all_that_a_master_and_workers_need_and_a_second_time_changes_nothing(setup, fresh):
    first = setup()
    assert first.returncode == 0, first.stderr
    for made in ("virtual host a/b c", "user mästér", f"user {WORKER}", f"permissions of {WORKER}"):
        assert f"made {made}" in first.stderr
    worker = BrokerAddress.parse(first.stdout.strip())
    assert (worker.user, worker.vhost) == (WORKER, fresh.vhost)
    asyncio.run(enter_as_both(fresh, worker))
    second = setup("--json")
    assert second.returncode == 0, second.stderr
    assert "made" not in second.stderr
    assert json.loads(second.stdout) == {"broker": str(fresh), "made": [], "worker": None}
    asyncio.run(enter_as_both(fresh, worker))


def test_a_worker_may_use_its_own_queue_and_no_other(setup, fresh):
    worker = BrokerAddress.parse(setup("--quiet").stdout.strip())

    async def bind(channel, exchange: str, key: str) -> None:
        await channel.queue_declare("distsum.worker.w.1", exclusive=True)
        await channel.queue_bind("distsum.worker.w.1", exchange, key)

    may = [
        lambda channel: bind(channel, CONTROL_EXCHANGE, "worker.w"),
        lambda channel: channel.basic_consume(TASKS, print),
        lambda channel: channel.basic_publish(b"", exchange=RESULTS_EXCHANGE, routing_key=RESULTS),
        lambda channel: channel.basic_publish(b"", exchange=TELEMETRY_EXCHANGE, routing_key=HEARTBEATS),
        lambda channel: channel.basic_publish(b"", exchange=DEAD_EXCHANGE, routing_key=REFUSED),
    ]
    may_not = [
        lambda channel: channel.queue_declare("mine", exclusive=True),
        lambda channel: channel.queue_declare("distsum.worker", exclusive=True),
        lambda channel: channel.queue_declare(LOCK, exclusive=True),
        lambda channel: channel.queue_declare("", exclusive=True),
        lambda channel: channel.exchange_declare("distsum.exchange.mine"),
        lambda channel: channel.queue_delete(TASKS),
        lambda channel: channel.exchange_delete(TASKS_EXCHANGE),
        lambda channel: channel.queue_unbind(TASKS, TASKS_EXCHANGE, TASKS),
        lambda channel: channel.basic_publish(b"", exchange=TASKS_EXCHANGE, routing_key=TASKS),
        lambda channel: channel.basic_publish(b"", exchange="", routing_key=TASKS),
        lambda channel: channel.basic_publish(b"", exchange=CONTROL_EXCHANGE, routing_key="workers"),
        lambda channel: channel.basic_publish(b"", exchange=REQUESTS_EXCHANGE, routing_key=REQUESTS),
        lambda channel: channel.basic_consume(REQUESTS, print),
        lambda channel: channel.basic_publish(b"", exchange=VIEWS_EXCHANGE, routing_key=VIEWS),
        lambda channel: channel.basic_publish(b"", exchange=EVENTS_EXCHANGE, routing_key="service"),
        lambda channel: channel.basic_consume(VIEWS, print),
        lambda channel: bind(channel, EVENTS_EXCHANGE, "service"),
        lambda channel: bind(channel, VIEWS_EXCHANGE, VIEWS),
        lambda channel: bind(channel, REQUESTS_EXCHANGE, REQUESTS),
        lambda channel: bind(channel, TASKS_EXCHANGE, TASKS),
        lambda channel: bind(channel, RESULTS_EXCHANGE, RESULTS),
        lambda channel: bind(channel, TELEMETRY_EXCHANGE, HEARTBEATS),
        *(lambda channel, queue=queue: channel.basic_consume(queue, print) for queue in (RESULTS, DEAD, REFUSED)),
        *(lambda channel, queue=queue: channel.queue_purge(queue) for queue in (RESULTS, DEAD, REFUSED)),
        *(lambda channel, queue=queue: channel.queue_bind(queue, CONTROL_EXCHANGE, "#") for queue in (TASKS, RESULTS)),
    ]
    assert len(EXCHANGES) == 8, "a new one needs its lines here"
    assert [asyncio.run(allowed(worker, action)) for action in may] == [True] * len(may)
    assert [asyncio.run(allowed(worker, action)) for action in may_not] == [False] * len(may_not)


def test_who_only_looks_may_ask_and_be_told_and_change_nothing(setup, fresh, tmp_path):
    done = setup("--quiet", "--viewer-user", VIEWER)
    assert done.returncode == 0, done.stderr
    worker, viewer = map(BrokerAddress.parse, done.stdout.split())
    assert (worker.user, viewer.user, viewer.vhost) == (WORKER, VIEWER, fresh.vhost)
    again = setup("--json", "--viewer-user", VIEWER)
    assert json.loads(again.stdout) == {"broker": str(fresh), "made": [], "worker": None, "viewer": None}

    async def bind(channel, exchange: str, key: str) -> None:
        await channel.queue_declare("distsum.viewer.v", exclusive=True, arguments=dict(VIEWER_ARGUMENTS))
        await channel.queue_bind("distsum.viewer.v", exchange, key)

    may = [
        lambda channel: bind(channel, EVENTS_EXCHANGE, "job.1"),
        lambda channel: bind(channel, VIEWS_EXCHANGE, "distsum.viewer.reply.v"),
        lambda channel: channel.basic_publish(b"", exchange=VIEWS_EXCHANGE, routing_key=VIEWS),
    ]
    shared = (TASKS, RESULTS, DEAD, REFUSED, REQUESTS, VIEWS)
    may_not = [
        *(
            lambda channel, exchange=exchange: channel.basic_publish(b"", exchange=exchange, routing_key=TASKS)
            for exchange in ({*EXCHANGES, ""} - {VIEWS_EXCHANGE})
        ),
        *(lambda channel, exchange=exchange: bind(channel, exchange, "#") for exchange in OTHERS_EXCHANGES),
        *(lambda channel, queue=queue: channel.basic_consume(queue, print) for queue in shared),
        *(lambda channel, queue=queue: channel.queue_purge(queue) for queue in shared),
        *(lambda channel, queue=queue: channel.queue_bind(queue, EVENTS_EXCHANGE, "#") for queue in shared),
        lambda channel: channel.queue_declare("distsum.reply.v", exclusive=True),
        lambda channel: channel.queue_declare("distsum.worker.v.1", exclusive=True),
        lambda channel: channel.queue_declare(LOCK, exclusive=True),
        lambda channel: channel.exchange_delete(EVENTS_EXCHANGE),
    ]
    with master(tmp_path, {"DISTSUM_BROKER": fresh.uri()}), contextlib.closing(Viewer(viewer, ServiceView)) as looking:
        looking.start()
        wait_until(lambda: looking.service.reader.number > 1, "what is told")
        assert looking.connection().state == "connected"
    assert [asyncio.run(allowed(viewer, action)) for action in may] == [True] * len(may)
    assert [asyncio.run(allowed(viewer, action)) for action in may_not] == [False] * len(may_not)


def test_what_comes_the_way_of_those_who_look_is_refused_where_it_would_change_something(rabbitmq, vhost, tmp_path):
    address = BrokerAddress.parse(rabbitmq.url(vhost))

    async def ask(request: Any) -> Any:
        questions = await open_questions(address, "looks", VIEWS_CHANNEL)
        try:
            return channel.REPLY.decode(await questions.ask(msgspec.msgpack.encode(request), 20.0))
        finally:
            await questions.session.close()

    with master(tmp_path, {"DISTSUM_BROKER": address.uri()}):
        for request in (channel.Cancel("a"), channel.Submit("a"), channel.CommandWorker("w", "drain")):
            with pytest.raises(ServiceError, match="no request"):
                asyncio.run(ask(request))
        refused = rabbitmq.take(vhost, REFUSED, 3)
        assert {each["properties"]["headers"]["from"] for each in refused} == {VIEWS}
        assert isinstance(asyncio.run(ask(channel.ListJobs())), channel.Jobs)


OURS = {PROTOCOL_HEADER: PROTOCOL, "number": 1}
STRANGE = [
    (b"hello", {}, None, "sender"),
    (b"hello", OURS, APPLICATION, "where its answer should go"),
    (b"hello", OURS | {"reply": "distsum.requests"}, APPLICATION, "where its answer should go"),
    # No routing key is that long: to answer would be a fault, and the message would come back to the next master.
    (b"hello", OURS | {"reply": "distsum.reply." + "a" * 300}, APPLICATION, "where its answer should go"),
    (b"hello", OURS | {"reply": "distsum.viewer.reply." + "ä" * 300}, APPLICATION, "where its answer should go"),
    (b"hello", OURS | {"reply": [1], "number": "x"}, APPLICATION, "where its answer should go"),
    (b"hello", {PROTOCOL_HEADER: PROTOCOL + 1}, APPLICATION, "protocol"),
    (b"hello", {"reply": "{}0", "number": 1}, APPLICATION, "protocol"),
    (b"hello", OURS | {"reply": "{}0"}, APPLICATION, "no request"),
    (b"\x91" * 100_000, OURS | {"reply": "{}0"}, APPLICATION, "no request"),
    (msgspec.msgpack.encode(channel.ListJobs())[:-1], OURS | {"reply": "{}0"}, APPLICATION, "no request"),
    (b"\0" * (MAX_MESSAGE_BYTES + 1), OURS | {"reply": "{}0"}, APPLICATION, "bytes"),
]


def test_whatever_others_ask_is_refused_with_a_reason_and_the_master_answers_on(rabbitmq, vhost, tmp_path):
    address = BrokerAddress.parse(rabbitmq.url(vhost))

    async def lists(way: RequestChannel) -> Any:
        questions = await open_questions(address, "client", way)
        try:
            return channel.REPLY.decode(await questions.ask(msgspec.msgpack.encode(channel.ListJobs()), 20.0))
        finally:
            await questions.session.close()

    with master(tmp_path, {"DISTSUM_BROKER": address.uri()}):
        for way in (JOBS_CHANNEL, VIEWS_CHANNEL):
            for body, headers, application, _ in STRANGE:
                told = {
                    name: value.format(way.reply) if isinstance(value, str) else value
                    for name, value in headers.items()
                }
                rabbitmq.publish(vhost, way.queue, body, headers=told, app_id=application)
            refused = [each["properties"]["headers"] for each in rabbitmq.take(vhost, REFUSED, len(STRANGE))]
            assert {each["from"] for each in refused} == {way.queue}
            words = Counter(words for *_, words in STRANGE)
            assert {each: sum(each in found["reason"] for found in refused) for each in words} == words
            assert isinstance(asyncio.run(lists(way)), channel.Jobs)
            assert rabbitmq.depth(vhost, way.queue) == 0


async def allowed(address: BrokerAddress, action: Any) -> bool:
    """Whether a user may do something at the broker."""
    async with await aio_pika.connect(address.uri(), timeout=10) as connection:
        channel = await connection.channel(on_return_raises=True)
        try:
            await action(await channel.get_underlay_channel())
        except ChannelAccessRefused:
            return False
        return True


def test_an_administrator_may_be_the_master_and_keeps_what_it_may(setup, rabbitmq, fresh):
    both = replace(fresh, user="operator", password=rabbitmq.password)
    done = setup("--json", DISTSUM_BROKER=both.uri())
    assert done.returncode == 0, done.stderr
    user = rabbitmq.management("GET", "/api/users/operator")
    assert "administrator" in user["tags"]
    asyncio.run(enter_as_both(both, BrokerAddress.parse(json.loads(done.stdout)["worker"])))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"DISTSUM_MANAGEMENT": f"http://operator:{CANARY}@127.0.0.1:PORT"}, 3, ["operator", "refused"]),
        ({"DISTSUM_MANAGEMENT": f"http://operator:{CANARY}@127.0.0.1:1"}, 3, ["127.0.0.1:1", "management plugin"]),
        ({"DISTSUM_MANAGEMENT": f"https://operator:{CANARY}@127.0.0.1:PORT"}, 3, ["127.0.0.1"]),
        ({"DISTSUM_MANAGEMENT": f"amqp://operator:{CANARY}@127.0.0.1:PORT"}, 2, ["DISTSUM_MANAGEMENT", "http://"]),
        ({"DISTSUM_BROKER": f"http://ada:{CANARY}@127.0.0.1:PORT"}, 2, ["DISTSUM_BROKER", "amqp://"]),
        ({"DISTSUM_BROKER": f"amqp://{WORKER}:{CANARY}@127.0.0.1:PORT"}, 2, ["--worker-user", "own"]),
        ({"DISTSUM_BROKER": f"amqp://{VIEWER}:{CANARY}@127.0.0.1:PORT"}, 2, ["--viewer-user", "nothing else"]),
    ],
)
def test_what_hinders_setting_up_is_told_in_one_line(setup, rabbitmq, change, code, words):
    environment = {name: value.replace("PORT", str(rabbitmq.management_port)) for name, value in change.items()}
    done = setup("--viewer-user", VIEWER, **environment)
    assert done.returncode == code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line


def test_a_user_that_is_there_with_another_password_is_told(setup, rabbitmq, fresh):
    rabbitmq.management("PUT", "/api/users/m%C3%A4st%C3%A9r", {"password": "another", "tags": ""})
    done = setup()
    assert done.returncode == 3
    assert "refused; check the password" in done.stderr
    assert rabbitmq.management("GET", "/api/users/m%C3%A4st%C3%A9r") is not None


def test_management_over_tls_is_verified(setup, rabbitmq):
    address = f"https://operator:{rabbitmq.password}@localhost:{rabbitmq.secure_management_port}"
    refused = setup(DISTSUM_MANAGEMENT=address)
    assert refused.returncode == 3
    assert "certificate is not accepted" in refused.stderr
    done = setup(DISTSUM_MANAGEMENT=f"{address}?cacertfile={rabbitmq.folder}/authority.pem")
    assert done.returncode == 0, done.stderr


def test_the_extra_that_is_missing_is_named(tmp_path):
    # A finder that finds no aio_pika stands for an environment without it.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'aio_pika':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = distsum(
        "broker", "setup", "--broker", "amqp://h/", "--management", "http://h/", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "pip install 'distsum[rabbitmq]'" in done.stderr
    assert "Traceback" not in done.stderr
