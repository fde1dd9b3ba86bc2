"""What is asked before something ends, and the help, which is made of the bindings themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

_BOX = """
    align: center middle;
    & > #box { width: 76; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1; }
    & OptionList { height: auto; border: none; background: $surface; }
"""


class Choice(NamedTuple):
    """Something that may be chosen: what it is called inside, and in words."""

    name: str
    words: str


class Ask(ModalScreen[str]):
    """A question with some answers; the first one is the harmless one. Escape gives that, too."""

    DEFAULT_CSS = "Ask { " + _BOX + " }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "harmless", "Change nothing", show=False, priority=True)
    ]

    def __init__(self, question: str, choices: Sequence[Choice]) -> None:
        super().__init__()
        self._question = question
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Make the box."""
        with VerticalScroll(id="box", can_focus=False):
            yield Static(Content(self._question))
            yield OptionList(*(Option(Content(choice.words), id=choice.name) for choice in self._choices))

    def on_mount(self) -> None:
        """Let keys choose, also those that were typed ahead."""
        choices = self.query_one(OptionList)
        choices.highlighted = 0
        self.set_focus(choices)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Give the answer."""
        self.dismiss(event.option.id)

    def action_harmless(self) -> None:
        """Give the first answer."""
        self.dismiss(self._choices[0].name)


class Help(ModalScreen[None]):
    """All keys that do something now."""

    DEFAULT_CSS = "Help { " + _BOX + " }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,ctrl+c", "close", "Close", show=False, priority=True)
    ]

    def __init__(self, keys: Sequence[tuple[str, str]], legend: str) -> None:
        super().__init__()
        self._keys = keys
        self._legend = legend

    def compose(self) -> ComposeResult:
        """Make the box."""
        wide = max((len(key) for key, _ in self._keys), default=0)
        rows = "\n".join(f"{key:<{wide}}  {words}" for key, words in self._keys)
        with VerticalScroll(id="box"):
            yield Static(Content(f"{rows}\n\n{self._legend}"))

    def on_mount(self) -> None:
        """Let keys scroll."""
        self.query_one("#box").focus()

    def action_close(self) -> None:
        """Go back."""
        self.dismiss(None)
