"""One node of a job's tree, looked at closely: where it stands, what it is made of, and who has made it (pure).

Of a job with a million tasks nobody can be sent all of this, so it is made of the one node that somebody looks at, and
of those of its children that are in sight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from distsum.messages import TaskId
from distsum.observe.attempts import Attempt, AttemptTable
from distsum.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

CHILDREN_TOLD: Final = 200
ATTEMPTS_TOLD: Final = 100
_MOST_EXPONENT: Final = 64


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A child of a node: an input, or another node.

    Attributes:
        phase: Of the task that makes it; 0 is an input.
        index: In its phase, or in the job's list of inputs.
        name: Of an input, harmless to show.
        attempts: At a node, so far.
        worker: Who makes or has made it, by the last attempt at it.
        began_seconds: When that began; None where nobody has told.
        ended_seconds: When it ended; None while it runs.
    """

    phase: int
    index: int
    name: str = ""
    attempts: int = 0
    worker: str = ""
    began_seconds: float | None = None
    ended_seconds: float | None = None


class NodeDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A node at one moment.

    Attributes:
        task: What makes it.
        tree: The tree that it stands in; None where that is not known.
        attempts: Those at it, in the order in which they began; the last ones, where there are many.
        attempts_cut: Attempts before them, which are not told.
        first: The place of the first of ``children`` among all children of the node.
        children: Some of its children, in order.
    """

    task: TaskId
    tree: Tree | None
    attempts: tuple[Attempt, ...] = ()
    attempts_cut: int = 0
    first: int = 0
    children: tuple[Child, ...] = ()


def node_detail(
    task: TaskId, tree: Tree | None, table: AttemptTable, name_of: Callable[[int], str], first: int, count: int
) -> NodeDetail:
    """Return what is known of a node; that costs the more, the more children are asked for, and little otherwise.

    Args:
        task: What makes it.
        tree: The tree; None where it is not known, and then there are no children to tell of.
        table: The job's attempts.
        name_of: Tells the name of an input, harmless to show.
        first: The place of the first child that is wanted.
        count: How many are; of more than ``CHILDREN_TOLD`` so many are told.
    """
    attempts = table.attempts(task)
    children: tuple[Child, ...] = ()
    if tree is not None:
        places = children_of(tree, task)
        first = min(max(0, first), len(places))
        shown = places[first : first + min(max(0, count), CHILDREN_TOLD)]
        children = tuple(_child(tree, task, number, table, name_of) for number in shown)
    return NodeDetail(
        task=task,
        tree=tree,
        attempts=attempts[-ATTEMPTS_TOLD:],
        attempts_cut=max(0, len(attempts) - ATTEMPTS_TOLD),
        first=first,
        children=children,
    )


def _child(tree: Tree, task: TaskId, number: int, table: AttemptTable, name_of: Callable[[int], str]) -> Child:
    if task.phase == 1:
        return Child(phase=0, index=number, name=name_of(number))
    made = maker_of(tree, TaskId(task.job, task.phase - 1, task.tile, number))
    attempts = [each for each in table.attempts(made) if each.child is None]
    if not attempts:
        return Child(phase=made.phase, index=made.index)
    # One that runs says more than one that was called back, whichever began first.
    last = next((each for each in reversed(attempts) if each.end in {"running", "done"}), attempts[-1])
    return Child(
        phase=made.phase,
        index=made.index,
        attempts=len(attempts),
        worker=last.worker,
        began_seconds=last.began_seconds,
        ended_seconds=last.ended_seconds,
    )


# The tree -------------------------------------------------------------------------------------------------------------


def is_whole(tree: Tree) -> bool:
    """Whether a tree from elsewhere is one; to ask anything else of one that is not may take forever.

    >>> is_whole(Tree(files=26, fan_in=5, exponent=1)), is_whole(Tree(files=26, fan_in=1, exponent=1))
    (True, False)
    """
    return tree.files >= 1 and tree.fan_in >= 2 and 1 <= tree.exponent <= _MOST_EXPONENT


def exists(tree: Tree, task: TaskId) -> bool:
    """Whether a task's phase and index are in the tree."""
    return 1 <= task.phase <= tree.phases and 0 <= task.index < tree.tasks(task.phase)


def maker_of(tree: Tree, node: TaskId) -> TaskId:
    """Return the task that makes a node: another one where the node is its only child."""
    phase, index = tree.maker(node.phase, node.index)
    return TaskId(node.job, phase, node.tile, index)


def node_above(tree: Tree, task: TaskId) -> TaskId | None:
    """Return the task that folds a node; None of the root.

    >>> tree = Tree(files=26, fan_in=5, exponent=1)
    >>> node_above(tree, TaskId("job", 1, 0, 5)), node_above(tree, TaskId("job", 3, 0, 0))
    (TaskId(job='job', phase=3, tile=0, index=0), None)
    """
    phase, index = task.phase, task.index
    while phase < tree.phases:
        phase, index = phase + 1, index // tree.partition
        if not tree.passes_through(phase, index):
            return TaskId(task.job, phase, task.tile, index)
    return None


def path_of(tree: Tree, task: TaskId) -> tuple[TaskId, ...]:
    """Return the nodes from the root down to a task's."""
    path = [task]
    while (above := node_above(tree, path[-1])) is not None:
        path.append(above)
    return tuple(reversed(path))


def children_of(tree: Tree, task: TaskId) -> range:
    """Return the indices of a task's children: inputs, or nodes of the phase below."""
    return range(*tree.children(task.phase, task.index))


def child_at(tree: Tree, task: TaskId, place: int) -> TaskId | None:
    """Return the task that makes a child, by its place among the children; None where that is an input, or none."""
    children = children_of(tree, task)
    if task.phase == 1 or not 0 <= place < len(children):
        return None
    return maker_of(tree, TaskId(task.job, task.phase - 1, task.tile, children[place]))


def place_in(tree: Tree, above: TaskId, task: TaskId) -> int:
    """Return the place of a task's node among the children of a node above it.

    >>> tree = Tree(files=26, fan_in=5, exponent=1)
    >>> place_in(tree, TaskId("job", 3, 0, 0), TaskId("job", 1, 0, 5))
    1
    """
    index = task.index // int(tree.partition ** (above.phase - 1 - task.phase))
    return index - tree.children(above.phase, above.index)[0]


def leaves_of(tree: Tree, task: TaskId) -> range:
    """Return the indices of the tasks of the first phase that a node stands on."""
    span = int(tree.partition ** (task.phase - 1))
    return range(task.index * span, min(tree.tasks(1), (task.index + 1) * span))
