"""From what a person names to the paths of a job, in the order that is part of the bits.

An argument is one of:

- ``@list.txt``: a *manifest*, one path a line. Blank lines and lines that begin with ``#`` are passed over, a byte
  order mark and CRLF are tolerated, blanks within a line are part of the path, and relative paths start from the
  manifest's folder. Lines are paths, never patterns. A file whose own name begins with ``@`` is named ``./@name``.
- A name that exists, whatever characters it holds: a file, or a folder. A folder stands for the files directly in it
  that are not hidden; with format ``auto``, for those of them whose suffix is a known one.
- A pattern with ``*``, ``?`` or ``[...]``, where ``**`` as a whole part of the path stands for any depth of folders. As
  in the shell, hidden names are matched only by a part that begins with a dot, and ``**`` does not follow links to
  folders. A folder that a pattern matches stands for its files, unless the pattern has a ``**``, which reaches them
  itself: then for nothing.

Files from arguments other than manifests are put together and sorted by path as written, in plain byte order. Manifests
follow in the order given, each in its own order.

Files are listed without looking at each of them: that those of a manifest exist is seen when they are pinned.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final

from distsum.errors import InputListError
from distsum.paths import collected, collected_sorted
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Filter = Callable[[bytes], bool]

_MAGIC: Final = re.compile(rb"[*?[]")
_UNTIDY: Final = re.compile(rb"//|(?:^|/)\.\.?(?:/|$)")
"""What a path holds that another spelling of the same path does not."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def expand(arguments: Name | Sequence[Name], *, format: str = "auto") -> Sequence[bytes]:
    """Return the paths that the arguments name, in the documented order (see the module).

    Where they are many, they are packed (``distsum.paths``): go through them once, rather than looking one up.

    Args:
        arguments: Files, folders, patterns and manifests, or a single one; text becomes bytes as the system does it.
        format: ``auto``, where a folder stands for its files with a known suffix; or the name of a format, where it
            stands for all its files.

    Raises:
        InputListError: Nothing is named; an argument names no file, or cannot be read; a file is named twice outside of
            manifests.
    """
    if isinstance(arguments, (str, bytes, os.PathLike)):
        arguments = (arguments,)
    if not arguments:
        raise InputListError(
            "no inputs are named; name files, folders, patterns such as 'runs/*.npy', or @manifest.txt"
        )
    words = [os.fsencode(argument) for argument in arguments]
    named = [word for word in words if not word.startswith(b"@")]
    manifests = [word for word in words if word.startswith(b"@")]
    wanted = _known_suffix() if format == "auto" else _any
    paths = collected_sorted(path for word in named for path in _named(word, wanted, format))
    _refuse_repeats(paths, named, wanted, format)
    if not manifests:
        return paths
    listed = collected(path for word in manifests for path in _manifest(word))
    return collected(chain(paths, listed)) if paths else listed


def _named(argument: bytes, wanted: Filter, format: str) -> Iterator[bytes]:
    """Yield what an argument other than a manifest stands for, unsorted."""
    if not argument:
        raise InputListError("an input is an empty name; check the variables in the command")
    if b"\0" in argument:
        raise InputListError(f"{printable(argument)}: holds a NUL byte, which no path does")
    try:
        mode = os.stat(argument).st_mode
    except OSError as error:
        if _MAGIC.search(argument):
            yield from _pattern(argument, wanted)
            return
        raise InputListError(_missing(argument, error)) from None
    if stat.S_ISDIR(mode):
        yield from _folder(argument, wanted, format)
    elif stat.S_ISREG(mode):
        yield argument
    else:
        raise InputListError(
            f"{printable(argument)} is not a regular file; inputs are read more than once, so write it to a file first"
        )


def _missing(argument: bytes, error: OSError) -> str:
    why = "no such file or folder" if error.errno in {errno.ENOENT, errno.ENOTDIR} else error.strerror
    return f"{printable(argument)}: {why}"


def _folder(folder: bytes, wanted: Filter, format: str) -> Iterator[bytes]:
    """Yield the files that a folder named by the user stands for."""
    empty = True
    for path in _files_of(folder, wanted):
        empty = False
        yield path
    if not empty:
        return
    if any(_files_of(folder, _any)):
        raise InputListError(
            f"{printable(folder)}: none of the files in this folder has a known suffix; "
            "say what they are with --format npy, raw or text"
        )
    which = "file" if format == "auto" else f"file to read as {format}"
    raise InputListError(f"{printable(folder)}: this folder holds no {which}; folders within it are not searched")


def _files_of(folder: bytes, wanted: Filter) -> Iterator[bytes]:
    prefix = folder if folder.endswith(b"/") else folder + b"/"
    for entry in _scan(folder):
        name = entry.name
        if (
            not name.startswith(b".")
            and wanted(name)
            and (entry.is_file(follow_symlinks=False) or (entry.is_symlink() and _may_lead_to_file(entry.path)))
        ):
            yield prefix + name


def _may_lead_to_file(link: bytes) -> bool:
    """Whether a link is an input; one whose target is missing is, so that it is reported and not passed over."""
    try:
        return stat.S_ISREG(os.stat(link).st_mode)
    except OSError:
        return True


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _any(_name: bytes) -> bool:
    return True


def _known_suffix() -> Filter:
    """Return the test whether a name's suffix is that of a format."""
    from distsum.formats.registry import FORMATS, by_suffix

    usual = tuple(suffix.encode() for each in FORMATS.values() for suffix in each.suffixes)
    return lambda name: name.endswith(usual) or by_suffix(name) is not None


