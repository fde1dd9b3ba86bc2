"""What is asked before something ends, and the help, which is made of the bindings themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

_BOX = """
    align: center middle;
    & > #box { width: 76; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1; }
    & OptionList, & OptionList:focus { height: auto; border: none; background: $surface; }
"""

_TEXTUALS: Final = frozenset(
    (binding.action, binding.description) for binding in Screen.BINDINGS if isinstance(binding, Binding)
)
"""What keys do on any screen of Textual's, which is of no use here."""


def keys_of(screen: Screen[Any]) -> list[tuple[str, str]]:
    """Return what the keys of a screen, and of what is chosen on it, do now: the keys, and what for."""
    keys: dict[str, list[str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        ours = active.node is not screen.app and (binding.action, binding.description) not in _TEXTUALS
        if active.enabled and ours and binding.description:
            shown = keys.setdefault(binding.description, [])
            if (key := screen.app.get_key_display(binding)) not in shown:
                shown.append(key)
    return [(" ".join(shown), words) for words, shown in keys.items()]


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


class AskNumber(ModalScreen[int | None]):
    """A question that a whole number answers. Escape gives None."""

    DEFAULT_CSS = "AskNumber { " + _BOX + " & Input, & Input:focus { border: none; height: 1; padding: 0; } }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "close", "Change nothing", show=False, priority=True)
    ]

    def __init__(self, question: str, number: int) -> None:
        super().__init__()
        self._question = question
        self._number = number

    def compose(self) -> ComposeResult:
        """Make the box."""
        with VerticalScroll(id="box", can_focus=False):
            yield Static(Content(self._question))
            yield Input(str(self._number), type="integer", max_length=9, select_on_focus=True)
            yield Static(Content("Enter gives it, Escape changes nothing."), id="remark")

    def on_mount(self) -> None:
        """Let keys write."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give the answer, if it is one."""
        try:
            number = int(event.value)
        except ValueError:
            self.query_one("#remark", Static).update(Content("It must be a whole number, such as 5 or -1."))
        else:
            self.dismiss(number)

    def action_close(self) -> None:
        """Give none."""
        self.dismiss(None)


class Told(ModalScreen[None]):
    """Some words, to be read and closed."""

    DEFAULT_CSS = "Told { " + _BOX + " }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark,ctrl+c", "close", "Close", show=False, priority=True)
    ]

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        """Make the box."""
        with VerticalScroll(id="box"):
            yield Static(Content(self._words))

    def on_mount(self) -> None:
        """Let keys scroll."""
        self.query_one("#box").focus()

    def action_close(self) -> None:
        """Go back."""
        self.dismiss(None)


class Help(Told):
    """All keys that do something now."""

    def __init__(self, keys: Sequence[tuple[str, str]], legend: str) -> None:
        wide = max((len(key) for key, _ in keys), default=0)
        rows = "\n".join(f"{key:<{wide}}  {words}" for key, words in keys)
        super().__init__(f"{rows}\n\n{legend}")
