"""Names from outside, made harmless."""

from __future__ import annotations

import sys
import unicodedata

from distsum.wording import printable

UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}


def test_every_character_that_nobody_sees_is_told_by_its_number_and_no_other():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        unseen = unicodedata.category(character) in UNSEEN and character != " "
        shown = printable(character)
        assert (shown != character) is unseen, hex(code)
        assert not unseen or (shown.isascii() and shown.isprintable()), hex(code)


def test_what_is_told_by_its_number_can_be_told_apart():
    assert printable("\u200b") == "\\u200b"
    assert printable("\U000e0001") == "\\U000e0001"
    assert printable("\u00a0") == "\\xa0"


def test_names_of_many_languages_stay_as_they_are():
    for name in ("日本語 データ.npy", "Größe", "данные", "نتائج", "हिन्दी", "ไทย", "한국어", "e\u0301", "🙂.npy"):
        assert printable(name) == name
