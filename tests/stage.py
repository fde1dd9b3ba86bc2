"""A service that a test says what is known of, on the screen of an application that keys are pressed in."""

from __future__ import annotations

import asyncio

from distsum.tui.service_app import ServiceApp

from distsum.service.messages import Queue, Queues
from tests.following import NOW, Asked, Following, busy_service, source_of
from tests.screens import settled, text_of

WAVE = [0, 3, 9, 20, 41, 30, 12, 8]
"""Tasks that were ready, second by second."""


class Stage:
    """A service, and the application that shows it.

    Attributes:
        viewer: What is known of the service.
        asked: What it was asked.
        store: Where histories lie.
        lines: What was shown at last.
        screen: The screen that was on top at last.
        answer: How it was left.
        told: What it said.
    """

    def __init__(self, view=None, *, answer=None, store=None, read_only=False, job=None, **more):
        self.viewer = Following(busy_service() if view is None else view)
        self.asked = Asked(answer)
        self.store = store
        source = source_of(self.viewer, self.asked, store, read_only=read_only)
        self.told = []
        self.app = ServiceApp(source, job, frame_seconds=3600.0, clock=lambda: NOW, **more)
        self._say, self.app.say = self.app.say, self._hear
        for second in range(60):
            number = WAVE[second // 4 % len(WAVE)]
            queues = [Queue(each.name, number, 0, 1) for each in busy_service().queues.queues[:1]]
            self.app.traces.take(Queues(tuple(queues), 0), NOW - 120 + second)

    def _hear(self, words, **options):
        self.told.append(words)
        self._say(words, **options)

    def show(self, *keys, size=(120, 36), steps=None):
        """Run it, press keys, and note what there is; ``steps`` may look at it, and use the pilot."""

        async def run():
            async with self.app.run_test(size=size) as pilot:
                await settled(self.app, pilot)
                for key in keys:
                    await pilot.press(key)
                    await settled(self.app, pilot)
                if steps is not None:
                    await steps(pilot)
                    await settled(self.app, pilot)
                self._note()

        asyncio.run(run())
        return self

    async def press(self, pilot, *keys):
        """Press keys while it runs, and note what there is then."""
        for key in keys:
            await pilot.press(key)
            await settled(self.app, pilot)
        self._note()

    async def see(self, pilot, size=None):
        """Note what there is, in a terminal of another size."""
        if size is not None:
            await pilot.resize_terminal(*size)
        await settled(self.app, pilot)
        self._note()

    def _note(self):
        self.lines = text_of(self.app)
        self.screen = self.app.screen if self.app.screen_stack else None
        self.answer = self.app.return_value

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def chosen(self):
        """The job or worker whose row is chosen."""
        return self.screen.table.chosen.key

    @property
    def keys(self):
        """The rows in their order, as far as the first cells say."""
        return [row.key for row in self.screen.table._rows]
