"""A form for a new job: what would run is shown before it is submitted."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from textual.binding import Binding, BindingType

from distsum.cli.options import current_folder
from distsum.cli.wanted import (
    OPTIONS,
    Wanted,
    field_at_fault,
    flaws,
    output_name,
    placeholders,
    plan_wanted,
    submit_wanted,
)
from distsum.errors import DistsumError
from distsum.stores.base import StoreInterruptedError
from distsum.wording import printable

from .aside import aside
from .cells import fitted
from .dialogs import Ask, Choice
from .explained_screen import ExplainedScreen
from .form import Entry, Form
from .lines import Span, rests_words
from .panes import FixedLines, LinesPane
from .submit_lines import (
    FIELDS,
    IDLE,
    LEGEND,
    ROWS,
    command_lines,
    doing_words,
    plan_lines,
    title_line,
    wrapped_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events
    from textual.app import ComposeResult
    from textual.worker import Worker

    from distsum.planning import PlanReport
    from distsum.service.client import ServiceClient
    from distsum.stores.routing import RoutingStore

    from .lines import Line

PLAN_SECONDS: Final = 600.0
"""Ten million inputs are listed and planned in less."""
_LOW: Final = 16
"""Lines below which only what is most important is shown."""
_NARROW: Final = 72
_COMMAND_LINES: Final = 3


class SubmitScreen(ExplainedScreen[None]):
    """A new job.

    Args:
        wanted: What is in the fields at first.

    Raises:
        UsageError: A setting is not acceptable, or the folder that names start from is gone.
    """

    LEGEND = LEGEND
    DEFAULT_CSS = """
    SubmitScreen #notice { height: 1; background: $warning 30%; display: none; }
    SubmitScreen #title { height: 1; }
    SubmitScreen #form { max-height: 60%; border: round $foreground 40%; padding: 0 1; }
    SubmitScreen #plan { height: 1fr; min-height: 3; border: round $foreground 40%; }
    SubmitScreen #form, SubmitScreen #plan { border-title-color: $text; border-subtitle-color: $text; }
    SubmitScreen #plan:focus { border: round $primary; }
    SubmitScreen #command { height: auto; padding: 0 1; }
    SubmitScreen.low #form, SubmitScreen.low #plan { border: none; padding: 0; }
    SubmitScreen.low #form { max-height: 50%; }
    SubmitScreen.low #plan { min-height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "plan", "Plan", priority=True),
        Binding("enter", "submit", "Submit", priority=True),
        Binding("escape", "stop", "Stop", priority=True),
        Binding("escape", "back", "Back", priority=True),
        # Before the field sees them: what is typed ahead after them is meant for the next field.
        Binding("up", "field(-1)", "Field above", show=False, priority=True),
        Binding("down", "field(1)", "Field below", show=False, priority=True),
        Binding("tab", "app.focus_next", "Next field", priority=True),
        Binding("f1", "help", "Help", key_display="F1"),
        Binding("ctrl+c,ctrl+q", "leave", "Leave", key_display="^q", priority=True),
        Binding("shift+tab", "app.focus_previous", "Field before", show=False, priority=True),
    ]

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()
        self._defaults = placeholders()
        self._folder = current_folder()
        self._doing: Literal["", "planning", "submitting", "stopping"] = ""
        self._began = 0.0
        self._stop = threading.Event()
        self._job: Worker[None] | None = None
        self._report: tuple[Wanted, PlanReport] | None = None
        self._fault: tuple[Wanted, str | None, str] | None = None
        self._ready = False
        self._offers = ("", False)
        self._notice = FixedLines("notice")
        self._title = FixedLines("title")
        self._form = Form([[self._entry(field.name, wanted) for field in row] for row in ROWS])
        self._plan = LinesPane("Plan", id="plan", classes="")
        self._command = FixedLines("command")

    def _entry(self, name: str, wanted: Wanted) -> Entry:
        field = FIELDS[name]
        if name in OPTIONS:
            text = wanted.options.get(name, "") or (self._defaults[name] if field.choices else "")
            return Entry(name, field.label, text, field.hint or self._defaults[name], field.choices)
        given = getattr(wanted, name)
        return Entry(name, field.label, ("no", "yes")[given] if name == "force" else given, field.hint, field.choices)

    # What is there ----------------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> Wanted:
        """What is in the fields."""
        texts = {name: entry.value for name, entry in self._form.entries.items()}
        return Wanted(
            reduction=texts["reduction"],
            inputs=texts["inputs"],
            output=texts["output"].strip(),
            priority=texts["priority"].strip() or "0",
            force=texts["force"] == "yes",
            options={name: text for name, text in self._given(texts).items() if name in OPTIONS},
        )

    def _given(self, texts: dict[str, str]) -> dict[str, str]:
        """Return those that say something else than what counts anyway."""
        stripped = {name: text.strip() for name, text in texts.items()}
        return {
            name: text
            for name, text in stripped.items()
            if text and not (FIELDS[name].choices and text == self._defaults.get(name))
        }

    @property
    def _planned(self) -> bool:
        """Whether the plan is of what is in the fields now."""
        return self._report is not None and self._report[0] == self.wanted

    def compose(self) -> ComposeResult:
        """Make all parts."""
        yield self._notice
        yield self._title
        yield self._form
        yield self._plan
        yield self._command
        yield from self.compose_foot()

    def on_mount(self) -> None:
        """Arrange what there is, and let keys write."""
        self._ready = True
        self._form.border_title = "Job"
        self._form.write_into("inputs")
        self._arrange()

    def on_resize(self, _: events.Resize) -> None:
        """Arrange for the new room."""
        if self._ready:
            self._arrange()

    def _arrange(self) -> None:
        self.set_class(self.size.height < _LOW, "low")
        self._form.set_class(self.size.width < _NARROW, "narrow")
        self.call_after_refresh(self._draw)

    def show(self, notice: str) -> None:
        """Tell what is to be known of the way to the service, and how long it takes already."""
        if not self._ready:
            return
        self._notice.display = bool(notice)
        if notice:
            self._notice.show([(Span(fitted(notice, max(1, self.size.width)), "strong"),)])
        if self._doing:
            self._draw_plan(self.wanted)
        self._draw_title()

    def _draw_title(self) -> None:
        """Tell what the screen is for; where it is low, only what is out of sight, which borders tell elsewhere."""
        self._form.tell_rest()
        width, low = max(1, self.size.width), self.has_class("low")
        rest = rests_words((("fields", self._form.rest), ("plan", self._plan.rest)))
        self._title.display = bool(rest) or not low
        self._title.show([(Span(fitted(rest, width)),) if low else title_line(self._folder, width)])

    def _draw(self) -> None:
        wanted, width = self.wanted, max(1, self.size.width)
        self._draw_title()
        found = flaws(wanted)
        if self._fault is not None and self._fault[0] == wanted and self._fault[1] is not None:
            found.setdefault(self._fault[1], self._fault[2])
        for name, entry in self._form.entries.items():
            # What stands just above is not said again.
            entry.tell(found.get(name, "").removeprefix(f"--{name.replace('_', '-')} {printable(entry.value, 80)}: "))
        most = 1 if self.has_class("low") else _COMMAND_LINES
        command = command_lines(wanted, width - 2, most)
        self._command.styles.height = len(command)
        self._command.show(command)
        self._draw_plan(wanted)
        if (offers := (self._doing, self._planned)) != self._offers:
            self._offers = offers
            self.refresh_bindings()

    def _draw_plan(self, wanted: Wanted) -> None:
        lines, title = self._plan_lines(wanted, max(1, self._plan.scrollable_content_region.width))
        self._plan.show(lines, title)

    def _plan_lines(self, wanted: Wanted, width: int) -> tuple[list[Line], str]:
        if self._doing:
            return wrapped_lines([self._doing_words()], width), "Plan"
        if self._fault is not None and self._fault[0] == wanted:
            _, field, words = self._fault
            label = "" if field is None else f"{FIELDS[field].label}: "
            return wrapped_lines([f"! {label}{printable(words, 2000)}"], width, bad=True), "Plan ── not as it is"
        if self._report is None:
            return wrapped_lines(IDLE, width), "Plan"
        stale = not self._planned
        title = "Plan ── of what was there before; Enter plans again" if stale else "Plan ── Enter submits it"
        return plan_lines(self._report[1], width, stale=stale), title

    def _doing_words(self) -> str:
        if self._doing == "stopping":
            return "stopping; what is being sent is sent to its end"
        what = "looking at the inputs" if self._doing == "planning" else "looking once more, and handing it over"
        return doing_words(what, max(0.0, self._app.clock() - self._began))

    # What keys do -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done now: a plan first, and to submit what it is of."""
        match action:
            case "plan":
                return not self._doing and not self._planned
            case "submit":
                return not self._doing and self._planned
            case "stop":
                return self._doing in {"planning", "submitting"}
            case "field":
                return self._form.written_into is not None
            case "back":
                return not self._doing
        return True

    def on_edited(self) -> None:
        """Tell what comes of what was written."""
        self._draw()

    def action_field(self, step: int) -> None:
        """Go to another field."""
        self._form.go(step)

    def action_plan(self) -> None:
        """Show what would run, when the field has taken what was typed before."""
        (self.focused or self).call_later(self._plan_now)

    def action_submit(self) -> None:
        """Have it done, likewise; where a result may be replaced by that, if somebody says so."""
        (self.focused or self).call_later(self._submit_now)

    def _plan_now(self) -> None:
        wanted = self.wanted
        if self._doing:
            return
        if (flaw := next(iter(flaws(wanted)), None)) is not None:
            self._form.write_into(flaw)
            return
        self._begin("planning", self._plan_it(wanted))

    def _submit_now(self) -> None:
        wanted = self.wanted
        if not self._planned:  # Something was typed meanwhile.
            self._plan_now()
            return
        if self._doing or not self.on_top:
            return
        if not wanted.force:
            self._begin("submitting", self._submit_it(wanted))
            return

        def answered(answer: str | None) -> None:
            if answer == "yes":
                self._begin("submitting", self._submit_it(wanted))

        question = f"Replace {printable(output_name(wanted.output), 200)}, if it is there when the job is done?"
        choices = (Choice("no", "Submit nothing"), Choice("yes", "Submit the job, and let it replace that"))
        self.app.push_screen(Ask(question, choices), answered)

    def action_stop(self) -> None:
        """Look no longer; what was being handed over already is waited for."""
        self._stop.set()
        if self._doing == "planning" and self._job is not None:
            self._job.cancel()
        else:
            self._doing = "stopping"
            self._draw()

    def action_back(self) -> None:
        """Go back; what is written is there the next time."""
        self._app.draft = self.wanted
        self._app.back()

    def action_leave(self) -> None:
        """Leave; jobs go on."""
        self._stop.set()
        self._app.leave()

    # Beside the screen ------------------------------------------------------------------------------------------------

    def _begin(self, doing: Literal["planning", "submitting"], body: Any) -> None:
        self._doing, self._began, self._stop, self._fault = doing, self._app.clock(), threading.Event(), None
        self._job = self.run_worker(body)
        self._draw()

    async def _plan_it(self, wanted: Wanted) -> None:
        try:
            async with asyncio.timeout(PLAN_SECONDS):
                self._report = wanted, await self._asked(plan_wanted, wanted)
        except TimeoutError:
            words = f"no plan within {PLAN_SECONDS:.0f} s; `distsum plan` takes the time that it takes"
            self._fault = wanted, None, words
        except DistsumError as error:
            self._report = None
            self._blame(wanted, error)
        except StoreInterruptedError:
            pass
        finally:
            self._stop.set()
            self._end()

    async def _submit_it(self, wanted: Wanted) -> None:
        job = None
        try:
            job = await self._asked(submit_wanted, wanted)
        except DistsumError as error:
            self._blame(wanted, error)
        except StoreInterruptedError:
            self._app.say("stopped; nothing is submitted")
        finally:
            self._end()
        if job is not None:
            self._app.submitted(job, wanted)

    def _blame(self, wanted: Wanted, error: DistsumError) -> None:
        """Tell of an error, at the field that it is about if there is one, and let keys write there."""
        field = field_at_fault(error, wanted)
        entry = self._form.entries.get(field or "")
        self._fault = wanted, None if entry is None else field, str(error)
        if entry is not None and self.is_current:
            self._form.write_into(entry.field)

    async def _asked(
        self, call: Callable[[ServiceClient, RoutingStore, Wanted, threading.Event], Any], wanted: Wanted
    ) -> Any:
        return await aside(partial(self._ask, call, wanted, self._stop), "submitting")

    def _ask(
        self,
        call: Callable[[ServiceClient, RoutingStore, Wanted, threading.Event], Any],
        wanted: Wanted,
        stop: threading.Event,
    ) -> Any:
        with self._app.service.client(stop) as (client, store):
            return call(client, store, wanted, stop)

    def _end(self) -> None:
        self._doing, self._job = "", None
        if self.is_attached:
            self._draw()
