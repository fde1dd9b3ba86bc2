"""The widget that draws a job's tree: each phase a row, and a map of one of them, with a cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from distsum.messages import TaskId
from distsum.observe.states import BACKUP, DONE, NAMES, QUEUED, RUNNING
from distsum.wording import counted

from .cells import width_of
from .palette import DARK, GLYPHS, LIGHT, SIGNS, UPPER_HALF
from .tree_cells import EMPTY, KINDS, TreeCells, Window, about, moved, tree_cells, zoomed

if TYPE_CHECKING:
    from textual import events

    from distsum.observe.view import JobView

    from .palette import Palette

_ZOOM: Final = 4.0
_STRIPS_KEPT: Final = 4096
_CORNERS: Final = 4
"""Columns of the border that its title has not, beside those of what is in it."""
_CURSORS: Final = {1: "◆", 2: "▲▼"}
"""Signs of the cursor by the parts of a cell, from above: on which of them it is."""


class Painter:
    """Makes strips of rows of codes, for one palette and one way to draw.

    Args:
        palette: The colours.
        glyphs: Whether signs are drawn instead of half blocks.
        ground: The colour behind all; None for the palette's.
    """

    def __init__(self, palette: Palette, *, glyphs: bool, ground: str | None = None) -> None:
        self.palette = palette
        self._ground = ground or palette.empty
        self.glyphs = glyphs
        self._cells = [self._cell(*divmod(code, KINDS)) for code in range(KINDS * KINDS)]
        self._runs: dict[tuple[int, int], Segment] = {}
        self._strips: dict[bytes, Strip] = {}

    def strip(self, codes: bytes) -> Strip:
        """Return a row; one that was painted a short while ago is not painted again."""
        if (strip := self._strips.get(codes)) is None:
            if len(self._strips) >= _STRIPS_KEPT:
                self._strips.clear()
            strip = self._strips[codes] = Strip(self._segments(codes), len(codes))
        return strip

    def _segments(self, codes: bytes) -> list[Segment]:
        segments = []
        place, size = 0, len(codes)
        while place < size:
            code = codes[place]
            end = place + 1
            while end < size and codes[end] == code:
                end += 1
            run = code, end - place
            if (segment := self._runs.get(run)) is None:
                sign, style = self._cells[code]
                segment = self._runs[run] = Segment(sign * (end - place), style)
            segments.append(segment)
            place = end
        return segments

    def _cell(self, upper: int, lower: int) -> tuple[str, Style]:
        colours = self.palette.states
        worst = upper if lower == EMPTY else max(upper, lower)
        if upper == EMPTY:
            return " ", Style(bgcolor=self._ground)  # tasks fill cells from above
        if self.glyphs:
            return GLYPHS[worst], Style(color=colours[worst], bgcolor=self._ground)
        if worst in SIGNS:
            return SIGNS[worst], Style(color=self.palette.empty, bgcolor=colours[worst], bold=True)
        if lower == EMPTY:
            return UPPER_HALF, Style(color=colours[upper], bgcolor=self._ground)
        if upper == lower:
            return GLYPHS[DONE], Style(color=colours[upper], bgcolor=colours[upper])
        return UPPER_HALF, Style(color=colours[upper], bgcolor=colours[lower])


class TreeMap(Widget, can_focus=True):
    """A job's tasks: worst state wins in each cell. Only rows that changed are drawn again."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tree--text", "tree--dim", "tree--cursor"}
    DEFAULT_CSS = """
    TreeMap > .tree--text { color: $foreground; }
    TreeMap > .tree--dim { color: $faint; }
    TreeMap > .tree--cursor { text-style: bold reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1, 0)", "Move the cursor left", show=False),
        Binding("right", "move(1, 0)", "Move the cursor right", show=False),
        Binding("up", "move(0, -1)", "Move the cursor up", show=False),
        Binding("down", "move(0, 1)", "Move the cursor down", show=False),
        Binding("pageup", "phase(1)", "Look at the phase above", show=False),
        Binding("pagedown", "phase(-1)", "Look at the phase below", show=False),
        Binding("enter", "open", "Look into"),
    ]

    class Opened(Message):
        """Somebody wants to see what is behind the cursor."""

    def __init__(
        self,
        *,
        glyphs: bool = False,
        id: str | None = None,  # noqa: A002 - Textual's word
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._glyphs = glyphs
        self._view: JobView | None = None
        self._cells: TreeCells | None = None
        self._window: Window | None = None
        self._cursor = 0
        self._painter = Painter(DARK, glyphs=glyphs)
        self._title = ""
        self._legend: list[tuple[int | None, str]] = []
        self.border_title = Content("1 Tree")

    # What is shown ----------------------------------------------------------------------------------------------------

    def show(self, view: JobView) -> None:
        """Draw what has changed since the last view."""
        self._view = view
        if self._window is None and view.states:
            self._window = Window(1, 0, len(view.states[0].states))
        self._lay_out()

    def use_glyphs(self, *, glyphs: bool) -> None:
        """Draw signs, or half blocks."""
        self._glyphs = glyphs
        self.repaint()

    def repaint(self) -> None:
        """Draw everything again: the theme or the way to draw is another one."""
        palette = DARK if self.app.current_theme.dark else LIGHT
        self._painter = Painter(palette, glyphs=self._glyphs, ground=self.background_colors[1].hex6)
        self._cells = None
        self._lay_out()

    @property
    def window(self) -> Window | None:
        """What the map shows."""
        return self._window

    @property
    def rest(self) -> str:
        """What is not drawn: tasks of the phase that is looked at, and phases; nothing where all is."""
        if self._view is None or self._cells is None:
            return ""
        window = self._cells.window
        tasks = len(self._view.states[window.phase - 1].states) - (window.stop - window.start)
        hidden = [counted(tasks, "task")] if tasks else []
        if self._cells.phases_hidden:
            hidden.append(counted(self._cells.phases_hidden, "phase"))
        return " ".join(f"+{words}" for words in hidden)

    @property
    def cursor(self) -> int:
        """The task that the cursor is on, by its place in the phase; where several are drawn as one, one of them."""
        return self._cursor

    def _shared(self, cells: TreeCells) -> range:
        """Return the tasks that are drawn as one with that of the cursor."""
        window, share = cells.window, cells.each // cells.pixels
        first = self._cursor - (self._cursor - window.start) % share
        return range(first, min(first + share, window.stop))

    def worst_at_cursor(self) -> TaskId | None:
        """Return the task that gives what the cursor is on its state: the first of the worst that share it."""
        if self._view is None or self._window is None or self._cells is None:
            return None
        phase = self._view.states[self._window.phase - 1]
        shared = self._shared(self._cells)
        states = phase.array()[shared.start : shared.stop]
        if not states.size:
            return None
        tile, index = divmod(shared.start + int(states.argmax()), len(phase.states) // phase.tiles)
        return TaskId(self._view.snapshot.job, phase.phase, tile, index)

    def state_at_cursor(self) -> int | None:
        """Return the state of the cursor's cell; None where there is none."""
        task = self.worst_at_cursor()
        if task is None or self._view is None:
            return None
        phase = self._view.states[task.phase - 1]
        return phase.states[task.tile * (len(phase.states) // phase.tiles) + task.index]

    def look_at(self, phase: int, task: int) -> None:
        """Put the cursor on a task, and show it."""
        if self._view is None or not 1 <= phase <= len(self._view.states):
            return
        tasks = len(self._view.states[phase - 1].states)
        if self._window is None or self._window.phase != phase:
            self._window = Window(phase, 0, tasks)
        self._cursor = min(max(0, task), tasks - 1)
        self._window = about(self._window, tasks, self._cursor)
        self._lay_out(everything=True)

    def zoom(self, factor: float) -> None:
        """Show so many times as many tasks."""
        if self._view is not None and self._window is not None:
            tasks = len(self._view.states[self._window.phase - 1].states)
            self._window = zoomed(self._window, tasks, self._cursor, factor)
            self._lay_out(everything=True)

    @property
    def zooms(self) -> tuple[bool, bool]:
        """Whether there is a closer look, and one at more tasks."""
        if self._view is None or self._window is None:
            return False, False
        length = self._window.stop - self._window.start
        return length > 1, length < len(self._view.states[self._window.phase - 1].states)

    def zoom_in(self) -> None:
        """Show a quarter of what is shown."""
        self.zoom(1 / _ZOOM)

    def zoom_out(self) -> None:
        """Show four times as much."""
        self.zoom(_ZOOM)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what there is nothing of: another phase, or what is behind the cursor."""
        if action == "open":
            return self._cells is not None
        if action == "phase" and isinstance(step := parameters[0], int):
            return self._window is not None and self._phase_beside(step) != self._window.phase
        return super().check_action(action, parameters)

    def _phase_beside(self, step: int) -> int:
        assert self._view is not None
        assert self._window is not None
        return min(max(1, self._window.phase + step), len(self._view.states))

    def action_move(self, columns: int, rows: int) -> None:
        """Move the cursor by cells, or up and down within one."""
        if self._view is not None and self._window is not None and self._cells is not None:
            tasks = len(self._view.states[self._window.phase - 1].states)
            width = max(1, self.size.width)
            self._window, self._cursor = moved(self._cells, tasks, self._cursor, columns, rows, width)
            self._lay_out(everything=True)

    def action_phase(self, step: int) -> None:
        """Look at another phase."""
        if self._view is not None and self._window is not None:
            phase = self._phase_beside(step)
            if phase != self._window.phase:
                self._window = None
                self.look_at(phase, 0)

    def action_open(self) -> None:
        """Say that somebody wants to see what is behind the cursor."""
        self.post_message(self.Opened())

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse is; twice, look into it."""
        offset = event.get_content_offset(self)
        if offset is None or self._cells is None:
            return
        if offset.y < len(self._cells.phases):
            row = self._cells.phases[offset.y]
            self._window = None
            self.look_at(row.phase, 0)
        elif (line := offset.y - len(self._cells.phases) - self._cells.gap) >= 0:
            cells, across = self._cells, max(1, self.size.width // self._cells.wide)
            task = cells.window.start + (line // cells.tall * across + offset.x // cells.wide) * cells.each
            if offset.x >= across * cells.wide or task >= cells.window.stop:
                return  # there is none
            self.look_at(cells.window.phase, task)
            if event.chain > 1:
                self.action_open()

    def on_resize(self) -> None:
        """Fill the new room."""
        self._lay_out(everything=True)

    def _lay_out(self, *, everything: bool = False) -> None:
        view, window = self._view, self._window
        width, height = self.size
        if view is None or window is None or width < 1 or height < 1:
            return
        old = self._cells
        new = tree_cells(view.states, view.snapshot.phases, window, width, height - 1, halves=not self._glyphs)
        self._cells = new
        legend_changed = self._tell(view, new)
        if everything or old is None or old.each != new.each or len(old.phases) != len(new.phases):
            self.refresh()
            return
        changed = [place for place, (one, other) in enumerate(zip(old.phases, new.phases, strict=True)) if one != other]
        if legend_changed:
            changed.append(height - 1)
        top = len(new.phases) + new.gap
        changed += [
            top + place
            for place in range(max(len(old.rows), len(new.rows)))
            if old.rows[place : place + 1] != new.rows[place : place + 1]
        ]
        if changed:
            self.refresh(*(Region(0, place, width, 1) for place in changed))

    def _tell(self, view: JobView, cells: TreeCells) -> bool:
        """Say in the border what a cell is and what is shown, and in the last line what is in which state.

        Returns:
            Whether the last line is another one. (A new title draws everything again, so there is one only if it must.)
        """
        window = cells.window
        tasks = len(view.states[window.phase - 1].states)
        title = f"1 Tree ── phase {window.phase} ── cell = {counted(cells.each, 'task')}"
        partition = f" ── P={view.tree.partition:,}" if view.tree is not None else ""
        short = f" · cell = {cells.each:,}"
        if cells.phases_hidden:
            title += f" ── {counted(cells.phases_hidden, 'phase')} more"
            short += f" · +{counted(cells.phases_hidden, 'phase')}"
        if window.stop - window.start < tasks:
            title += f" ── {window.start:,} to {window.stop - 1:,} of {tasks:,}"
            short = f" · {window.start:,} to {window.stop - 1:,} of {tasks:,}{short}"
        room = self.size.width - _CORNERS
        if width_of(title) > room:
            title = f"1 P{window.phase}{short}"
            if width_of(title) > room:
                title = title.replace(f" · +{counted(cells.phases_hidden, 'phase')}", f" · +{cells.phases_hidden}")
        elif width_of(title) + len(partition) <= room:  # the only part that never changes, and so the first to go
            title = title.replace("1 Tree", f"1 Tree{partition}")
        if title != self._title:
            self._title = title
            self.border_title = Content(title)
        counts = view.states[window.phase - 1].counts()
        here: list[tuple[int | None, str]] = [(None, self._cursor_words(cells))] if self.has_focus else []
        # Of a job that has not come to its end: where tasks were then.
        left = {QUEUED, RUNNING, BACKUP} if view.failure is not None else set()
        every: list[tuple[int | None, str]] = [
            (state, f"{GLYPHS[state]} {count:,} {'left ' * (state in left)}{NAMES[state]}")
            for state, count in enumerate(counts)
        ]
        some = [part for part, count in zip(every, counts, strict=True) if count]
        signs: list[tuple[int | None, str]] = [
            (state, f"{GLYPHS[state]} {count:,}") for state, count in enumerate(counts) if count
        ]
        room = self.size.width + 2
        fitting = (each for each in (every, some) if sum(len(text) + 2 for _, text in here + each) <= room)
        parts = here + next(fitting, signs)
        before, self._legend = self._legend, parts
        return before != parts

    def _cursor_words(self, cells: TreeCells) -> str:
        shared, sign = self._shared(cells), self._sign(cells)
        if len(shared) == 1:
            return f"{sign} task {shared.start:,}"
        return f"{sign} tasks {shared.start:,} to {shared.stop - 1:,}"

    def _sign(self, cells: TreeCells) -> str:
        part = (self._cursor - cells.window.start) // (cells.each // cells.pixels) % cells.pixels
        return _CURSORS[cells.pixels][part]

    # Drawing ----------------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Return one line."""
        return self._line(y).apply_style(self.rich_style)

    def _line(self, y: int) -> Strip:
        cells, width = self._cells, self.size.width
        if cells is None or width < 1:
            return Strip.blank(max(0, width))
        if y == self.size.height - 1:
            return self._legend_strip(width)
        if y < len(cells.phases):
            row = cells.phases[y]
            text = self.get_component_rich_style("tree--text", partial=True)
            dim = self.get_component_rich_style("tree--dim", partial=True)
            label = Strip([Segment(row.label, text if row.phase == cells.window.phase else dim)], len(row.label))
            counts = Strip([Segment(row.counts, text)], len(row.counts))
            return Strip.join([label, self._painter.strip(row.codes), counts]).adjust_cell_length(width)
        place = y - len(cells.phases) - cells.gap
        if not 0 <= place < len(cells.rows):
            return Strip.blank(width)
        strip = self._painter.strip(cells.rows[place])
        if self.has_focus:
            line, column = divmod((self._cursor - cells.window.start) // cells.each, max(1, width // cells.wide))
            if line * cells.tall + (cells.tall - 1) // 2 == place:
                style = self.get_component_rich_style("tree--cursor", partial=True)
                drawn = max(1, cells.wide - 1)
                mark = Strip([Segment(f"{self._sign(cells):^{drawn}}", style)], drawn)
                start = column * cells.wide
                return Strip.join([strip.crop(0, start), mark, strip.crop(start + drawn, width)])
        return strip

    def _legend_strip(self, width: int) -> Strip:
        dim = self.get_component_rich_style("tree--dim", partial=True)
        segments = []
        for state, text in self._legend:
            if state is None:
                segments.append(Segment(f"{text}  "))
            else:
                segments.append(Segment(text[0], Style(color=self._painter.palette.states[state])))
                segments.append(Segment(f"{text[1:]}  ", dim))
        return Strip(segments).adjust_cell_length(width)

    def on_focus(self) -> None:
        """Show the cursor."""
        self._lay_out(everything=True)

    def on_blur(self) -> None:
        """Hide it."""
        self._lay_out(everything=True)
