"""What is offered of a run in this process, and what its thread is asked; real runs are in test_tui_run."""

from __future__ import annotations

import asyncio
import threading

import pytest
from distsum.tui.dialogs import Ask, Help
from distsum.tui.node_screen import NodeScreen
from distsum.tui.own_run import OwnRun
from distsum.tui.source import LiveSource

from distsum.actors.actor import MASTER, TRACKER
from distsum.actors.speculation import SpeculationSettings
from distsum.actors.steering import Steering
from distsum.helm import Helm
from distsum.messages import BackupAnswered, BackUpTask, CancelJob, SwitchSpeculation, TaskId
from distsum.service.messages import BackUp, Cancel, Done, Refused, ScaleWorkers
from distsum.service.messages import SwitchSpeculation as Switch
from tests.screens import settled_until
from tests.tui.test_job_steering import alone
from tests.tui.test_key_line import check_line, offered_on
from tests.tui.test_screen import LATE, live, player_at, shown

TASK = TaskId("7f3a", 1, 0, 0)


class Run:
    """A loop in a thread with actors of which a test says what they answer.

    Attributes:
        told: What they were told.
        threads: In which threads.
    """

    def __init__(self, *, policy="guarded", refusal="is held"):
        self.told = []
        self.threads = set()
        self._refusal = refusal
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.helm = Helm()
        self._steering = Steering(self._deliver, SpeculationSettings(policy=policy))

    def _deliver(self, address, message):
        self.told.append((address, message))
        self.threads.add(threading.current_thread())
        if isinstance(message, BackUpTask):
            self._steering.take(BackupAnswered(message.request + 1, refusal="another question's"))
            self._steering.take(BackupAnswered(message.request, refusal=self._refusal))

    def __enter__(self):
        self._thread.start()
        self.helm.bind(self._loop, self._steering, "7f3a")
        return self

    def __exit__(self, *_):
        self.helm.release()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        assert self.threads <= {self._thread}, "actors are told in their own thread"
        self._loop.close()


def asked(helm, request):
    return asyncio.run(OwnRun(helm).ask(request))


def test_what_is_asked_reaches_the_actors_in_the_thread_of_the_run():
    with Run() as run:
        assert asked(run.helm, Cancel("7f3a")) == Done()
        assert asked(run.helm, Switch("7f3a", on=False)) == Done()
        assert asked(run.helm, BackUp(TASK)) == Refused("phase 1 task 0 is held")
        assert [address for address, _ in run.told] == [MASTER, TRACKER, TRACKER]
        assert [message for _, message in run.told][:2] == [CancelJob("7f3a"), SwitchSpeculation("7f3a", on=False)]


def test_what_makes_no_difference_or_no_sense_is_refused_with_the_reason():
    with Run(policy="none") as run:
        assert "its speculation policy is none" in asked(run.helm, Switch("7f3a", on=True)).reason
        assert asked(run.helm, ScaleWorkers(3)) == Refused("only a service can be asked for that")
        assert run.told == []


def test_a_run_that_has_not_begun_or_has_ended_is_asked_nothing():
    run = Run()
    assert asked(run.helm, Cancel("7f3a")) == Refused("the job is not running")
    with run:
        pass
    assert asked(run.helm, BackUp(TASK)) == Refused("the job is not running")
    assert run.told == []


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
def test_what_makes_sense_is_offered_while_the_run_goes_on_and_nothing_else(size):
    async def steps(app, pilot):
        with run:
            assert "back_up" not in await check_line(app, pilot), "that task is done"
            await pilot.press("n")
            await pilot.pause()
            assert {"cancel", "back_up", "leave"} <= set(await check_line(app, pilot))
            await pilot.press("c")
            await pilot.pause()
            assert isinstance(app.screen, Ask)
            await pilot.press("escape", "question_mark")
            await pilot.pause()
            assert isinstance(app.screen, Help)
            keys = {active.binding.action for active in app.screen_stack[0].active_bindings.values()}
            assert not {"prioritize", "submit", "command", "scale", "go"} & {each.partition("(")[0] for each in keys}
            await pilot.press("escape", "enter")
            # Of a node, too.
            await settled_until(
                pilot, lambda: isinstance(app.screen, NodeScreen) and "back_up" in offered_on(app.screen)
            )
            assert "back_up" in await check_line(app, pilot)
            await pilot.press("escape")
            await settled_until(pilot, lambda: not isinstance(app.screen, NodeScreen))
        assert not {"cancel", "back_up"} & set(await check_line(app, pilot)), "the run has ended"

    run = Run()
    source = live()
    source.put(alone(player_at(LATE).view()))
    shown(source, size=size, steps=steps, helm=run.helm)


def test_cancelling_is_not_offered_before_the_job_is_shown_since_that_key_would_do_nothing():
    """A key that is typed as soon as it is offered must count; the run is there a moment before its first view."""

    async def steps(app, pilot):
        with run:
            assert "cancel" not in await check_line(app, pilot)
            source.put(player_at(LATE).view())
            await settled_until(pilot, lambda: "cancel" in offered_on(app.screen))
            await pilot.press("c")
            await settled_until(pilot, lambda: isinstance(app.screen, Ask))
            await pilot.press("escape")

    run, source = Run(), LiveSource()
    shown(source, steps=steps, helm=run.helm)