def _scan(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return  # It was there when its parent was listed, and is gone now.
    except OSError as error:
        raise InputListError(f"{printable(folder)}: this folder cannot be listed: {error.strerror}") from None


def _pattern(pattern: bytes, wanted: Filter) -> Iterator[bytes]:
    """Yield the files that a pattern matches, and those of the folders that it matches."""
    parts = [part for part in pattern.split(b"/") if part]
    deep = parts.count(b"**")
    only_folders = pattern.endswith(b"/")
    folders: list[bytes] = []

    def found() -> Iterator[bytes]:
        for path, is_folder in _matches(b"/" if pattern.startswith(b"/") else b"", parts):
            if is_folder:
                folders.append(path)
            elif not only_folders:
                yield path
        if not deep:
            for folder in folders:
                yield from _files_of(folder, wanted)

    # Parts such as **/a/** match one path in several ways.
    paths: Iterable[bytes] = dict.fromkeys(found()) if deep > 1 else found()
    empty = True
    for path in paths:
        empty = False
        yield path
    if empty:
        why = "matches only folders without inputs" if folders else "matches no file"
        raise InputListError(f"{printable(pattern)}: this pattern {why}")


def _matches(prefix: bytes, parts: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each path below a prefix that matches the parts of a pattern, and whether it is a folder."""
    head, rest = parts[0], parts[1:]
    if head == b"**":
        yield from _matches_deep(prefix, rest)
    elif _MAGIC.search(head):
        matcher = _matcher(head)
        for entry in _scan(prefix or b"."):
            if matcher(entry.name) is None:
                continue
            path = prefix + entry.name
            if not _is_folder(entry):
                if not rest:
                    yield path, False
            elif rest:
                yield from _matches(path + b"/", rest)
            else:
                yield path, True
    else:
        path = prefix + head
        if rest:
            if os.path.isdir(path):
                yield from _matches(path + b"/", rest)
        elif os.path.lexists(path):
            yield path, os.path.isdir(path)


def _matches_deep(prefix: bytes, rest: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the matches of the parts after a ``**``: in the folder itself, and in every visible one below it."""
    if rest and rest[0] == b"**":
        yield from _matches_deep(prefix, rest[1:])
        return
    waiting = [prefix]
    while waiting:
        folder = waiting.pop()
        if rest:
            yield from _matches(folder, rest)
        for entry in _scan(folder or b"."):
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(folder + entry.name + b"/")
            elif not rest and not _is_folder(entry):
                yield folder + entry.name, False


def _matcher(part: bytes) -> Callable[[bytes], re.Match[bytes] | None]:
    """Return the test of one part of a pattern; only a part that begins with a dot matches hidden names."""
    import fnmatch

    expression = fnmatch.translate(part.replace(b"[^", b"[!").decode("latin-1")).encode("latin-1")
    visible = b"" if part.startswith(b".") else rb"(?!\.)"
    return re.compile(visible + expression).match


def _manifest(argument: bytes) -> Iterator[bytes]:
    """Yield the paths that a manifest lists, in its order."""
    path = argument[1:]
    name = printable(path)
    if not path or b"\0" in path:
        raise InputListError(f"{printable(argument)} names no manifest; write @manifest.txt, or ./@ for a file named @")
    folder = os.path.dirname(path)
    prefix = folder + b"/" if folder and not folder.endswith(b"/") else folder
    empty = True
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                start = len(_BYTE_ORDER_MARK) if number == 1 and line.startswith(_BYTE_ORDER_MARK) else 0
                entry = line[start:].removesuffix(b"\n").removesuffix(b"\r")
                if not entry.strip() or entry.startswith(b"#"):
                    continue
                if b"\0" in entry:
                    raise InputListError(
                        f"{name}, line {number}: holds a NUL byte; a manifest is UTF-8 text with one path a line"
                    )
                empty = False
                yield entry if entry.startswith(b"/") else prefix + entry
    except OSError as error:
        hint = f"; for the file of that name write ./{printable(argument)}" if os.path.lexists(argument) else ""
        raise InputListError(f"manifest {_missing(path, error)}{hint}") from None
    if empty:
        raise InputListError(f"{name}: this manifest lists no file")


def _refuse_repeats(paths: Sequence[bytes], arguments: Sequence[bytes], wanted: Filter, format: str) -> None:
    """Refuse a file that is named twice, also in two spellings; links are names of their own.

    Args:
        paths: What the arguments stand for, sorted.
        arguments: Those that are no manifests.
        wanted: What a folder stands for.
        format: Likewise.
    """
    if len(arguments) == 1 and b".." not in arguments[0]:
        return
    mixed = any(map(_UNTIDY.search, paths)) or len({path[:1] == b"/" for path in paths}) > 1
    spelled = collected_sorted(map(os.path.abspath, paths)) if mixed else paths
    twice = next((one for one, other in pairwise(spelled) if one == other), None)
    if twice is None:
        return
    # A mistake, so it may cost a second look at what each argument stands for.
    named = ((path, argument) for argument in arguments for path in _named(argument, wanted, format))
    places = [(path, argument) for path, argument in named if (os.path.abspath(path) if mixed else path) == twice]
    by = " and ".join(f"'{printable(argument)}'" for _, argument in places[:2])
    raise InputListError(
        f"{printable(places[1][0] if len(places) > 1 else twice)} is named twice, by {by}; "
        "to count a file twice on purpose, list it twice in a manifest and name that as @manifest.txt"
    )
