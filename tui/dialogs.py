"""What is asked before something ends, and the help, which is made of the bindings themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from .box import Box
from .left_once import LeftOnce

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult

_BOX = """
    align: center middle;
    & > #box { width: 76; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1; }
    & > #box { border-subtitle-color: $text; }
    & OptionList, & OptionList:focus { height: auto; max-height: 999; min-width: 8; }
    & OptionList, & OptionList:focus { border: none; background: $surface; }
"""

_TEXTUALS: Final = frozenset(
    (binding.action, binding.description) for binding in Screen.BINDINGS if isinstance(binding, Binding)
)
"""What keys do on any screen of Textual's, which is of no use here."""
_OF_APPLICATION: Final = {"suspend_process": "Suspend", "command_palette": "Search all that can be done"}
"""What they do on any screen of ours, by Textual, and in which words that is told."""


def keys_of(screen: Screen[Any]) -> list[tuple[str, str]]:
    """Return what the keys of a screen, and of what is chosen on it, do now: the keys, and what for."""
    keys: dict[str, list[str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        ours = active.node is not screen.app or binding.action in _OF_APPLICATION
        ours = ours and (binding.action, binding.description) not in _TEXTUALS
        if active.enabled and ours and binding.description:
            shown = keys.setdefault(_OF_APPLICATION.get(binding.action, binding.description), [])
            if (key := screen.app.get_key_display(binding)) not in shown:
                shown.append(key)
    return [(" ".join(shown), words) for words, shown in keys.items()]


class Choice(NamedTuple):
    """Something that may be chosen: what it is called inside, and in words."""

    name: str
    words: str


Answer = TypeVar("Answer")
_GIVEN: Final = "Asked for; Escape closes this, and what comes of it is told then."


class Question(LeftOnce[Answer], ModalScreen[Answer], Generic[Answer]):
    """What waits for an answer. Where that is to be carried out, it stays until it is, or tells why it is not.

    Args:
        question: In words.
        give: Carries an answer out, and then closes this or has it tell of the refusal; None closes it at once.
        over: Tells why there is nothing to decide any more, harmless to show; empty as long as there is.
    """

    AUTO_FOCUS = ""  # it would scroll to the end, and what is asked would be out of sight
    DEFAULT_CSS = (
        "Question { "
        + _BOX
        + " & #remark { height: auto; } & #remark.refused { color: $text-error; text-style: bold; } }"
    )

    def __init__(
        self,
        question: str,
        give: Callable[[Question[Any], Answer], None] | None = None,
        over: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__()
        self._question = question
        self._give = give
        self._over = over
        self._given = False
        self._ended = False

    def give(self, answer: Answer) -> None:
        """Give an answer, unless one is being carried out."""
        if self._give is None:
            self.dismiss(answer)
        elif not self._given:
            self._given = True
            self.remark(_GIVEN)
            self._give(self, answer)

    def refuse(self, reason: str) -> bool:
        """Tell why the answer is not carried out, and wait for another; return whether somebody sees that."""
        self._given = False
        if self.is_current:
            self.remark(f"! not done: {reason}", refused=True)
        return self.is_current

    def close(self) -> None:
        """Go away without an answer, unless that has happened; at once, or when what lies above is gone."""
        self._ended = True
        self.dismiss(None)

    def on_screen_resume(self) -> None:
        """Go away, if that was to happen while something else lay above."""
        if self._ended:
            self.dismiss(None)

    def close_if_over(self) -> str:
        """Go away where there is nothing to decide any more, and return why; what is carried out is waited for."""
        words = "" if self._given or self._ended else self._over()
        if words:
            self._ended = True
            self.app.call_later(self.close)  # in its turn: what takes a screen away waits for the messages of that
        return words

    def remark(self, words: str, *, refused: bool = False) -> None:
        """Show words below all else."""
        remark = self.query_one("#remark", Static)
        remark.update(Content(words))
        remark.display = bool(words)
        remark.set_class(refused, "refused")
        if words:
            self.call_after_refresh(remark.scroll_visible)
        self.call_after_refresh(self.query_one(Box).tell_rest)


class _Choices(OptionList):
    """Some choices at the end of a box. Where that is too low for all, arrows turn its pages before they choose."""

    _chosen = False
    """Whether somebody has begun to choose."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer pages where there are some: where a tiny terminal has no line for them, Textual would fail."""
        if action in {"page_up", "page_down"}:
            return bool(self.scrollable_content_region)
        return super().check_action(action, parameters)

    def scroll_to_highlight(self, top: bool = False) -> None:  # noqa: FBT001, FBT002 - Textual's arguments
        """Keep the chosen one in sight, unless the question is being read yet."""
        super().scroll_to_highlight(top)
        self._chosen |= bool(self.highlighted)
        if self.is_mounted and self._chosen:
            self._box.scroll_to_region(self._chosen_region(), animate=False, force=True)

    def action_cursor_up(self) -> None:
        """Choose the one above; above the first one is the question."""
        if self.highlighted == 0 and self._box.scroll_y > 0:
            self._box.scroll_page_up(animate=False)
        else:
            super().action_cursor_up()

    def action_cursor_down(self) -> None:
        """Choose the one below, once the one that is chosen has been seen."""
        box = self._box
        if self._chosen_region().bottom > box.scroll_y + box.scrollable_content_region.height:
            box.scroll_page_down(animate=False)
        elif (
            self.highlighted != self.option_count - 1 or not box.max_scroll_y
        ):  # else it would begin anew, out of sight
            super().action_cursor_down()

    @property
    def _box(self) -> Box:
        assert isinstance(self.parent, Box)
        return self.parent

    def _chosen_region(self) -> Region:
        """Return where the chosen one is in the box."""
        number = self.highlighted or 0
        # Private: only Textual knows over how many lines it has broken each.
        return Region(0, self.virtual_region.y + self._index_to_line[number], 1, self._heights[number])


class Ask(Question[str]):
    """A question with some answers; the first one is the harmless one. Escape gives that, too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "harmless", "Change nothing", show=False, priority=True)
    ]

    def __init__(
        self,
        question: str,
        choices: Sequence[Choice],
        give: Callable[[Question[Any], str], None] | None = None,
        over: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__(question, give, over)
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Make the box."""
        with Box("box", can_focus=False):
            yield Static(Content(self._question))
            yield _Choices(*(Option(Content(choice.words), id=choice.name) for choice in self._choices))
            yield Static(id="remark")

    def on_mount(self) -> None:
        """Let keys choose, also those that were typed ahead."""
        self.remark("")
        choices = self.query_one(OptionList)
        choices.highlighted = 0
        self.set_focus(choices, scroll_visible=False)  # where not all has room, the question comes first

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Give the answer."""
        if event.option.id is None or event.option.id == self._choices[0].name:
            self.action_harmless()
        else:
            self.give(event.option.id)

    def action_harmless(self) -> None:
        """Give the first answer."""
        self.dismiss(self._choices[0].name)


class AskNumber(Question[int | None]):
    """A question that a whole number answers. Escape gives None."""

    DEFAULT_CSS = "AskNumber { & Input, & Input:focus { border: none; height: 1; padding: 0; } }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "close", "Change nothing", show=False, priority=True)
    ]

    def __init__(
        self,
        question: str,
        number: int,
        give: Callable[[Question[Any], int | None], None],
        over: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__(question, give, over)
        self._number = number

    def compose(self) -> ComposeResult:
        """Make the box."""
        with Box("box", can_focus=False):
            yield Static(Content(self._question))
            yield Input(str(self._number), type="integer", max_length=9, select_on_focus=True)
            yield Static(Content("Enter gives it, Escape changes nothing."), id="remark")

    def on_mount(self) -> None:
        """Let keys write."""
        self.set_focus(self.query_one(Input), scroll_visible=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what is written."""
        if event.value != str(self._number):
            event.input.scroll_visible(animate=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give the answer, if it is one."""
        try:
            number = int(event.value)
        except ValueError:
            self.remark("It must be a whole number, such as 5 or -1.")
        else:
            self.give(number)

    def action_close(self) -> None:
        """Give none."""
        self.dismiss(None)


class Told(LeftOnce[None], ModalScreen[None]):
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
        with Box("box"):
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
