"""Every key of a screen is pressed, and something comes of it that is seen."""

from __future__ import annotations

from distsum.tui.job_screen import JobScreen

from tests.screens import settled, text_of
from tests.tui.test_screen import replay, shown

BEFORE = ((), ("1", "right", "down"), ("plus",), ("0",), ("4",), ("4", "home"), ("2",), ("home",), ("end",))
"""What may have to be pressed before a key makes a difference, such as to go on from the edge first."""


def state_of(app):
    return text_of(app), app.screen_stack[:], app.focused, app.theme, app.return_value


def declared(screen):
    """Return the first key of each action of a screen and of its parts, as our classes declare them."""
    keys = {}
    for node in [screen, *screen.query("*")]:
        for kind in type(node).__mro__:
            if kind.__module__.startswith("distsum.tui"):
                for binding in vars(kind).get("BINDINGS", ()):
                    keys.setdefault(binding.action, binding.key.split(",")[0])
    return keys


async def makes_a_difference(app, pilot, key, action):
    """Press a key, if it does something now; return whether something came of it that is seen."""
    active = app.screen.active_bindings.get(key)
    if active is None or not active.enabled or active.binding.action != action:
        return False
    before = state_of(app)
    await pilot.press(key)
    await settled(app, pilot)
    return state_of(app) != before


async def press_all(app, pilot, kind):
    """Press all keys of a screen, and come back to it each time; return the actions of those of which nothing came."""
    left = set()
    for action, key in declared(app.screen).items():
        for before in BEFORE:
            for each in before:
                await pilot.press(each)
            if await makes_a_difference(app, pilot, key, action):
                break
        else:
            left.add(action)
        for _ in range(2):
            if isinstance(app.screen, kind):
                break
            await pilot.press("escape")
            await settled(app, pilot)
        assert isinstance(app.screen, kind), action
    return left


def test_every_key_of_a_job_that_is_played_makes_a_difference_that_is_seen():
    async def steps(app, pilot):
        app.exit = lambda *_: exits.append(app.screen)
        left.extend(sorted(await press_all(app, pilot, JobScreen)))

    left, exits = [], []
    shown(replay(), steps=steps)
    # What steers a job is not there of one that is played; test_own_run and test_job_steering press these.
    # The panes of this run hold no more lines than they show, so that there is nothing to scroll.
    scrolling = ["page_down", "page_up", "scroll_down", "scroll_end", "scroll_home", "scroll_up"]
    assert left == ["back_up", *scrolling, "speculation"]
    assert exits, "it would have been left"
