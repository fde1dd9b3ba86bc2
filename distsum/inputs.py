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

An argument may also be ``s3://bucket/key``. The same rules hold, with these differences: a name that ends with ``/``,
or that is no object but has objects below it, is a folder; the bucket is never a pattern; and a manifest may itself lie
in S3. What begins with ``s3://`` on this machine's disks is named ``./s3://...``.

Files are listed without looking at each of them: that those of a manifest exist is seen when they are pinned.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
from itertools import chain, pairwise
from typing import IO, TYPE_CHECKING, Final

from distsum.errors import InputListError
from distsum.paths import collected, collected_sorted
from distsum.stores.routing import RoutingStore, absolute, bucket_of, foreign, is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Matcher = Callable[[bytes], re.Match[bytes] | None]
    Filter = Callable[[bytes], bool]

_MAGIC: Final = re.compile(rb"[*?[]")
_UNTIDY: Final = re.compile(rb"//|(?:^|/)\.\.?(?:/|$)")
"""What a path holds that another spelling of the same path does not."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def expand(
    arguments: Name | Sequence[Name], *, format: str = "auto", store: RoutingStore | None = None
) -> Sequence[bytes]:
    """Return the paths that the arguments name, in the documented order (see the module).

    Where they are many, they are packed (``distsum.paths``): go through them once, rather than looking one up.

    Args:
        arguments: Files, folders, patterns and manifests, or a single one; text becomes bytes as the system does it.
        format: ``auto``, where a folder stands for its files with a known suffix; or the name of a format, where it
            stands for all its files.
        store: What lists ``s3://``; None for one of its own.

    Raises:
        UnreachableError: S3 cannot be used.
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
    if store is None:
        with contextlib.closing(RoutingStore()) as own:
            return _expanded(words, format, own)
    return _expanded(words, format, store)


def _expanded(words: Sequence[bytes], format: str, store: RoutingStore) -> Sequence[bytes]:
    named = [word for word in words if not word.startswith(b"@")]
    manifests = [word for word in words if word.startswith(b"@")]
    wanted = _known_suffix() if format == "auto" else _any

    def stands_for(word: bytes) -> Iterator[bytes]:
        return _named(word, wanted, format, store)

    paths = collected_sorted(chain.from_iterable(map(stands_for, named)))
    _refuse_repeats(paths, named, stands_for)
    if not manifests:
        return paths
    listed = collected(path for word in manifests for path in _manifest(word, store))
    return collected(chain(paths, listed)) if paths else listed


def _named(argument: bytes, wanted: Filter, format: str, store: RoutingStore) -> Iterator[bytes]:
    """Yield what an argument other than a manifest stands for, unsorted."""
    if not argument:
        raise InputListError("an input is an empty name; check the variables in the command")
    if b"\0" in argument:
        raise InputListError(f"{printable(argument)}: holds a NUL byte, which no path does")
    if is_remote(argument):
        yield from _named_object(argument, wanted, format, store)
        return
    try:
        mode = os.stat(argument).st_mode
    except OSError as error:
        if _MAGIC.search(argument) and foreign(argument) is None:
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
    if (remedy := foreign(argument)) is not None:
        why = remedy
    return f"{printable(argument)}: {why}"


def _folder(folder: bytes, wanted: Filter, format: str) -> Iterator[bytes]:
    """Yield the files that a folder named by the user stands for."""
    empty = True
    for path in _files_of(folder, wanted):
        empty = False
        yield path
    if empty:
        raise _without_inputs(folder, format, others=any(_files_of(folder, _any)))


def _without_inputs(folder: bytes, format: str, *, others: bool) -> InputListError:
    """Return the error that tells that a folder stands for nothing."""
    if others:
        return InputListError(
            f"{printable(folder)}: none of the files in this folder has a known suffix; "
            "say what they are with --format npy, raw or text"
        )
    which = "file" if format == "auto" else f"file to read as {format}"
    return InputListError(f"{printable(folder)}: this folder holds no {which}; folders within it are not searched")


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


def _manifest(argument: bytes, store: RoutingStore) -> Iterator[bytes]:
    """Yield the paths that a manifest lists, in its order."""
    path = argument[1:]
    name = printable(path)
    if not path or b"\0" in path:
        raise InputListError(f"{printable(argument)} names no manifest; write @manifest.txt, or ./@ for a file named @")
    folder = os.path.dirname(path)
    prefix = folder + b"/" if folder and not folder.endswith(b"/") else folder
    empty = True
    try:
        with _opened(path, store) as lines:
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
                yield entry if entry.startswith(b"/") or is_remote(entry) else prefix + entry
    except OSError as error:
        hint = f"; for the file of that name write ./{printable(argument)}" if os.path.lexists(argument) else ""
        raise InputListError(f"manifest {_missing(path, error)}{hint}") from None
    if empty:
        raise InputListError(f"{name}: this manifest lists no file")


