"""Whole jobs with inputs, outputs and work folders in a real S3 server, run as a person would."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest

import distsum
from distsum.embedded import run as run_embedded
from distsum.errors import (
    InputChangedError,
    InputListError,
    OutputError,
    PlanError,
    UnreachableError,
    UsageError,
    WorkDirBusyError,
)
from distsum.generate import generate
from distsum.inputs import expand
from distsum.partials import LONGEST_NAME_BYTES
from distsum.request import Options
from distsum.stores.routing import LONGEST_KEY_BYTES, bucket_of
from distsum.stores.s3_client import Patience, S3Client
from distsum.stores.s3_lock import Holder, Lease
from tests.command import distsum as command
from tests.command import started, summary, wait_until, workers
from tests.faultproxy import Fault, in_front_of
from tests.s3server import ACCESS_KEY, SECRET_KEY, free_ports


def run(inputs, output, **options):
    """Run a job with this process as the one that decides, which saves the start of another."""
    paths = expand(inputs)
    return run_embedded("mean", paths, os.fsencode(output), Options(**{"workers": 1} | options))


@pytest.fixture
def place(s3_prefix):
    """The place in S3, as an argument."""
    return s3_prefix.decode()


@pytest.fixture
def put(s3_store, s3_prefix):
    def one(name, content):
        s3_store.put(s3_prefix + b"/" + name.encode(), [content])

    return one


@pytest.fixture
def get(s3_store, s3_prefix):
    def one(name):
        reader = s3_store.open(s3_prefix + b"/" + name.encode())
        assert reader is not None
        with reader:
            return reader.read(0, reader.size)

    return one


@pytest.fixture
def both(tmp_path, put):
    """Files on the disk and the same objects in S3, below ``runs``."""
    draw = np.random.default_rng(1)
    (tmp_path / "runs").mkdir()
    for index in range(13):
        np.save(tmp_path / "runs" / f"{index:02}.npy", draw.normal(size=30_000))
        put(f"runs/{index:02}.npy", (tmp_path / "runs" / f"{index:02}.npy").read_bytes())
    return tmp_path / "runs"


def uploads(s3_store, prefix):
    bucket, _, key = prefix.removeprefix(b"s3://").partition(b"/")
    page = s3_store._request("list", prefix, "list_multipart_uploads", Bucket=bucket.decode())
    return [each["Key"] for each in page.get("Uploads", ()) if each["Key"].startswith(key.decode())]


@pytest.mark.parametrize(
    ("inputs", "output", "work", "partition"),
    [
        ("s3", "s3", None, 5),
        ("s3", "s3", "disk", 25),
        ("s3", "disk", None, 5),
        ("s3", "disk", "s3", 5),
        ("disk", "s3", "s3", 25),
        ("disk", "s3", "disk", 5),
    ],
)
def test_the_bits_are_the_same_wherever_things_lie(
    tmp_path, place, both, get, s3_store, s3_prefix, partition, inputs, output, work
):
    run(str(both), f"{tmp_path}/plain.npy", tiles=3)
    where = {"disk": str(tmp_path), "s3": place}
    work_dir = None if work is None else f"{where[work]}/scratch"
    made = run(f"{where[inputs]}/runs/*.npy", f"{where[output]}/out.npy", partition=partition, work_dir=work_dir)
    content = get("out.npy") if output == "s3" else (tmp_path / "out.npy").read_bytes()
    assert content == (tmp_path / "plain.npy").read_bytes()
    assert made.digest == hashlib.sha256(content).hexdigest()
    assert made.peak_worker_bytes <= made.plan.worker_bytes
    assert {name.partition(b"/")[0] for name in s3_store.list(s3_prefix)} <= {b"runs", b"out.npy"}
    assert uploads(s3_store, s3_prefix) == []


def test_a_long_result_is_put_together_from_the_parts_of_several_workers_within_the_planned_memory(
    tmp_path, place, put, get
):
    draw = np.random.default_rng(2)
    for index in range(6):
        np.save(tmp_path / f"{index}.npy", draw.normal(size=2_000_000))
        put(f"runs/{index}.npy", (tmp_path / f"{index}.npy").read_bytes())
    run([f"{tmp_path}/{index}.npy" for index in range(6)], f"{tmp_path}/plain.npy", tiles=7)
    made = summary(
        "mean", f"{place}/runs", "-o", f"{place}/out.npy", "-w", "2", "--tiles", "3", "-p", "25", "--memory", "64MiB"
    )
    assert get("out.npy") == (tmp_path / "plain.npy").read_bytes()
    assert made["plan"]["tiles"] == 3
    assert made["peak_worker_bytes"] <= made["plan"]["worker_bytes"] <= 64 << 20
    with pytest.raises(PlanError, match="at most 3"):
        run(f"{place}/runs", f"{place}/out2.npy", tiles=4)


def test_text_and_inputs_of_several_dtypes_are_read_from_s3_as_from_a_disk(tmp_path, place, put):
    for index, dtype in enumerate(["<f8", ">f4", "<f8", "<f4"]):
        np.save(tmp_path / f"{index}.npy", np.linspace(index, 1, 100_000).astype(dtype))
        put(f"runs/{index}.npy", (tmp_path / f"{index}.npy").read_bytes())
    words = "\n".join(map(repr, np.random.default_rng(3).normal(size=150_000).tolist()))
    for index in range(3):
        (tmp_path / f"{index}.txt").write_text(f"{index}.5\n{words}\n")
        put(f"texts/{index}.txt", (tmp_path / f"{index}.txt").read_bytes())
    for folder, suffix, count in [("runs", "npy", 4), ("texts", "txt", 3)]:
        files = [str(tmp_path / f"{index}.{suffix}") for index in range(count)]
        expected = distsum.sum(files, workers=1)
        found = distsum.sum(f"{place}/{folder}", workers=1)
        assert found.tobytes() == expected.tobytes()


def test_a_result_in_s3_comes_back_as_an_array(tmp_path, place, put):
    for index in range(3):
        array = np.asfortranarray(np.random.default_rng(index).integers(-9, 9, (4, 5)))
        np.save(tmp_path / f"{index}.npy", array)
        put(f"runs/{index}.npy", (tmp_path / f"{index}.npy").read_bytes())
    expected = distsum.max(f"{tmp_path}/*.npy")
    for suffix in ["npy", "raw", "txt"]:
        found = distsum.max(f"{place}/runs", f"{place}/out.{suffix}", workers=1)
        np.testing.assert_array_equal(found, expected)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(("count", "format"), [(1000, "npy"), (1000, "text"), (900_000, "npy")])
def test_generate_writes_the_same_bytes_to_s3_as_to_a_disk(tmp_path, place, get, count, format):
    for folder in (f"{place}/made/", str(tmp_path / "made")):
        generate(folder, files=3, count=count, format=format)
    for path in (tmp_path / "made").iterdir():
        assert get(f"made/{path.name}") == path.read_bytes()
    with pytest.raises(OutputError, match="holds 3 of the 3 files"):
        generate(f"{place}/made", files=3, count=count, format=format)
    generate(f"{place}/made", files=3, count=count, format=format, force=True)


def test_generate_shares_the_work_among_processes_that_all_write_to_s3(tmp_path, place, get):
    done = command("generate", f"{place}/made", "--files", "9", "--count", "500000", "-w", "2")
    assert done.returncode == 0, done.stderr
    generate(str(tmp_path / "made"), files=9, count=500_000)
    for path in (tmp_path / "made").iterdir():
        assert get(f"made/{path.name}") == path.read_bytes()


def test_verify_reads_from_s3(tmp_path, place, both, put):
    run(f"{place}/runs", f"{place}/out.npy")
    right = command("verify", f"{place}/out.npy", f"{place}/runs/*.npy")
    assert right.returncode == 0, right.stderr
    np.save(tmp_path / "wrong.npy", np.zeros(30_000))
    put("wrong.npy", (tmp_path / "wrong.npy").read_bytes())
    assert not distsum.verify(f"{place}/wrong.npy", str(both)).ok
    with pytest.raises(InputListError, match=r"absent.npy: no such object"):
        distsum.verify(f"{place}/absent.npy", str(both))


# What names inputs ----------------------------------------------------------------------------------------------------


NAMES = [
    "a1.npy",
    "a2.npy",
    "a10.npy",
    "b[1].npy",
    "c d+%.npy",
    ".hidden.npy",
    "notes.md",
    "sub/a1.npy",
    "sub/deep/x.npy",
    "sub/.git/x.npy",
    "subs/z.npy",
]


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("", ["a1.npy", "a10.npy", "a2.npy", "b[1].npy", "c d+%.npy"]),
        ("/", ["a1.npy", "a10.npy", "a2.npy", "b[1].npy", "c d+%.npy"]),
        ("/a1.npy", ["a1.npy"]),
        ("/b[1].npy", ["b[1].npy"]),
        ("/a?.npy", ["a1.npy", "a2.npy"]),
        ("/[!a]*.npy", ["b[1].npy", "c d+%.npy"]),
        ("/*.npy", ["a1.npy", "a10.npy", "a2.npy", "b[1].npy", "c d+%.npy"]),
        ("/.h*", [".hidden.npy"]),
        ("/**/a1.npy", ["a1.npy", "sub/a1.npy"]),
        ("/sub/**", ["sub/a1.npy", "sub/deep/x.npy"]),
        ("/sub*", ["sub/a1.npy", "subs/z.npy"]),
        ("/sub*/", ["sub/a1.npy", "subs/z.npy"]),
        ("/*/deep/*.npy", ["sub/deep/x.npy"]),
    ],
)
def test_objects_are_named_as_files_are(tmp_path, place, put, s3_store, argument, found):
    for name in NAMES:
        put(f"in/{name}", b"")
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = [f"{place}/in/{name}".encode() for name in found]
    assert expand(f"{place}/in{argument}") == expected
    local = expand(f"{tmp_path}/in{argument}")
    assert [os.path.relpath(path, os.fsencode(tmp_path / "in")).decode() for path in local] == found


def test_manifests_may_lie_in_s3_and_list_what_lies_there(tmp_path, place, put):
    put("list.txt", f"# a list\r\nruns/b.npy\n{place}/a.npy\n/tmp/c.npy\n".encode())
    (tmp_path / "list.txt").write_text(f"d.npy\n{place}/e f.npy\n")
    assert expand([f"@{place}/list.txt", f"@{tmp_path}/list.txt"]) == [
        os.fsencode(name)
        for name in (f"{place}/runs/b.npy", f"{place}/a.npy", "/tmp/c.npy", f"{tmp_path}/d.npy", f"{place}/e f.npy")
    ]


@pytest.mark.parametrize(
    ("argument", "error", "words"),
    [
        ("{place}/absent.npy", InputListError, "absent.npy: no such object"),
        ("{place}/absent/*.npy", InputListError, "this pattern matches no object"),
        ("@{place}/absent", InputListError, "no such object"),
        ("s3://no-such-bucket/*.npy", UnreachableError, "there is no such bucket"),
        ("s3:///x.npy", InputListError, "write s3://BUCKET/KEY"),
    ],
)
def test_what_is_not_there_is_named(place, s3_store, argument, error, words):
    with pytest.raises(error, match=words):
        expand(argument.format(place=place))


def test_outputs_that_cannot_be_are_refused_before_anything_is_read(place, both):
    run(str(both), f"{place}/out.npy")
    for output, error, words in [
        (f"{place}/out.npy", OutputError, "exists; use --force"),
        (f"{place}/runs/00.npy", OutputError, "is one of the inputs"),
        (f"{place}/folder/", OutputError, "is a folder"),
        ("s3://no-such-bucket/out.npy", UnreachableError, "no such bucket"),
    ]:
        with pytest.raises(error, match=words):
            run(f"{place}/runs/*.npy", output)
    run(f"{place}/runs", f"{place}/out.npy", force=True)


def test_keys_that_s3_does_not_take_are_refused_before_anything_is_written(place, both, get):
    longest = f"{place}/{'/'.join(['k' * 200] * 5)}"
    folder = longest[: len(bucket_of(longest.encode())) + 1 + LONGEST_KEY_BYTES - LONGEST_NAME_BYTES]
    output = (longest + "k" * LONGEST_KEY_BYTES)[
        : len(bucket_of(longest.encode())) + 1 + LONGEST_KEY_BYTES - 4
    ] + ".npy"
    for options, words in [
        ({"output": f"{output[:-4]}k.npy"}, "this key has 1,025 bytes"),
        ({"output": f"{place}/out.npy", "work_dir": folder + "k"}, "work folder .* has a name of 1 bytes too many"),
        ({"output": output}, "work folder .* bytes too many"),
    ]:
        with pytest.raises(UsageError, match=words):
            run(f"{place}/runs/*.npy", **{"work_dir": None} | options)
    run(f"{place}/runs/*.npy", output, work_dir=folder, partition=5, keep_partials=True)
    run(f"{place}/runs/*.npy", f"{place}/out.npy")
    assert get(output.removeprefix(f"{place}/")) == get("out.npy")


def test_a_server_that_cannot_be_reached_is_exit_code_3_and_one_line(tmp_path, place, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    done = command("mean", f"{place}/*.npy", "-o", str(tmp_path / "out.npy"))
    assert (done.returncode, done.stdout) == (3, "")
    assert f"127.0.0.1:{port} cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


# What goes wrong in between -------------------------------------------------------------------------------------------


@pytest.fixture
def slow(s3_server, s3_environment, monkeypatch):
    """A proxy in front of the server that lets bodies of inputs through only while it is told to."""
    with in_front_of(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def held_after(proxy, count):
    """Let so many inputs through; the bodies of others begin and stop."""
    seen = []

    def choose(request):
        if request.method == "GET" and "/runs/" in request.target and "range" in request.headers:
            seen.append(request)
            return Fault(stall=1000) if len(seen) > count else None
        return None

    proxy.choose = choose
    return seen


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_upload_once_the_same_command_has_gone_on(
    tmp_path, place, both, get, s3_store, s3_prefix, slow, number
):
    run(str(both), f"{tmp_path}/plain.npy")
    seen = held_after(slow, 9)
    arguments = ["mean", f"{place}/runs/*.npy", "-o", f"{place}/out.npy", "-p", "5", "-w", "1"]
    with started(*arguments) as process:
        wait_until(lambda: len(seen) > 10, "half of the inputs are read")
        assert uploads(s3_store, s3_prefix) == [s3_prefix.decode().removeprefix("s3://tests/") + "/out.npy"]
        pids = workers(process.pid)
        process.send_signal(number)
        code = process.wait(20)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        wait_until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], "the workers are gone")
    assert not s3_store.exists(s3_prefix + b"/out.npy")
    if number == signal.SIGINT:
        assert uploads(s3_store, s3_prefix) == []
        assert not s3_store.exists(s3_prefix + b"/out.npy.distsum/lock")
    slow.choose = lambda request: None
    made = run(f"{place}/runs/*.npy", f"{place}/out.npy", partition=5)
    assert made.tasks_reused == 1
    assert get("out.npy") == (tmp_path / "plain.npy").read_bytes()
    assert uploads(s3_store, s3_prefix) == []
    assert {name.partition(b"/")[0] for name in s3_store.list(s3_prefix)} == {b"runs", b"out.npy"}


def test_an_input_that_is_replaced_in_mid_job_ends_it_by_name(tmp_path, place, both, put, slow):
    replaced = threading.Event()

    def choose(request):
        if request.method == "GET" and "runs/03.npy" in request.target and not replaced.is_set():
            replaced.set()
            put("runs/11.npy", (both / "10.npy").read_bytes())

    slow.choose = choose
    with pytest.raises(InputChangedError, match=r"runs/11.npy changed while the job ran"):
        run(f"{place}/runs", f"{tmp_path}/out.npy", partition=5)
    assert replaced.is_set()
    assert not (tmp_path / "out.npy").exists()


def test_a_server_that_refuses_half_of_everything_costs_time_and_no_bits(tmp_path, place, both, get, slow):
    run(str(both), f"{tmp_path}/plain.npy")
    numbers = iter(range(10**9))
    slow.choose = lambda request: Fault(503, "SlowDown") if next(numbers) % 2 else None
    run(f"{place}/runs", f"{place}/out.npy", partition=5)
    assert get("out.npy") == (tmp_path / "plain.npy").read_bytes()


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_bodies_are_open_than_files_may_be(tmp_path, place, both, slow, most):
    # A slow network, so that each worker has as many open as it may.
    slow.choose = lambda request: Fault(stall=240_118, drip_seconds=0.02) if "/runs/" in request.target else None
    run(f"{place}/runs", f"{tmp_path}/out.npy", partition=25, max_open_files=most, work_dir=f"{place}/scratch")
    assert slow.most_open_bodies == most


def test_a_damaged_or_missing_partial_in_s3_is_made_again(tmp_path, place, both, get, s3_store, s3_prefix):
    run(str(both), f"{tmp_path}/plain.npy")
    options = {"partition": 5, "force": True, "work_dir": f"{place}/scratch", "keep_partials": True}
    run(f"{place}/runs", f"{place}/out.npy", **options)
    partials = sorted(s3_store.list(s3_prefix + b"/scratch/partials"))
    assert len(partials) == 4
    for name in partials:
        uri = s3_prefix + b"/scratch/partials/" + name
        reader = s3_store.open(uri)
        with reader:
            content = bytearray(reader.read(0, reader.size))
        content[-100] ^= 1
        s3_store.put(uri, [content])
    assert run(f"{place}/runs", f"{place}/out.npy", **options).retries > 0
    assert get("out.npy") == (tmp_path / "plain.npy").read_bytes()


# The lock -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(s3_environment):
    made = S3Client(Patience())
    yield made
    made.close()


def test_a_lock_of_another_machine_holds_for_a_lease_and_is_then_taken_over(
    client, s3_prefix, s3_store, monkeypatch, request
):
    uri = s3_prefix + b"/scratch/lock"
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "elsewhere")
        theirs = Lease(client, uri, 2.0)
    theirs.__enter__()
    request.addfinalizer(theirs._over.set)
    ours = Lease(client, uri, 2.0)
    with pytest.raises(WorkDirBusyError, match=rf"scratch is in use by process {os.getpid()} on elsewhere"):
        ours.__enter__()
    deadline = time.monotonic() + 6  # three leases: renewed as long as it is held
    while time.monotonic() < deadline:
        with pytest.raises(WorkDirBusyError):
            ours.__enter__()
    theirs._over.set()  # as if its machine were cut off
    theirs._thread.join()

    def taken():
        try:
            ours.__enter__()
        except WorkDirBusyError:
            return False
        return True

    wait_until(taken, "the lock is taken over", 10)
    theirs.__exit__(None, None, None)
    assert s3_store.exists(uri), "the former holder leaves the lock to the new one"
    ours.__exit__(None, None, None)
    assert not s3_store.exists(uri)


def test_a_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(client, s3_prefix, s3_store):
    uri = s3_prefix + b"/scratch/lock"
    program = (
        "import os, signal, sys; from distsum.stores.s3 import S3Store\n"
        "S3Store().lock(os.fsencode(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, (s3_prefix + b"/scratch").decode()], check=False)
    assert s3_store.exists(uri)
    with Lease(client, uri):
        assert s3_store.exists(uri)
    assert not s3_store.exists(uri)


def test_a_lock_that_is_no_lock_is_somebodys_until_it_is_old(client, s3_prefix, s3_store):
    s3_store.put(s3_prefix + b"/scratch/lock", [msgspec.json.encode(Holder("t", "h", 1, ""))])
    with pytest.raises(WorkDirBusyError, match="in use by another run"), Lease(client, s3_prefix + b"/scratch/lock"):
        pass


# Secrets --------------------------------------------------------------------------------------------------------------


def test_secrets_are_nowhere_to_be_read(tmp_path, place, both, s3_store, s3_prefix, slow):
    """In no argument, no output, no work folder: neither when all goes well, nor when the server refuses."""
    secrets = [SECRET_KEY.encode(), ACCESS_KEY.encode()]
    seen = []
    held = held_after(slow, 9)
    arguments = ["mean", f"{place}/runs/*.npy", "-o", str(tmp_path / "out.npy"), "-p", "5", "-w", "2"]
    with started(*arguments) as process:
        wait_until(lambda: len(held) > 10, "half of the inputs are read")
        for pid in [process.pid, *workers(process.pid)]:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                seen.append(file.read())
        assert len(seen) == 3
        process.send_signal(signal.SIGINT)
        seen += [text.encode() for text in process.communicate(timeout=20)]
    for fault in (Fault(403, "InvalidAccessKeyId"), Fault(403, f"Access{ACCESS_KEY[:4]}"), Fault(200, "NotS3")):
        slow.choose = lambda request, fault=fault: fault if "/runs/1" in request.target else None
        done = command(*arguments, "--force", env={"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"})
        assert done.returncode == 1
        seen += [done.stdout.encode(), done.stderr.encode()]
    for path in tmp_path.rglob("*"):
        seen += [os.fsencode(path), path.read_bytes() if path.is_file() else b""]
    for name in s3_store.list(s3_prefix):
        reader = s3_store.open(s3_prefix + b"/" + name)
        with reader:
            seen += [name, reader.read(0, reader.size)]
    assert b"interrupted" in b"".join(seen)
    assert [text for text in seen if any(secret in text for secret in secrets)] == []
