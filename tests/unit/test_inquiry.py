"""How often a viewer asks about the node that somebody looks at, and what it shows where nobody answers."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from distsum.tui.inquiry import AGAIN_SECONDS, OTHER_SECONDS, Inquiry

from distsum.errors import UnreachableError
from distsum.messages import TaskId
from distsum.observe.subtree import NodeDetail
from distsum.service.messages import GetNode, Node, Refused
from distsum.tree import Tree

ONE, OTHER = TaskId("job", 1, 0, 1), TaskId("job", 1, 0, 2)


class Master:
    """Notes what is asked, and answers when it is told to."""

    def __init__(self):
        self.now = 0.0
        self.asked = []
        self.inquiry = Inquiry(self.ask, lambda: self.now)

    def ask(self, request):
        future = Future()
        self.asked.append((request, future))
        return future

    def answer(self, answer=None):
        request, future = self.asked[-1]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer or Node(NodeDetail(task=request.task, tree=None)))

    def look(self, task=ONE, first=0, count=5):
        return self.inquiry.detail(task, first, count)


@pytest.fixture
def master():
    return Master()


def test_one_question_at_a_time_is_asked_and_the_same_one_at_most_once_a_second(master):
    for _ in range(100):
        assert master.look() is None
        master.now += 0.1
    assert [request for request, _ in master.asked] == [GetNode(ONE, 0, 5)], "nobody has answered"
    master.answer()
    assert master.look().task == ONE
    assert len(master.asked) == 2
    master.answer()
    for _ in range(9):
        master.now += AGAIN_SECONDS / 10
        master.look()
    assert len(master.asked) == 2
    master.now += AGAIN_SECONDS / 5
    master.look()
    assert len(master.asked) == 3


def test_another_node_is_asked_about_at_once_but_not_with_each_key_of_a_race_through_the_tree(master):
    master.look()
    master.answer()
    master.now += OTHER_SECONDS
    assert master.look(OTHER) is None, "what was told of one node is not shown for another"
    assert len(master.asked) == 2
    for index in range(50):
        master.answer() if not master.asked[-1][1].done() else None
        master.now += OTHER_SECONDS / 10
        master.look(TaskId("job", 1, 0, index))
    assert len(master.asked) <= 2 + 6


def test_what_was_told_stays_where_the_master_is_away_and_is_asked_for_again(master):
    master.look()
    master.answer()
    known = master.look()
    master.now += AGAIN_SECONDS
    master.look()
    master.answer(UnreachableError("no master answers"))
    assert master.look() is known
    master.now += AGAIN_SECONDS
    master.look()
    assert len(master.asked) == 3


@pytest.mark.parametrize(
    "detail",
    [
        NodeDetail(task=OTHER, tree=None),
        NodeDetail(task=ONE, tree=Tree(files=26, fan_in=1, exponent=1)),
        NodeDetail(task=ONE, tree=Tree(files=26, fan_in=5, exponent=10**15)),
    ],
)
def test_what_is_no_answer_to_the_question_is_passed_over(master, detail):
    master.look()
    master.answer(Node(detail))
    assert master.look() is None


def test_why_nothing_is_told_is_told_harmlessly(master):
    master.look()
    master.answer(Refused("there is no job \x1b[31m\n"))
    assert master.look() == "there is no job \\x1b[31m\\n"
    master.now += AGAIN_SECONDS
    master.look()
    master.answer()
    assert master.look().task == ONE, "once it is known after all"
