"""What the store of S3 does when the server or the network does not: a real server behind a proxy that makes faults."""

from __future__ import annotations

import concurrent.futures
import email.utils
import os
import random
import threading
import time
import traceback

import pytest

from distsum.errors import ConfigurationError, InputChangedError, OutputError, StorageError, UnreachableError
from distsum.latency import Latencies
from distsum.stores.base import StoreInterruptedError
from distsum.stores.s3 import S3Store
from distsum.stores.s3_client import Patience
from tests.command import wait_until
from tests.faultproxy import Fault
from tests.s3server import SECRET_KEY, free_ports

QUICK = Patience(
    connect_seconds=2.0,
    answer_seconds=2.0,
    minimum_rate=100_000,
    window_seconds=0.3,
    first_pause_seconds=0.01,
    longest_pause_seconds=0.05,
    deadline_seconds=20.0,
)
SIZE = 3_000_000


@pytest.fixture
def open_store(proxy):
    """Give a function that makes a store behind the proxy."""
    stores = []

    def make(**changes):
        stores.append(S3Store(Patience(**{name: getattr(QUICK, name) for name in QUICK.__struct_fields__} | changes)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def content():
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def entry(open_store, s3_prefix, content):
    """An input, stored and identified without a fault."""
    store = open_store()
    store.put(s3_prefix + b"/input", [content])
    return store.identify(s3_prefix + b"/input")


def fetched(store, entry, start=0, stop=SIZE):
    buffer = bytearray(stop - start)
    with store.open_input(entry, start, stop - start) as reader:
        assert reader.read_into([memoryview(buffer)], start) == stop - start
    return bytes(buffer)


def gets(proxy):
    return [request for request in proxy.requests if request.method == "GET"]


def only_gets(fault):
    return lambda request: fault(request) if request.method == "GET" else None


def test_a_body_that_breaks_goes_on_from_its_last_byte_with_the_same_etag(proxy, open_store, entry, content):
    proxy.requests.clear()
    proxy.choose = only_gets(lambda request: Fault(cut=400_000))
    assert fetched(open_store(), entry, 1000) == content[1000:]
    ranges = [request.headers["range"] for request in gets(proxy)]
    starts = [int(each.removeprefix("bytes=").partition("-")[0]) for each in ranges]
    assert starts == [1000 + 400_000 * number for number in range(len(starts))]
    assert len(starts) == 8
    assert {request.headers["if-match"] for request in gets(proxy)} == {f'"{entry.version.decode()}"'}


@pytest.mark.parametrize("drip_seconds", [0.0, 0.01])
def test_a_body_that_stalls_or_drips_goes_on_with_another_request(proxy, open_store, entry, content, drip_seconds):
    proxy.choose = only_gets(
        lambda request: Fault(stall=500_000, drip_seconds=drip_seconds) if request.number % 2 else None
    )
    proxy.requests.clear()
    proxy.requests.append(None)
    assert fetched(open_store(), entry) == content
    assert len(proxy.requests) == 3
    start = int(proxy.requests[2].headers["range"].removeprefix("bytes=").partition("-")[0])
    assert 500_000 <= start < 501_000


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError")])
def test_a_busy_server_is_asked_again_whatever_the_request(
    proxy, open_store, s3_prefix, entry, content, rate, status, code
):
    draw = random.Random(7)
    refused = []

    def choose(request):
        if draw.random() < rate:
            refused.append(request)
            return Fault(status=status, code=code)
        return Fault(cut=draw.randrange(SIZE)) if request.method == "GET" and draw.random() < rate else None

    proxy.choose = choose
    store = open_store()
    for _ in range(5):
        assert fetched(store, entry) == content
    names = {b"%d" % number for number in range(8)}
    for name in names:
        store.put(s3_prefix + b"/many/" + name, [content[:1000], content[1000:]])
        assert store.exists(s3_prefix + b"/many/" + name)
    assert set(store.list(s3_prefix + b"/many")) == names
    output = store.create_output(s3_prefix + b"/result", SIZE)
    receipt = store.write_range(output, 0, [content])
    store.commit_output(output, s3_prefix + b"/result", [receipt], replace=True)
    assert fetched(store, store.identify(s3_prefix + b"/result")) == content
    latencies = store.take_latencies()
    assert latencies.retries >= len(refused) > 0
    assert sum(latencies.counts.values()) > 5 + 2 * len(names)
    assert store.take_latencies() == Latencies()


@pytest.mark.parametrize("then", [Fault(status=404, code="NoSuchUpload"), Fault(412, "PreconditionFailed"), None])
def test_an_answer_that_is_lost_after_the_upload_was_completed_is_no_failure(
    proxy, open_store, s3_prefix, content, then
):
    store = open_store()
    output = store.create_output(s3_prefix + b"/result", SIZE)
    receipt = store.write_range(output, 0, [content])
    lost = []

    def choose(request):
        if request.method == "POST" and "uploadId" in request.target:
            lost.append(request)
            # The first is carried out and its answer lost; servers differ in what they say to the second.
            return Fault(lose_answer=True) if len(lost) == 1 else then
        return None

    proxy.choose = choose
    store.commit_output(output, s3_prefix + b"/result", [receipt], replace=False)
    assert len(lost) == 2
    # Where there is another object, it is an upload that somebody has given up.
    other = store.create_output(s3_prefix + b"/result", 5)
    receipt = store.write_range(other, 0, [b"other"])
    proxy.choose = lambda request: Fault(404, "NoSuchUpload") if request.method == "POST" else None
    with pytest.raises(StorageError, match="result"):
        store.commit_output(other, s3_prefix + b"/result", [receipt], replace=True)


def test_a_server_that_stays_away_ends_in_an_error_that_names_the_object(proxy, open_store, entry):
    store = open_store(deadline_seconds=0.3)
    proxy.choose = lambda request: Fault(status=503, code="SlowDown")
    with pytest.raises(StorageError, match=r"cannot read s3://.*/input: .*503 SlowDown.*trying again"):
        fetched(store, entry)
    with pytest.raises(StorageError, match=r"cannot write s3://tests/there"):
        store.put(b"s3://tests/there", [b"x"])


def test_a_body_that_drips_for_good_ends_in_an_error(proxy, open_store, entry):
    store = open_store(deadline_seconds=1.0)
    proxy.choose = only_gets(lambda request: Fault(stall=10, drip_seconds=0.01))
    with pytest.raises(StorageError, match=r"cannot read s3://.*/input: .*silent"):
        fetched(store, entry)


def test_a_slow_network_above_the_minimum_rate_gets_there(proxy, open_store, entry, content):
    store = open_store(deadline_seconds=0.2, minimum_rate=10_000)
    proxy.choose = only_gets(lambda request: Fault(cut=50_000))
    assert fetched(store, entry) == content
    assert len(gets(proxy)) > 50


def test_an_input_that_is_replaced_between_two_pieces_is_told_by_name_and_size(
    proxy, open_store, s3_prefix, entry, content
):
    store = open_store()
    proxy.choose = only_gets(lambda request: Fault(cut=1_000_000))
    buffer = memoryview(bytearray(SIZE))
    with store.open_input(entry, 0, SIZE) as reader:
        assert reader.read_into([buffer[:1000]], 0) == 1000
        proxy.choose = only_gets(lambda request: Fault(status=503, code="SlowDown"))
        store.put(entry.uri, [b"another"])
        proxy.choose = lambda request: None
        with pytest.raises(InputChangedError, match=rf"input changed.*from {SIZE} to 7 bytes"):
            reader.read_into([buffer[1000:]], 1000)


def test_what_nobody_reads_is_not_fetched_and_does_not_count_as_a_stall(proxy, open_store, s3_prefix):
    store = open_store()
    size = 24 << 20
    store.put(s3_prefix + b"/large", [bytes(size)])
    entry = store.identify(s3_prefix + b"/large")
    buffer = memoryview(bytearray(size))
    with store.open_input(entry, 0, size) as reader:
        reader.read_into([buffer[:100]], 0)
        time.sleep(4 * QUICK.window_seconds)
        assert reader._body._held < 3 << 20
        assert reader.read_into([buffer[100:]], 100) == size - 100
    assert len(gets(proxy)) == 1


def test_what_has_arrived_and_was_not_read_is_told_until_it_is_or_nobody_wants_it(proxy, open_store, entry):
    store = open_store()
    assert store.arrived_bytes == 0
    first, second = store.open_all([entry.uri, entry.uri], SIZE, 2)
    wait_until(lambda: store.arrived_bytes >= 2 * (1 << 20), 10.0)
    buffer = bytearray(1 << 19)
    before = store.arrived_bytes
    first.read_into([memoryview(buffer)], 0)
    assert store.arrived_bytes <= before, "what is taken makes room for no more than that"
    first.close()
    wait_until(lambda: store.arrived_bytes == 1 << 20, 10.0)
    second.close()
    assert store.arrived_bytes == 0
    second.close()
    assert store.arrived_bytes == 0


def test_nothing_is_held_of_what_arrives_when_nobody_waits_for_it_any_more(proxy, open_store, entry):
    store = open_store(answer_seconds=30.0)
    hold = proxy.hold()
    proxy.choose = only_gets(lambda request: Fault(hold_answer=hold))
    unwanted = threading.Event()
    store.heed(unwanted)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(list, store.open_all([entry.uri], SIZE, 1))
        wait_until(lambda: hold.held, 10.0)
        unwanted.set()
        with pytest.raises(StoreInterruptedError):
            waiting.result(10.0)
    store.heed(None)
    hold.release()
    time.sleep(0.5)  # in which it would arrive
    assert store.arrived_bytes == 0


@pytest.mark.parametrize("what", ["read", "exists", "list"])
def test_what_waits_for_a_silent_server_is_given_up_when_it_is_not_wanted_any_more(
    proxy, open_store, s3_prefix, entry, content, what
):
    store = open_store(minimum_rate=1, window_seconds=60.0, answer_seconds=60.0)
    interruption = threading.Event()
    store.heed(interruption)
    proxy.choose = (
        only_gets(lambda request: Fault(stall=0)) if what == "read" else lambda request: Fault(lose_answer=True)
    )
    calls = {
        "read": lambda: fetched(store, entry),
        "exists": lambda: store.exists(entry.uri),
        "list": lambda: list(store.list(s3_prefix)),
    }
    proxy.requests.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(calls[what])
        wait_until(lambda: proxy.requests, "it is asked for")
        interruption.set()
        with pytest.raises(StoreInterruptedError):
            waiting.result(5)
    before = len(proxy.requests)
    with pytest.raises(StoreInterruptedError):
        calls[what]()
    assert len(proxy.requests) == before
    proxy.choose = lambda request: None
    store.heed(None)
    assert fetched(store, entry) == content


def test_what_is_being_sent_is_sent_to_its_end_and_not_again(proxy, open_store, s3_prefix, content):
    store = open_store()
    interruption = threading.Event()
    store.heed(interruption)

    def choose(request):
        interruption.set()

    proxy.choose = choose
    store.put(s3_prefix + b"/first", [content])
    assert interruption.is_set()
    interruption.clear()

    def refuse(request):
        interruption.set()
        return Fault(status=503, code="SlowDown")

    proxy.choose = refuse
    proxy.requests.clear()
    with pytest.raises(StoreInterruptedError):
        store.put(s3_prefix + b"/second", [content])
    assert len(proxy.requests) == 1
    store.heed(None)
    proxy.choose = lambda request: None
    assert fetched(store, store.identify(s3_prefix + b"/first")) == content
    assert not store.exists(s3_prefix + b"/second")


def test_a_listing_goes_on_beyond_its_first_page(open_store, s3_prefix):
    store = open_store()
    names = {b"%04d +%%\xc3\xbc&" % number for number in range(1100)}
    for name in names:
        store.put(s3_prefix + b"/many/" + name, [b""])
    found = list(store.list(s3_prefix + b"/many"))
    assert found == sorted(names)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(403, "AccessDenied"), r"cannot use s3://tests: there is no permission \(HTTP 403 AccessDenied\)"),
        (
            Fault(301, "PermanentRedirect", headers=("x-amz-bucket-region: eu-west-3",)),
            "in region eu-west-3; set AWS_DEFAULT_REGION",
        ),
        (Fault(400, "AuthorizationHeaderMalformed"), "in another region"),
        (Fault(400, "ExpiredToken"), "session token has expired"),
        (Fault(503, "SlowDown"), "503 SlowDown"),
        (Fault(200, "NotS3"), "S3"),
    ],
)
def test_preflight_says_in_one_line_what_is_wrong(proxy, open_store, fault, words):
    proxy.choose = lambda request: fault
    with pytest.raises(UnreachableError, match=words) as caught:
        open_store(deadline_seconds=0.3).preflight(b"s3://tests/prefix")
    assert "\n" not in str(caught.value)


