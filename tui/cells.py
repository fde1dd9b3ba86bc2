"""Texts on a terminal, where a character takes no column, one or two: measured, cut, filled up and folded.

Pure but for the table of widths, which is the one that Textual draws by.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size


def width_of(text: str) -> int:
    """Return how many columns a text takes.

    >>> width_of("abc"), width_of("日本"), width_of("e\u0301")
    (3, 4, 1)
    """
    return cell_len(text)


def head(text: str, width: int) -> str:
    """Return as much of a text's beginning as so many columns hold; marks stay with what they stand on.

    >>> head("日本b", 3), head("abc", 2), head("abc", 9)
    ('日', 'ab', 'abc')
    """
    if width_of(text) <= width:
        return text
    cut = set_cell_size(text, max(0, width))
    return cut if text.startswith(cut) else cut[:-1]  # a blank stands where a wide character has no room


def tail(text: str, width: int) -> str:
    """Return as much of a text's end as so many columns hold.

    >>> tail("a日本", 3), tail("abc", 2), tail("abc", 0)
    ('本', 'bc', '')
    """
    rest = text[len(head(text, width_of(text) - width)) :] if width > 0 else ""
    while rest and (width_of(rest) > width or not width_of(rest[0])):
        rest = rest[1:]
    return rest


def fitted(text: str, width: int) -> str:
    """Return a text that is at most so wide; what is cut leaves a mark.

    >>> fitted("abcdef", 4), fitted("abc", 4), fitted("abc", 0), fitted("日本語", 4)
    ('abc…', 'abc', '', '日…')
    """
    if width_of(text) <= width:
        return text
    return f"{head(text, width - 1)}…" if width > 0 else ""


def middle_cut(words: str, width: int) -> str:
    """Return a name that is at most so wide. It loses its middle: names of files differ in their ends.

    >>> middle_cut("s3://lab/run42/0001.npy", 12), middle_cut("short", 12), middle_cut("abc", 1)
    ('s3://…01.npy', 'short', '…')
    """
    if width_of(words) <= width:
        return words
    return f"{head(words, width - 1 - width // 2)}…{tail(words, width // 2)}" if width > 0 else ""


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text that is at least so wide, with blanks behind it, or before it.

    >>> padded("日", 4) + "|", padded("日", 4, right=True) + "|"
    ('日  |', '  日|')
    """
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return a text as lines at most so wide, at least one; ``indent`` stands before all but the first.

    Lines are broken at blanks, which go. A word that has no room on any line begins on the one where it stands.

    >>> wrapped("one two three", 8), wrapped("日本 日本語日本語", 9, "  "), wrapped("", 9)
    (['one two', 'three'], ['日本 日本', '  語日本', '  語'], [''])
    """
    width = max(width, len(indent) + 2)  # so that every character has room on a line of its own
    lines, left = [""], width
    for piece in re.findall(" *[^ ]+", text):
        rest, size = piece, width_of(piece)
        while size > left:
            word = rest.lstrip(" ")
            if width_of(word) > width - len(indent) and (part := head(rest, left)).strip(" "):
                lines[-1] += part
                rest = rest[len(part) :]
            else:
                rest = word
            lines.append(indent)
            left, size = width - len(indent), width_of(rest)
        lines[-1] += rest
        left -= size
    return lines


def cut_lines(words: str, width: int, most: int) -> list[str]:
    """Return words folded into at most so many lines; how many characters are cut stands at the end.

    >>> cut_lines("one two three", 8, 2), cut_lines("one two " * 9, 24, 1)
    (['one two', 'three'], ['one two on… 61 more'])
    """
    lines = [line for each in words.split("\n") for line in wrapped(each, max(8, width))]
    if len(lines) > most:
        rest = rest_after(words, lines[: most - 1])
        kept = head(rest, max(0, width - 14))
        lines[most - 1 :] = [f"{kept}… {len(rest) - len(kept):,} more"]
    return lines


def rest_after(text: str, lines: list[str]) -> str:
    """Return what of a text stands behind its first lines.

    >>> rest_after("one two three", ["one", "two"])
    'three'
    """
    place = 0
    for line in lines:
        place = text.index(line, place) + len(line)
    return text[place:].strip()
