"""treegrpo.importance: weights by hand, what forks teach, state that resumes to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import pytest

from treegrpo.credit import Credit, get_credit
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.importance import (
    DECAY,
    EXPLORATION,
    MIN_PAIRS,
    Learned,
    drop_importance,
    get_importance,
    importance,
    step_class,
    turn,
)
from treegrpo.tree import Failure, Node, Tree


def prompt() -> Tree:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    return tree


def step(
    tree: Tree, above: int, action: int, reward: float = 0.0, failure: Failure | None = None
) -> int:
    return tree.add(
        above, action_ids=[action], action_logps=[-1.0], reward=reward, failure=failure
    ).id


def bush(outcomes: Sequence[tuple[int, float]]) -> Tree:
    """One first step that forks into a step per (action, reward)."""
    tree = prompt()
    above = step(tree, 0, 9)
    for action, reward in outcomes:
        step(tree, above, action, reward)
    return tree


def mean_weight(weights: list[list[dict[int, float]]]) -> float:
    numbers = [w for trees in weights for one in trees for w in one.values()]
    return math.fsum(numbers) / len(numbers)


def taught(name: str = "learned") -> Learned:
    """The second step decides (dV^2 1 against 0), the first does nothing (0 against 0)."""
    learned = get_importance(name)
    assert isinstance(learned, Learned)
    decides = bush([(1, 1.0), (2, 0.0)] * 20)
    other = bush([(1, 1.0), (2, 0.0)] * 20)
    other.nodes[1].action_ids = [8]
    # 40 trees: 20 first steps of each action, all of the same value.
    learned.observe([[decides, other] * 20])
    return learned


@pytest.fixture
def mine() -> Iterator[str]:
    yield "mine"
    drop_importance("mine")


def test_uniform_changes_nothing() -> None:
    trees = [bush([(1, 1.0), (2, 0.0)]), bush([(1, 0.5)])]
    credits = [get_credit("group")(trees)]
    uniform = get_importance("uniform")
    uniform.observe([trees])
    assert uniform.apply([trees], credits) == credits
    assert uniform.weights([trees]) == [[{1: 1.0, 2: 1.0, 3: 1.0}, {1: 1.0, 2: 1.0}]]
    assert uniform.state() == {}


def test_a_users_function_multiplies_each_step(mine: str) -> None:
    @importance(mine)
    def weight(tree: Tree, node: Node) -> float:
        return 0.0 if tree.nodes[node.id].depth == 1 else 2.5

    tree = bush([(1, 1.0), (2, 0.0), (3, 0.0)])
    tree.nodes[4].failure = "tool"
    # Nobody asks for the weight of a step without a scored leaf; it has no credit.
    assert get_importance(mine).weights([[tree]]) == [[{1: 0.0, 2: 2.5, 3: 2.5}]]
    credits: list[Credit] = [{2: [3.0, 4.0], 3: [5.0, -6.0], 4: [1.0, 7.0]}]
    assert get_importance(mine).apply([[tree]], [credits]) == [
        [{2: [0.0, 10.0], 3: [0.0, -15.0], 4: [0.0, 0.0]}]
    ]
    assert weight(tree, tree.nodes[2]) == 2.5


@pytest.mark.parametrize("number", [-0.1, math.nan, math.inf])
def test_a_users_number_is_checked(number: float, mine: str) -> None:
    importance(mine)(lambda _tree, node: number if node.depth == 2 else 1.0)
    with pytest.raises(TreegrpoError, match=f"'mine' .* node 2 of question 'q' {number}"):
        get_importance(mine).weights([[bush([(1, 1.0)])]])


def test_a_users_function_that_raises_is_told_with_its_line(mine: str) -> None:
    importance(mine)(lambda _tree, _node: 1 / 0)
    with pytest.raises(TreegrpoError, match=r"Importance 'mine' raised ZeroDivisionError at test_"):
        get_importance(mine).weights([[bush([(1, 1.0)])]])


def test_the_estimate_by_hand() -> None:
    """Actions 1, 1, 2 with values 1, 0, 0: other (1 + 0) / 2, same 1."""
    learned = Learned("learned", turn)
    learned.observe([[bush([(1, 1.0), (1, 0.0), (2, 0.0)])]])
    assert learned.state() == {"2": [1.0, 2.0, 1.0, 1.0]}
    # Two more of the same: the old ones have faded by then.
    learned.observe([[bush([(1, 1.0), (1, 0.0), (2, 0.0)])]] * 2)
    assert learned.state() == {
        "2": [DECAY + 2, 2 * DECAY + 4, DECAY + 2, DECAY + 2],
    }


def test_values_are_mean_rewards_of_scored_leaves() -> None:
    tree = prompt()
    first, second = step(tree, 0, 1), step(tree, 0, 2)
    for reward in (1.0, 0.0, 0.5):
        step(tree, first, 3, reward)
    step(tree, first, 3, 100.0, failure="tool")
    step(tree, second, 3, 2.0)
    dead = step(tree, 0, 4)
    step(tree, dead, 3, 50.0, failure="grader")
    learned = Learned("learned", turn)
    learned.observe([[tree]])
    # V = 1/2 and 2; the step without a scored leaf is nobody's sibling.
    assert learned.state() == {"1": [1.5**2, 1.0, 0.0, 0.0], "2": [0.0, 0.0, 1.5, 3.0]}


def test_trunks_of_one_question_are_siblings() -> None:
    one, two = prompt(), prompt()
    step(one, 0, 1, 1.0)
    step(two, 0, 2, 0.5)
    learned = Learned("learned", turn)
    learned.observe([[one, two, prompt()]])
    assert learned.state() == {"1": [0.25, 1.0, 0.0, 0.0]}
    # Questions are not compared.
    apart = Learned("learned", turn)
    apart.observe([[one], [two]])
    assert apart.state() == {}


def test_learned_is_uniform_until_a_class_has_enough_pairs() -> None:
    batch = [[bush([(1, 1.0), (1, 1.0), (2, 0.0)])]]
    learned = Learned("learned", turn)
    assert learned.weights(batch) == [[{1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}]]
    # Two pairs of other actions and one of the same, by batch.
    learned.load({"2": [30.0, 30.0, 0.0, MIN_PAIRS - 0.5], "1": [0.0, 30.0, 0.0, 30.0]})
    assert learned.importance("2") is None
    assert learned.importance("1") == 0.0
    assert set(learned.weights(batch)[0][0].values()) == {1.0}
    learned.load({"2": [30.0, 30.0, 0.0, MIN_PAIRS], "1": [0.0, 30.0, 0.0, 30.0]})
    assert learned.importance("2") == 1.0
    # Four steps, three of them of importance 1 and one of 0: the mean is 3/4.
    high = EXPLORATION + (1 - EXPLORATION) * 4 / 3
    assert learned.weights(batch)[0][0] == pytest.approx(
        {1: EXPLORATION, 2: high, 3: high, 4: high}
    )
    assert mean_weight(learned.weights(batch)) == pytest.approx(1)


def test_an_unknown_class_weighs_one_beside_known_ones() -> None:
    learned = Learned("learned", turn)
    learned.load({"1": [0.0, 40.0, 0.0, 40.0], "2": [40.0, 40.0, 0.0, 40.0]})
    tree = prompt()
    deep = step(tree, step(tree, step(tree, 0, 1), 1), 1)
    weights = learned.weights([[tree]])
    assert weights[0][0][deep] == 1.0
    assert weights[0][0] == pytest.approx({1: 0.15, 2: 1.85, 3: 1.0})


def test_a_negative_estimate_counts_as_zero() -> None:
    learned = Learned("learned", turn)
    learned.load({"1": [0.0, 40.0, 40.0, 40.0], "2": [20.0, 40.0, 0.0, 40.0]})
    assert learned.importance("1") == 0.0
    assert learned.importance("2") == 0.5


def test_rounding_errors_teach_nothing() -> None:
    """Values that are equal, one of them a mean of three: 0.1 + 0.1 + 0.1 is not 0.3."""
    learned = Learned("learned", turn)
    tree = prompt()
    for number in range(30):
        above = step(tree, 0, 1 + number % 2)
        for _ in range(1 + 2 * (number % 3)):
            step(tree, above, 3, 0.1)
    learned.observe([[tree]])
    assert learned.importance("1") == 0.0
    # Noise of one size, whatever was done: what the sums leave of it by rounding.
    learned.load({"1": [0.1 * 3, 30.0, 0.3, 30.0], "2": [0.0, 30.0, 0.0, 30.0]})
    assert 0.1 * 3 > 0.3
    assert learned.importance("1") == 0.0


def test_forks_teach_which_step_decides() -> None:
    learned = taught()
    assert learned.importance("1") == 0.0
    assert learned.importance("2") == 1.0
    batch = [[bush([(1, 1.0)])], [bush([(2, 0.0)])]]
    weights = learned.weights(batch)
    assert weights == [[pytest.approx({1: 0.15, 2: 1.85})]] * 2
    credits: list[list[Credit]] = [[{2: [1.0, 1.0]}], [{2: [-1.0, -1.0]}]]
    weighed = learned.apply(batch, credits)
    assert weighed[1][0][2] == pytest.approx([-0.15, -1.85])
    assert credits[1][0][2] == [-1.0, -1.0], "the credit given is not touched"


def test_the_noise_of_equal_actions_is_taken_off() -> None:
    """A coin decides: siblings differ as much after the same action as after another."""
    learned = Learned("learned", turn)
    learned.observe([[bush([(1, 1.0), (1, 0.0), (2, 1.0), (2, 0.0)] * 10)]])
    _, num_other, _, num_same = learned.state()["2"]
    assert min(num_other, num_same) > MIN_PAIRS
    assert learned.importance("2") == 0.0


def test_state_resumes_to_the_bit() -> None:
    learned, batch = taught(), [[bush([(1, 0.1), (1, 0.7), (2, 1 / 3)])]]
    learned.observe(batch)
    resumed = get_importance("learned")
    saved = json.loads(json.dumps(learned.state(), allow_nan=False))
    resumed.load(saved)
    for _ in range(3):
        learned.observe(batch)
        resumed.observe(batch)
    assert resumed.state() == learned.state()
    assert resumed.weights(batch) == learned.weights(batch)
    assert saved != learned.state(), "what was saved does not change with the run"
    assert get_importance("learned").state() == {}, "a new trainer starts anew"


def test_state_that_was_returned_is_a_copy() -> None:
    learned = taught()
    learned.state()["2"][0] = -1.0
    assert learned.importance("2") == 1.0


def test_a_step_class_of_ones_own(mine: str) -> None:
    @step_class(mine)
    def parity(_tree: Tree, node: Node) -> str:
        return "even" if node.depth % 2 == 0 else "odd"

    learned = taught(mine)
    assert set(learned.state()) == {"even", "odd"}
    assert learned.importance("even") == 1.0


def test_a_class_that_looks_at_the_action_is_refused(mine: str) -> None:
    step_class(mine)(lambda _tree, node: str(node.action_ids[0]))
    learned = get_importance(mine)
    with pytest.raises(TreegrpoError, match="siblings, but their step classes are '1' and '2'"):
        learned.observe([[bush([(1, 1.0), (2, 0.0)])]])


def test_wrong_names_are_refused() -> None:
    with pytest.raises(
        UnknownOption, match=r"Unknown importance 'unifrom'\. Did you mean 'uniform'"
    ):
        get_importance("unifrom")
