"""What a conversation cost: each node once, whatever its shape, and never less than it seems."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from owed_answers import KINDS, Owed, completed, priced, unknown

import minillmlib
from minillmlib import (
    ChatNode,
    CostTotal,
    Message,
    ServerError,
)
from minillmlib.testing import ScriptedReply

NODES = 500


class Grown:
    """A tree that was made by real completions, and our own books on it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nodes = [ChatNode.root("Be brief.")]
        self.parents = [-1]
        self.owed = [Owed()]

    async def grow(self) -> None:
        # Some trees are broad, some deep.
        place = max(self.rng.randrange(len(self.nodes)) for _ in range(self.rng.randint(1, 3)))
        node = self.nodes[place]
        if self.rng.random() < 0.2:
            self._add(place, node.add_user("Hm."), Owed())
            return
        script = self.rng.choice(KINDS)(self.rng)
        if place == 0 or self.rng.random() < 0.5:
            node = node.add_user("Go on.")
            self._add(place, node, Owed())
            place = len(self.nodes) - 1
        self._add(place, await completed(node, script), script.owed)

    def _add(self, parent: int, node: ChatNode, owed: Owed) -> None:
        self.nodes.append(node)
        self.parents.append(parent)
        self.owed.append(owed)

    def below(self) -> list[Owed]:
        """What each node and all below it cost, by brute force."""
        sums = list(self.owed)
        for place in range(len(sums) - 1, 0, -1):
            parent = self.parents[place]
            sums[parent] = sums[parent].plus(sums[place])
        return sums

    def above(self) -> list[Owed]:
        """What each node and all before it cost, by brute force."""
        sums = [self.owed[0]]
        for place in range(1, len(self.owed)):
            sums.append(self.owed[place].plus(sums[self.parents[place]]))
        return sums


@pytest.fixture(params=[1, 2, 3])
async def grown(request):
    tree = Grown(random.Random(request.param))
    while len(tree.nodes) < NODES:
        await tree.grow()
    return tree


async def test_a_tree_costs_what_its_messages_cost(grown):
    nodes = grown.nodes
    assert [node.cost for node in nodes] == [owed.total for owed in grown.owed]
    assert [node.subtree_cost() for node in nodes] == [owed.total for owed in grown.below()]
    assert [node.path_cost() for node in nodes] == [owed.total for owed in grown.above()]
    for node in nodes:
        below = (child.subtree_cost() for child in node.children())
        assert node.subtree_cost() == sum(below, node.cost)
        before = CostTotal() if node.parent is None else node.parent.path_cost()
        assert node.path_cost() == before + node.cost
    whole = nodes[0].subtree_cost()
    assert not whole.is_exact
    assert whole.unpriced > 0 < whole.unknown
    assert whole.cost == Decimal(sum(owed.millionths for owed in grown.owed)) / 10**6


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_costs_all_attempts_at_it(kind):
    script = kind(random.Random(7))
    node = await completed(ChatNode.root("Be brief.").add_user("Hi"), script)
    assert node.cost == node.path_cost() == node.parent.subtree_cost() == script.owed.total
    assert len(node.response.attempts) == len(script.replies)


async def test_a_shared_beginning_counts_once():
    rng = random.Random(8)
    shared, left, right = (priced(rng) for _ in range(3))
    root = ChatNode.root("Be brief.")
    trunk = await root.chat("Hi", shared.generator)
    one = await trunk.chat("And so?", left.generator)
    two = await trunk.chat("Or else?", right.generator)
    assert root.subtree_cost() == shared.owed.plus(left.owed).plus(right.owed).total
    assert one.path_cost() == shared.owed.plus(left.owed).total
    assert two.path_cost() == shared.owed.plus(right.owed).total
    twice = one.path_cost() + two.path_cost()
    assert twice == root.subtree_cost() + trunk.cost


async def test_a_call_that_fails_costs_the_tree_nothing_and_its_error_tells_the_bill():
    root = ChatNode.root("Be brief.")
    script = unknown(random.Random(9))
    failed = ScriptedReply.json({"error": {"message": "broke"}}, status=500)
    with pytest.raises(ServerError) as caught:
        await root.chat("Hi", script._replace(replies=[failed]).generator)
    assert root.subtree_cost() == CostTotal()
    costs = CostTotal.of(attempt.cost for attempt in caught.value.attempts)
    assert costs == CostTotal(unknown=1)


def test_messages_that_no_model_wrote_cost_nothing():
    root, leaf = ChatNode.from_messages([Message.system("s"), Message.user("u")])
    assistant = leaf.add_assistant("made up")
    assert root.subtree_cost() == assistant.path_cost() == assistant.cost == CostTotal()
    assert assistant.path_cost().is_exact


def test_a_conversation_of_a_hundred_thousand_messages_is_added_up():
    turns = [Message.user("u"), Message.assistant("a")] * 50_000
    root, leaf = ChatNode.from_messages([Message.system("s"), *turns])
    assert root.subtree_cost() == leaf.path_cost() == leaf.subtree_cost() == CostTotal()
    script = priced(random.Random(10))
    answered = minillmlib.run(leaf.chat("Hi", script.generator))
    assert root.subtree_cost() == answered.path_cost() == script.owed.total
    assert leaf.path_cost() == CostTotal()


def test_a_node_with_ten_thousand_answers_is_added_up():
    root = ChatNode.root("Be brief.")
    for place in range(10_000):
        root.add_user(str(place))
    script = priced(random.Random(11))
    answered = minillmlib.run(root.children()[5000].complete(script.generator))
    assert root.subtree_cost() == answered.cost == script.owed.total
