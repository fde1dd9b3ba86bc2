"""A form: fields with a name before each, and what is wrong with it below."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from distsum.wording import printable

from .box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

_LEFT_OUT = "characters that would disturb a terminal are left out; in a pattern, ? stands for one"


class Edited(Message):
    """Somebody has written or chosen something."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry


class _Text(Input):
    """A line of text. What could disturb the terminal is left out of it, which is told."""

    DEFAULT_CSS = """
    _Text, _Text:focus { border: none; height: 1; padding: 0; background: $foreground 8%; }
    _Text:focus { background: $primary 25%; }
    _Text > .input--placeholder { color: $faint; }
    """

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text, placeholder=hint, select_on_focus=False)
        self.left_out = False

    def validate_value(self, value: str) -> str:
        """Leave out what is not harmless to show."""
        kept = "".join(each for each in value if printable(each) == each)
        self.left_out = kept != value
        return kept

    def on_paste(self, event: events.Paste) -> None:
        """Take all lines, not only the first one."""
        event.prevent_default()
        event.stop()
        text = " ".join(event.text.splitlines())
        if self.selection.is_empty:
            self.insert_text_at_cursor(text)
        else:
            self.replace(text, *self.selection)


class OneOf(Widget, can_focus=True):
    """One of some words; arrows, space and a click choose another.

    Args:
        words: What there is; the first one is chosen at first.
    """

    DEFAULT_CSS = "OneOf { height: 1; background: $foreground 8%; } OneOf:focus { background: $primary 25%; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "choose(-1)", "Choice before", show=False),
        Binding("right,space", "choose(1)", "Next choice", show=False),
    ]

    def __init__(self, words: Sequence[str], chosen: str) -> None:
        super().__init__()
        self._words = words
        self.value = chosen if chosen in words else words[0]

    def render(self) -> Content:
        """Return the word, with signs that there are others."""
        return Content(f"◂ {self.value} ▸")

    def action_choose(self, step: int) -> None:
        """Choose another word."""
        self.value = self._words[(self._words.index(self.value) + step) % len(self._words)]
        self.refresh()
        assert isinstance(self.parent, Widget)
        assert isinstance(self.parent.parent, Entry)
        self.post_message(Edited(self.parent.parent))

    def on_click(self) -> None:
        """Choose the next one."""
        self.focus()
        self.action_choose(1)


class Entry(Vertical):
    """A field, its name, and what is wrong with it.

    Args:
        name: What it is called inside.
        label: What stands before it.
        text: What is in it at first.
        hint: What stands in it while it is empty.
        choices: What it may be; none where it is a text.
    """

    DEFAULT_CSS = """
    Entry { height: auto; width: 1fr; padding-right: 1;
        & > Horizontal { height: 1; }
        & .label { width: 14; color: $faint; }
        & .flaw { display: none; color: $text-error; text-style: bold; padding-left: 14; }
    }
    """

    def __init__(self, name: str, label: str, text: str, hint: str = "", choices: Sequence[str] = ()) -> None:
        super().__init__(id=f"field-{name}")
        self.field = name
        self._label = label
        self.editor: _Text | OneOf = OneOf(choices, text) if choices else _Text(text, hint)
        self._flaw = Static(classes="flaw")

    def compose(self) -> ComposeResult:
        """Make its parts."""
        with Horizontal():
            yield Static(Content(self._label), classes="label")
            yield self.editor
        yield self._flaw

    @property
    def value(self) -> str:
        """What is in it."""
        return self.editor.value

    def tell(self, flaw: str) -> None:
        """Show what is wrong with it; nothing where that is empty."""
        if not flaw and isinstance(self.editor, _Text) and self.editor.left_out:
            flaw = _LEFT_OUT
        self._flaw.update(Content(f"! {printable(flaw, 2000)}" if flaw else ""))
        self._flaw.display = bool(flaw)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Tell of what was written."""
        event.stop()
        self.post_message(Edited(self))


class Form(Box, can_focus=False, inherit_bindings=False):
    """Fields below each other, some of them side by side where there is room."""

    DEFAULT_CSS = """
    Form { height: auto; scrollbar-size-vertical: 1; overflow-x: hidden; }
    Form .row { height: auto; }
    Form.narrow .row { layout: vertical; }
    """

    def __init__(self, rows: Sequence[Sequence[Entry]]) -> None:
        super().__init__("form", can_focus=False)
        self._rows = rows
        self.entries = {entry.field: entry for row in rows for entry in row}

    def compose(self) -> ComposeResult:
        """Make the rows."""
        for row in self._rows:
            with Horizontal(classes="row"):
                yield from row

    @property
    def written_into(self) -> str | None:
        """The field that keys write into; None where they go elsewhere."""
        focused = self.screen.focused
        return next((name for name, entry in self.entries.items() if entry.editor is focused), None)

    def go(self, step: int) -> None:
        """Go to another field; round at the ends."""
        names = list(self.entries)
        here = self.written_into
        self.write_into(names[((names.index(here) if here else 0) + step) % len(names)])

    def write_into(self, name: str) -> None:
        """Let keys write into a field; also those that were typed ahead."""
        self.screen.set_focus(self.entries[name].editor)
