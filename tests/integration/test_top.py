"""``distsum top`` and ``distsum serve`` as people use them: a terminal, a browser, and a service on RabbitMQ and S3."""

from __future__ import annotations

import contextlib
import re
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests import browser
from tests.command import Terminal, alive, wait_until
from tests.deployment import FREE_TASKS, Process, deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser import Page
    from tests.deployment import Deployment

PHASE = 12
"""Tasks that read the inputs."""


@pytest.fixture(scope="module")
def made(rabbitmq: Any, s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A master and two workers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        with deployment(rabbitmq, s3_server, tmp_path_factory.mktemp("top")) as service:
            service.put_inputs()
            service.start_master()
            service.start_worker(DISTSUM_SPECULATION="policy=none")
            yield service


@pytest.fixture
def job(made: Deployment, request: pytest.FixtureRequest) -> Iterator[str]:
    """A job that is half done, and goes on when the test lets it."""
    hold = made.gate()
    name = made.submit(f"out/{request.node.name}.npy")
    made.under_way(hold)
    made.released = hold.release
    yield name
    hold.release()
    made.undo_faults()
    made.wait_ended(name)


def top(made: Deployment, *arguments: str, columns: int = 120, lines: int = 36) -> Terminal:
    return Terminal("top", *arguments, env=made.environment(), columns=columns, lines=lines)


def holds(terminal: Terminal, text: str) -> bool:
    return any(text in line for line in terminal.shown)


@pytest.mark.parametrize(("columns", "lines"), [(120, 36), (80, 24)])
def test_a_job_is_watched_from_its_middle_to_its_end_and_goes_on_without(made, job, columns, lines):
    with top(made, columns=columns, lines=lines) as screen:
        screen.wait_until(lambda: holds(screen, job), "the job")
        screen.wait_until(lambda: holds(screen, "RUNNING"), "its state")
        screen.wait_until(lambda: holds(screen, f"{FREE_TASKS}/{PHASE}"), "what is done of it")
        made.released()
        screen.wait_until(lambda: holds(screen, "DONE"), "its end")
        screen.wait_until(lambda: holds(screen, f"{PHASE}/{PHASE}"), "all of it")
        screen.type(b"q")
        assert screen.finish() == 0
        assert not screen.cursor_hidden
    assert made.wait_ended(job).state == "succeeded"


def test_a_task_is_looked_at_down_to_its_files_and_what_is_asked_about_it_is_answered(made, job):
    with top(made, "--job", job) as screen:
        screen.wait_until(lambda: holds(screen, f"{FREE_TASKS}/{PHASE}"), "what is done of it")
        screen.wait_until(lambda: holds(screen, "◆"), "the tree's cursor")
        screen.type(b"\x1b[6~\x1b[5~\r")  # the second phase, and its first node
        screen.wait_until(lambda: holds(screen, "5 nodes"), "its children")
        screen.wait_until(lambda: holds(screen, "P2/0"), "its place")
        screen.type(b"\r")
        screen.wait_until(lambda: holds(screen, f"{made.place}/in/"), "the names of files")
        screen.type(b"a")
        screen.wait_until(lambda: holds(screen, "its node is stored"), "what is stored of it")
        assert not holds(screen, "Back up now"), "the task is done"
        screen.type(b"\x1b")
        screen.wait_until(lambda: holds(screen, "Children"), "the way back")
        screen.type(b"\x1b")
        screen.wait_until(lambda: holds(screen, "backups on"), "how it stands with backups")
        screen.type(b"b")
        screen.wait_until(lambda: holds(screen, "backups OFF"), "that there are no more")
        screen.type(b"q")
        assert screen.finish() == 0


def test_a_master_that_is_gone_is_told_and_the_next_one_is_followed(made, job):
    with top(made, "--job", job, "--read-only") as screen:
        screen.wait_until(lambda: holds(screen, f"{FREE_TASKS}/{PHASE}"), "what is done of it")
        made.kill_master()
        told = ("s old · nothing is heard of the master", "s old · no master answers")
        screen.wait_until(lambda: any(holds(screen, words) for words in told), "that it is told, once")
        assert holds(screen, f"{FREE_TASKS}/{PHASE}"), "what was seen stays"
        made.start_master()
        screen.wait_until(lambda: holds(screen, "another master serves now"), "that it is told")
        made.released()
        made.wait_ended(job)  # On a busy machine the new master takes its time, which is none of the screen's.
        screen.wait_until(lambda: holds(screen, "DONE"), "its end")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.finish() == 0
        assert not screen.cursor_hidden


def test_a_job_that_has_ended_is_seen_by_its_history(made, job):
    made.released()
    made.wait_ended(job)
    with top(made, "--job", job) as screen:
        screen.wait_until(lambda: holds(screen, "DONE"), "its end")
        screen.wait_until(lambda: holds(screen, f"{PHASE}/{PHASE}"), "all of it")
        screen.wait_until(lambda: holds(screen, "‖ 1x"), "that it can be played again")
        screen.type(b"{")
        screen.wait_until(lambda: not holds(screen, "DONE"), "its beginning")
        screen.type(b"q")
        assert screen.finish() == 0


def test_of_two_jobs_one_is_cancelled_from_the_list_and_the_other_goes_on(made, job):
    other = made.submit("out/cancelled.npy")
    with top(made) as screen:
        screen.wait_until(lambda: holds(screen, "Jobs ── "), "the list")
        screen.wait_until(lambda: holds(screen, job) and holds(screen, other), "both jobs")
        screen.type(b"/")
        screen.wait_until(lambda: holds(screen, "text that rows must hold"), "the filter")
        screen.type(other.encode() + b"\r")
        screen.wait_until(lambda: not holds(screen, job), "that only one is listed")
        screen.type(b"c")
        screen.wait_until(lambda: holds(screen, f"Cancel job {other}"), "the question")
        screen.type(b"\x1b[B\r")
        screen.wait_until(lambda: holds(screen, f"job {other} is cancelled"), "the answer")
        screen.wait_until(lambda: holds(screen, "✗ cancelled"), "that the list says so")
        assert made.wait_ended(other).state == "cancelled"
        screen.type(b"w")
        screen.wait_until(lambda: holds(screen, "Workers ── 2"), "the workers")
        screen.type(b"p")
        screen.wait_until(lambda: holds(screen, "‖ paused"), "that the list says so")
        screen.type(b"e")
        screen.wait_until(lambda: not holds(screen, "‖ paused"), "that it works again")
        screen.type(b"u")
        screen.wait_until(lambda: holds(screen, "distsum.results"), "the queues")
        screen.type(b"q")
        assert screen.finish() == 0
        assert not screen.cursor_hidden
    made.released()
    assert made.wait_ended(job).state == "succeeded"


def test_without_a_terminal_a_broker_or_the_right_password_it_says_so_in_one_line(made):
    done = made.run("top")
    assert done.returncode == 2
    assert "top draws on a terminal" in done.stderr
    nowhere = made.environment(DISTSUM_BROKER="amqp://u:s3cr3t-canary@127.0.0.1:1/v")
    with Terminal("top", env=nowhere, columns=200) as screen:
        assert screen.finish() == 3
        assert holds(screen, "127.0.0.1:1")
        assert not holds(screen, "canary")
    served = Process(made.folder / "nowhere.log", nowhere, "serve", "--port", "0")
    assert served.popen.wait(60) == 3
    assert "127.0.0.1:1" in served.said
    assert "canary" not in served.said


# A browser ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(made: Deployment, *arguments: str) -> Iterator[tuple[Process, str]]:
    """Serve a screen; give where."""
    server = Process(made.folder / "serve.log", made.environment(), "serve", "--port", "0", *arguments)
    try:
        server.wait_for("http://localhost:")
        yield server, re.search(r"http://localhost:\d+", server.said)[0]
    finally:
        if server.running:
            server.kill()


def screens(made: Deployment) -> dict[int, bytes]:
    """Return the command lines of the screens that run, by process."""
    found = {}
    for pid in made.processes:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
            if b"\0top\0" in line:
                found[pid] = line
    return found


@pytest.fixture
def chromium(missing_service: Any) -> None:
    if not browser.installed():
        missing_service(f"there is no browser; install one with `{browser.INSTALL}`")


def test_a_browser_shows_the_service_and_takes_keys(made, job, chromium, tmp_path):
    password = made.node.password

    async def look(page: Page) -> None:
        await page.open(url)
        await page.wait_for(lambda: page.shows(job), "the job")
        await page.wait_for(lambda: page.shows(f"{FREE_TASKS}/{PHASE}"), "what is done of it")
        await page.wait_for("document.body.classList.contains('-first-byte')", "that the page shows it")
        await page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        before = await page.picture()
        (tmp_path / "job.png").write_bytes(before)
        assert page.screen.columns >= 100, "the page does not use its room"
        await page.press("?")
        await page.wait_for(lambda: page.shows("Next theme"), "the help")
        after = await page.picture()
        assert len(after) > 10_000
        assert after != before
        (tmp_path / "help.png").write_bytes(after)
        await page.press("?")
        made.released()
        await page.wait_for(lambda: page.shows("DONE"), "the end")
        (line,) = screens(made).values()
        assert b"--read-only" in line
        assert password not in await page.evaluate("document.documentElement.outerHTML")
        assert not any(password in shown for shown in page.shown)
        assert page.faults == []
        place = url.partition("://")[2]
        assert {each.partition("://")[2].partition("/")[0] for each in page.requested} <= {place, "", ","}, (
            page.requested
        )
        await page.press("q")
        await page.wait_for("document.body.classList.contains('-closed')", "that the page says so")

    with serving(made) as (server, url):
        browser.visit(look)
        wait_until(lambda: not screens(made), "the end of the screen")
        assert server.end() == 0
        assert password not in server.said


def test_a_stranger_s_page_is_refused(made):
    with serving(made) as (_, url):
        place = url.partition("://")[2]
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        assert status(url, {"Host": "evil.example:3000"}) == 403
        assert status(f"{url}/ws", upgrade | {"Origin": "https://evil.example"}) == 403
        assert status(f"{url}/ws", upgrade | {"Origin": "null"}) == 403
        assert status(url, {"Host": f"localhost:{place.rpartition(':')[2]}"}) == 200
        assert status(f"{url}/static/../page.html", {}) in {403, 404}
        assert screens(made) == {}


def status(url: str, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_screen_survives_its_server(made, chromium):
    async def look(page: Page) -> None:
        await page.open(url)
        await page.wait_for(lambda: page.shows("distsum"), "a screen")
        ((pid, line),) = screens(made).items()
        assert b"--read-only" not in line
        server.popen.kill()
        await page.wait_for(lambda: not alive(pid), "the end of the screen")

    with serving(made, "--allow-steering") as (server, url):
        browser.visit(look)


def test_a_port_that_is_taken_is_told(made):
    with serving(made) as (_, url):
        done = made.run("serve", "--port", url.rpartition(":")[2])
        assert done.returncode == 2
        assert "--port" in done.stderr
        assert "Traceback" not in done.stderr