def _opened(path: bytes, store: RoutingStore) -> IO[bytes]:
    """Open a manifest as lines."""
    if not is_remote(path):
        return open(path, "rb")
    store.preflight(path)
    reader = store.open(path)
    if reader is None:
        raise InputListError(f"manifest {printable(path)}: no such object")
    with reader:
        return io.BytesIO(reader.read(0, reader.size))


# In S3 ----------------------------------------------------------------------------------------------------------------


def _named_object(argument: bytes, wanted: Filter, format: str, store: RoutingStore) -> Iterator[bytes]:
    """Yield what an argument in S3 stands for, unsorted."""
    bucket = bucket_of(argument)
    store.preflight(bucket)
    key = argument.removeprefix(bucket).removeprefix(b"/")
    if key and not argument.endswith(b"/") and store.exists(argument):
        yield argument
        return
    folder = argument.rstrip(b"/") + b"/"
    empty, others = True, False
    for name in store.s3.children(folder):
        if name.startswith(b"."):
            continue
        others = True
        if wanted(name):
            empty = False
            yield folder + name
    if not empty:
        return
    if others:
        raise _without_inputs(folder, format, others=True)
    if not _MAGIC.search(key):
        raise InputListError(f"{printable(argument)}: no such object, and none below it")
    yield from _object_pattern(argument, bucket + b"/", key, wanted, store)


def _object_pattern(
    argument: bytes, root: bytes, pattern: bytes, wanted: Filter, store: RoutingStore
) -> Iterator[bytes]:
    """Yield the objects that a pattern matches, and those in the folders that it matches."""
    parts = [part for part in pattern.split(b"/") if part]
    matchers = [None if part == b"**" else _matcher(part) for part in parts]
    literal = pattern[: next(_MAGIC.finditer(pattern)).start()]
    only_folders = pattern.endswith(b"/")
    empty, folders = True, False
    for rest in store.s3.keys(root + literal):
        key = literal + rest
        names = key.split(b"/")
        if only_folders or not _matches_key(matchers, names):
            if None in matchers or len(names) == 1 or not _matches_key(matchers, names[:-1]):
                continue
            folders = True
            if names[-1].startswith(b".") or not wanted(names[-1]):
                continue
        empty = False
        yield root + key
    if empty:
        why = "matches only folders without inputs" if folders else "matches no object"
        raise InputListError(f"{printable(argument)}: this pattern {why}")


def _matches_key(matchers: Sequence[Matcher | None], names: Sequence[bytes]) -> bool:
    """Whether the parts of a key match those of a pattern; None stands for ``**``."""
    if not matchers:
        return not names
    if matchers[0] is None:
        # Any depth of visible folders; as the last part, also the object in them.
        depth = 0
        while depth < len(names) and not names[depth].startswith(b"."):
            depth += 1
        if len(matchers) == 1:
            return depth == len(names)
        return any(_matches_key(matchers[1:], names[start:]) for start in range(min(depth, len(names) - 1) + 1))
    return bool(names) and matchers[0](names[0]) is not None and _matches_key(matchers[1:], names[1:])


def _refuse_repeats(
    paths: Sequence[bytes], arguments: Sequence[bytes], stands_for: Callable[[bytes], Iterable[bytes]]
) -> None:
    """Refuse a file that is named twice, also in two spellings; links are names of their own.

    Args:
        paths: What the arguments stand for, sorted.
        arguments: Those that are no manifests.
        stands_for: Tells what one of them stands for.
    """
    if len(arguments) == 1 and b".." not in arguments[0]:
        return
    # In S3 there is one spelling only: s3://b/a//c and s3://b/a/c are two objects.
    mixed = any(map(_UNTIDY.search, paths)) or len({path[:1] == b"/" for path in paths}) > 1
    spelled = collected_sorted(map(absolute, paths)) if mixed else paths
    twice = next((one for one, other in pairwise(spelled) if one == other), None)
    if twice is None:
        return
    # A mistake, so it may cost a second look at what each argument stands for.
    named = ((path, argument) for argument in arguments for path in stands_for(argument))
    places = [(path, argument) for path, argument in named if (absolute(path) if mixed else path) == twice]
    by = " and ".join(f"'{printable(argument)}'" for _, argument in places[:2])
    raise InputListError(
        f"{printable(places[1][0] if len(places) > 1 else twice)} is named twice, by {by}; "
        "to count a file twice on purpose, list it twice in a manifest and name that as @manifest.txt"
    )
