"""Who may use the server of a screen: its own page, under names that no stranger can give to this machine."""

from __future__ import annotations

import shlex
import socket

import pytest
from distsum.tui.web_server import bounded, is_loopback, may_be_called, screen_command


@pytest.mark.parametrize(
    ("name", "host", "may"),
    [
        ("localhost:3000", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("127.0.0.1:3000", "127.0.0.1", True),
        ("[::1]:3000", "::1", True),
        ("192.0.2.7:3000", "0.0.0.0", True),
        (f"{socket.gethostname()}:3000", "0.0.0.0", True),
        ("screens.example:3000", "screens.example", True),
        ("evil.example:3000", "127.0.0.1", False),
        ("evil.example", "0.0.0.0", False),
        ("localhost.evil.example:3000", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("", "127.0.0.1", False),
    ],
)
def test_a_name_that_a_stranger_can_give_to_this_machine_is_none_of_ours(name, host, may):
    assert may_be_called(name, host) is may


@pytest.mark.parametrize(
    ("host", "only_here"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)]
)
def test_whether_only_this_machine_reaches_an_address_is_known(host, only_here):
    assert is_loopback(host) is only_here


@pytest.mark.parametrize(
    ("told", "taken"), [(80, 80), (0, 1), (-5, 1), (10**9, 500), ("80", 80), (None, 80), (1.5, 80)]
)
def test_a_size_that_a_browser_tells_is_bounded(told, taken):
    assert bounded(told) == taken


def test_what_a_browser_s_screen_runs_cannot_be_more_than_that():
    words = shlex.split(screen_command("a; reboot $(x)", signs=True, read_only=True))
    assert words[0] == "exec"
    assert words[2:] == ["-m", "distsum", "top", "--job", "a; reboot $(x)", "--signs", "--read-only"]
    assert "--read-only" not in screen_command(None, signs=False, read_only=False)