def test_preflight_tells_how_far_the_clock_is_off(proxy, open_store):
    date = email.utils.formatdate(time.time() - 3600, usegmt=True)
    proxy.choose = lambda request: Fault(403, "RequestTimeTooSkewed", headers=(f"Date: {date}",))
    with pytest.raises(UnreachableError, match=r"clock is 3,\d\d\d s ahead of the server's"):
        open_store().preflight(b"s3://tests/prefix")


def test_preflight_knows_a_missing_bucket_and_wrong_keys(s3_store, monkeypatch):
    s3_store.preflight(b"s3://tests")
    with pytest.raises(UnreachableError, match="s3://absent: there is no such bucket"):
        s3_store.preflight(b"s3://absent/x")
    for name, words in [("AWS_SECRET_ACCESS_KEY", "does not fit"), ("AWS_ACCESS_KEY_ID", "does not know this access")]:
        with monkeypatch.context() as patched:
            patched.setenv(name, "another")
            other = S3Store(QUICK)
            with pytest.raises(UnreachableError, match=words):
                other.preflight(b"s3://tests/x")
            other.close()


@pytest.mark.parametrize(
    ("endpoint", "error", "words"),
    [
        ("http://user:{secret}@127.0.0.1:{port}", UnreachableError, r"the server http://127.0.0.1:\d+ "),
        ("http://nowhere.invalid:{port}", UnreachableError, "cannot be reached"),
        ("{secret}", ConfigurationError, "AWS_ENDPOINT_URL"),
    ],
)
def test_a_wrong_endpoint_is_told_without_what_is_secret_in_it(s3_environment, monkeypatch, endpoint, error, words):
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.format(secret="canaryPassword", port=port))
    store = S3Store(Patience(connect_seconds=0.5, deadline_seconds=0.5, first_pause_seconds=0.05))
    with pytest.raises(error, match=words) as caught:
        store.preflight(b"s3://tests/x")
    store.close()
    assert "canaryPassword" not in "".join(traceback.format_exception(caught.value))


