"""Pictures of the screen: where they are written, and what is told of that."""

from __future__ import annotations

import os

import pytest
from distsum.tui.screenshots import folders, write_picture

from distsum.errors import StorageError
from tests.screens import settled, text_of
from tests.stage import Stage
from tests.tui.test_screen import live, shown

TAKEN = 1_767_270_000.0
NAME = "distsum-20260101-122000"


def test_pictures_are_named_by_their_time_and_none_replaces_another(tmp_path):
    paths = [write_picture("<svg/>", iter([str(tmp_path)]), TAKEN) for _ in range(3)]
    assert paths == [str(tmp_path / f"{NAME}{more}.svg") for more in ("", "-2", "-3")]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["<svg/>"] * 3


def test_a_folder_that_takes_none_is_passed_over_and_a_link_is_not_followed(tmp_path):
    (tmp_path / f"{NAME}.svg").symlink_to(tmp_path / "elsewhere")
    path = write_picture("<svg/>", iter([str(tmp_path / "gone"), "/proc/self", str(tmp_path)]), TAKEN)
    assert path == str(tmp_path / f"{NAME}-2.svg")
    assert not (tmp_path / "elsewhere").exists()


def test_why_no_folder_takes_it_is_told_of_each():
    with pytest.raises(StorageError, match=r"written: /gone: No such file or directory; /proc/self: No such file"):
        write_picture("<svg/>", iter(["/gone", "/proc/self"]), TAKEN)


def test_the_working_directory_comes_first_then_home_even_where_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/empty")
    monkeypatch.chdir(tmp_path)
    assert list(folders())[:2] == [str(tmp_path), "/empty"]
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    os.rmdir(tmp_path / "deleted")
    assert next(folders()) == "/empty"


def test_the_palette_writes_a_picture_and_the_screen_tells_where(short_path, monkeypatch):
    monkeypatch.setenv("HOME", "/empty")
    monkeypatch.chdir(short_path)

    async def steps(app, pilot):
        await pilot.press("ctrl+p")
        await settled(app, pilot)
        await pilot.press(*"screenshot")
        for _ in range(100):
            await pilot.pause(0.05)
            if "Screenshot" in "\n".join(text_of(app)):
                break
        await pilot.press("enter")
        for _ in range(100):
            await pilot.pause(0.05)
            if "this picture is kept" in "\n".join(text_of(app)):
                break
        seen.append("\n".join(text_of(app)))

    seen = []
    shown(live(), steps=steps)
    (picture,) = short_path.iterdir()
    assert f"▸ this picture is kept: {picture}" in seen[0]
    assert picture.name.startswith("distsum-")
    assert picture.read_text().startswith("<svg")


def test_why_there_is_no_picture_is_told(monkeypatch):
    async def steps(pilot):
        pilot.app.deliver_screenshot()

    monkeypatch.setattr("distsum.tui.app.folders", lambda: iter(["/gone"]))
    assert Stage().show(steps=steps).told == ["no picture of the screen is written: /gone: No such file or directory"]
