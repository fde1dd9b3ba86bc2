"""What is different between two frozen values of one type, as a message that makes the one from the other (pure).

A value is a Struct of Structs, tuples, bytes and scalars. What is the same is not told; of tuples only items that are
new or changed, of bytes only ranges. Making a difference costs the more the more is different, and little otherwise.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec

_COARSE_BYTES: Final = 4096
_FINE_BYTES: Final = 64
_LOOK_AHEAD: Final = 8
"""So many items of a tuple are looked at for one that has moved and is not the same object."""
_MOST_ITEMS: Final = 1_000_000
"""A tuple that is to have more is none of ours."""


class Replaced(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Another value altogether."""

    value: Any


class Fields(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The fields of a Struct that are different."""

    changes: dict[str, Change]


class Ranges(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """What stands where in bytes of the same length."""

    ranges: list[tuple[int, bytes]]


class Places(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The items that are different of a tuple of the same length."""

    changes: dict[int, Change]


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A part of a tuple: items of the old one from ``start`` to ``stop``, then new ones."""

    start: int
    stop: int
    items: list[Any]


class Pieces(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A tuple put together from pieces."""

    pieces: list[Piece]


Change = Replaced | Fields | Ranges | Places | Pieces


class UnfitError(Exception):
    """A change does not fit the value that it is to be made to; the text says why."""


def difference(old: Any, new: Any, kind: Any) -> Change | None:
    """Return what makes ``new`` from ``old``; None where they are equal.

    Args:
        old: A value.
        new: Another, or the same.
        kind: The type that both are annotated with.
    """
    if old is new:
        return None
    if type(old) is type(new):
        if isinstance(old, bytes) and len(old) == len(new):
            return _ranges(old, new)
        if old == new:
            return None
        if isinstance(old, msgspec.Struct):
            return Fields(dict(_changed_fields(old, new)))
        if isinstance(old, tuple) and (item := _item_kind(kind)) is not None:
            return _sequence(old, new, item)
    elif old == new:
        return None
    return Replaced(new)


def changed(old: Any, change: Change, kind: Any) -> Any:
    """Return what a change makes of a value.

    Args:
        old: The value that it was made from.
        change: From anywhere.
        kind: The type that the value is annotated with; what comes out is of that type.

    Raises:
        UnfitError: It does not fit.
    """
    match change:
        case Replaced(value):
            try:
                return msgspec.convert(value, kind)
            except (msgspec.ValidationError, RecursionError) as error:
                raise UnfitError(str(error)) from None
        case Fields(changes) if isinstance(old, msgspec.Struct):
            kinds = _kinds(type(old))
            if not changes.keys() <= kinds.keys():
                raise UnfitError(f"{type(old).__name__} has no field {min(changes.keys() - kinds.keys())!r:.80}")
            made = {name: changed(getattr(old, name), each, kinds[name]) for name, each in changes.items()}
            return msgspec.structs.replace(old, **made)
        case Ranges(ranges) if isinstance(old, bytes):
            return _with_ranges(old, ranges)
        case Places(changes) if isinstance(old, tuple) and (item := _item_kind(kind)) is not None:
            items = list(old)
            for place, each in changes.items():
                if not 0 <= place < len(items):
                    raise UnfitError(f"place {place} of {len(items)}")
                items[place] = changed(items[place], each, item)
            return tuple(items)
        case Pieces(pieces) if isinstance(old, tuple) and (item := _item_kind(kind)) is not None:
            return _put_together(old, pieces, item)
    raise UnfitError(f"{type(change).__name__} for {type(old).__name__}")


def _changed_fields(old: msgspec.Struct, new: msgspec.Struct) -> list[tuple[str, Change]]:
    found = []
    for name, kind in _kinds(type(old)).items():
        change = difference(getattr(old, name), getattr(new, name), kind)
        if change is not None:
            found.append((name, change))
    return found


@cache
def _kinds(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


@cache
def _item_kind(kind: Any) -> Any:
    """Return what the items of a tuple of any length are annotated with; None of any other type."""
    if get_origin(kind) in {Union, UnionType}:
        found = [_item_kind(each) for each in get_args(kind) if each is not NoneType]
        return found[0] if len(found) == 1 else None
    arguments = get_args(kind)
    return arguments[0] if get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis else None


# Bytes ----------------------------------------------------------------------------------------------------------------


def _ranges(old: bytes, new: bytes) -> Change | None:
    """Return the ranges that differ, in whole small blocks; a million bytes that are equal take 0.1 ms."""
    if old == new:
        return None
    found: list[tuple[int, int]] = []
    for coarse in range(0, len(old), _COARSE_BYTES):
        if old[coarse : coarse + _COARSE_BYTES] == new[coarse : coarse + _COARSE_BYTES]:
            continue
        for at in range(coarse, min(coarse + _COARSE_BYTES, len(old)), _FINE_BYTES):
            stop = min(at + _FINE_BYTES, len(old))
            if old[at:stop] != new[at:stop]:
                if found and found[-1][1] == at:
                    found[-1] = found[-1][0], stop
                else:
                    found.append((at, stop))
    if 2 * sum(stop - start for start, stop in found) > len(old):
        return Replaced(new)
    return Ranges([(start, new[start:stop]) for start, stop in found])


def _with_ranges(old: bytes, ranges: list[tuple[int, bytes]]) -> bytes:
    made = bytearray(old)
    for at, content in ranges:
        if not 0 <= at <= at + len(content) <= len(made):
            raise UnfitError(f"bytes {at} to {at + len(content)} of {len(made)}")
        made[at : at + len(content)] = content
    return bytes(made)


# Tuples ---------------------------------------------------------------------------------------------------------------


def _sequence(old: tuple[Any, ...], new: tuple[Any, ...], kind: Any) -> Change:
    """Return what differs between two tuples that are not equal, as that of two ways which tells fewer items."""
    places = None
    if len(old) == len(new):
        places = [place for place, item in enumerate(old) if item is not new[place] and item != new[place]]
    pieces = _pieces(old, new) if places is None or len(places) > 1 else []
    told = sum(len(piece.items) for piece in pieces)
    if places is not None and (not pieces or len(places) <= told):
        changes = ((place, difference(old[place], new[place], kind)) for place in places)
        return Places({place: change for place, change in changes if change is not None})
    return Replaced(new) if told == len(new) else Pieces(pieces)


def _pieces(old: tuple[Any, ...], new: tuple[Any, ...]) -> list[Piece]:
    """Go through both from left to right; what has moved further is found where it is the same object."""
    by_object = {id(item): place for place, item in enumerate(old)}
    pieces: list[Piece] = []
    start = stop = 0  # of the items that are kept
    items: list[Any] = []
    for item in new:
        place = _place_of(item, old, stop, by_object)
        if place is None:
            items.append(item)
            continue
        if items or place != stop:
            pieces.append(Piece(start, stop, items))
            start, items = place, []
        stop = place + 1
    pieces.append(Piece(start, stop, items))
    return [piece for piece in pieces if piece.stop > piece.start or piece.items]


def _place_of(item: Any, old: tuple[Any, ...], start: int, by_object: dict[int, int]) -> int | None:
    """Return where an item stands in the old tuple, at ``start`` or later; None where it is not found."""
    if start < len(old) and (old[start] is item or old[start] == item):
        return start
    if (place := by_object.get(id(item), -1)) >= start:
        return place
    near = range(start + 1, min(start + _LOOK_AHEAD, len(old)))
    return next((place for place in near if old[place] == item), None)


def _put_together(old: tuple[Any, ...], pieces: list[Piece], kind: Any) -> tuple[Any, ...]:
    made: list[Any] = []
    for piece in pieces:
        if not 0 <= piece.start <= piece.stop <= len(old):
            raise UnfitError(f"items {piece.start} to {piece.stop} of {len(old)}")
        made += old[piece.start : piece.stop]
        try:
            made += msgspec.convert(piece.items, list[kind])
        except (msgspec.ValidationError, RecursionError) as error:
            raise UnfitError(str(error)) from None
        if len(made) > _MOST_ITEMS:
            raise UnfitError(f"more than {_MOST_ITEMS:,} items")
    return tuple(made)