def test_without_credentials_that_is_what_is_said(s3_environment, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    store = S3Store(QUICK)
    with pytest.raises(UnreachableError, match="no credentials"):
        store.preflight(b"s3://tests/x")
    store.close()


def test_a_result_is_never_half_there_and_an_object_that_appeared_is_kept(proxy, open_store, s3_prefix):
    store = open_store()
    final = s3_prefix + b"/result"
    size = 2 * store.least_range(final, 1) + 10
    output = store.create_output(final, size)
    first = store.write_range(output, 0, [bytes(size - 10)])
    with pytest.raises(StorageError, match=f"of its {size} bytes {size - 10} were written"):
        store.commit_output(output, final, [first], replace=False)
    assert not store.exists(final)
    receipts = [first, store.write_range(output, size - 10, [bytes(10)])]
    store.put(final, [b"x"])
    proxy.choose = lambda request: (
        Fault(501, "NotImplemented") if "if-none-match" in request.headers else None  # a server without conditions
    )
    with pytest.raises(OutputError, match="appeared"):
        store.commit_output(output, final, receipts, replace=False)
    store.delete(final)
    store.commit_output(output, final, receipts, replace=False)
    assert store.identify(final).size == size


def test_a_result_that_somebody_else_has_finished_alike_leaves_no_upload(open_store, s3_prefix):
    store = open_store()
    final = s3_prefix + b"/result"
    outputs = [store.create_output(final, 10) for _ in range(2)]
    for output in outputs:
        store.commit_output(output, final, [store.write_range(output, 0, [b"0123456789"])], replace=False)
    assert list(store.begun(s3_prefix)) == []
    other = store.create_output(final, 10)
    with pytest.raises(OutputError, match="appeared"):
        store.commit_output(other, final, [store.write_range(other, 0, [b"9876543210"])], replace=False)
    store.abort_output(other)


def test_parts_that_were_sent_again_and_encrypted_anew_are_found_by_their_numbers(open_store, s3_prefix):
    import msgspec

    store = open_store()
    final = s3_prefix + b"/result"
    output = store.create_output(final, 10)
    (number, _, offset, size) = msgspec.msgpack.decode(store.write_range(output, 0, [b"0123456789"]))[0]
    receipt = msgspec.msgpack.encode([(number, '"00000000000000000000000000000000"', offset, size)])
    store.commit_output(output, final, [receipt], replace=False)
    assert store.identify(final).size == 10


def test_secrets_are_in_no_error_and_its_traceback(proxy, open_store, entry, caplog):
    caplog.set_level("DEBUG", logger="distsum")
    store = open_store(deadline_seconds=0.1)
    proxy.choose = lambda request: Fault(403, f"AccessDenied {os.environ['AWS_ACCESS_KEY_ID']}"[:12])
    texts = []
    for call in (
        lambda: store.put(entry.uri, [b"x"]),
        lambda: store.exists(entry.uri),
        lambda: fetched(store, entry),
        lambda: store.create_output(entry.uri, 5),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        texts.append("".join(traceback.format_exception(caught.value)))
    shown = "".join(texts) + caplog.text
    assert "input" in shown
    assert SECRET_KEY not in shown
    assert os.environ["AWS_ACCESS_KEY_ID"] not in shown
