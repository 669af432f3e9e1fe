"""Notes' tasks: stories that add up, notes that fit, splits apart."""

import re
from collections import Counter

import numpy as np
import pytest

from treegrpo.envs.suite.notes.env import NotesEnv
from treegrpo.envs.suite.notes.stories import COINS, PEOPLE, VALUES, Facts, tell
from treegrpo.envs.suite.notes.tasks import LEVELS, SPLITS, Script, normalised, split_of
from treegrpo.envs.tasks import Task

TASKS = {split: list(NotesEnv().tasks(split)[:100]) for split in SPLITS}
ALL = [task for tasks in TASKS.values() for task in tasks]


def script_of(task: Task) -> Script:
    return task.data["script"]


def read(messages: tuple[str, ...]) -> Facts:
    """Return what a reader of the messages knows at the end, from their words alone."""
    known: Facts = {}
    for sentence in re.findall(r"(?:A rumour says: )?[^.]+\.", " ".join(messages)):
        text = sentence.strip()
        if found := re.fullmatch(r"The (\w+) of (\w+) is (?:now )?(\w+)\.", text):
            known.setdefault(found[2], {})[found[1]] = found[3]
        elif found := re.fullmatch(r"(\w+) has (\d+) coins\.", text):
            known.setdefault(found[1], {})[COINS] = found[2]
        elif found := re.fullmatch(r"(\w+) (gets|loses) (\d) coins\.", text):
            sign = 1 if found[2] == "gets" else -1
            known[found[1]][COINS] = str(int(known[found[1]][COINS]) + sign * int(found[3]))
        elif found := re.fullmatch(r"(\w+) and (\w+) swap: each takes the (\w+) of .*", text):
            one, two, attribute = found.groups()
            known[one][attribute], known[two][attribute] = (
                known[two][attribute],
                known[one][attribute],
            )
    return known


def answer_from(known: Facts, asked: str) -> str:
    """Return the answer to a question for somebody who knows these facts."""
    if found := re.fullmatch(r"How many coins does (\w+) have\?", asked):
        return known[found[1]][COINS]
    if found := re.fullmatch(r"How many coins do (\w+) and (\w+) have together\?", asked):
        return str(int(known[found[1]][COINS]) + int(known[found[2]][COINS]))
    if found := re.fullmatch(r"What is the (\w+) of (\w+)\?", asked):
        return known[found[2]][found[1]]
    found = re.fullmatch(r"What are the (\w+) of (\w+) and the (\w+) of (\w+)\?", asked)
    assert found is not None, asked
    return f"{known[found[2]][found[1]]} and {known[found[4]][found[3]]}"


def test_the_answer_follows_from_the_messages_alone() -> None:
    for task in ALL:
        script = script_of(task)
        assert task.answer == (answer_from(read(script.messages), script.asked),)


def test_the_last_notes_say_what_a_reader_knows_and_fit() -> None:
    for task in ALL:
        script = script_of(task)
        known = read(script.messages)
        assert len(script.notes) == len(script.messages) + 1
        assert set(script.notes[0]) == {""} and len(script.notes[0]) == script.slots
        for note in script.notes[-1]:
            person, _, facts = note.partition(": ")
            assert dict(fact.split() for fact in facts.split(", ")) == known[person]
        assert max(len(note) for notes in script.notes for note in notes) <= script.note_chars


def test_every_name_fits_a_note_with_the_longest_values() -> None:
    name = max(map(len, PEOPLE))
    for shape in LEVELS.values():
        longest = sorted(len(a) + 3 + max(map(len, values)) for a, values in VALUES.items())
        assert name + sum(longest[-shape.attributes :]) <= 20 * shape.attributes


def test_levels_hold_what_they_state() -> None:
    counts: Counter[tuple[int, str]] = Counter()
    for task in TASKS["train"]:
        shape, script = LEVELS[task.difficulty], script_of(task)
        text = " ".join(script.messages)
        assert script.slots == shape.people
        assert text.count("A rumour says") == shape.rumours
        assert len(re.findall(r"is now|gets|loses|swap:", text)) == shape.updates
        sentences = text.count(".")
        assert len(script.messages) == -(-sentences // shape.per_message)
        counts[task.difficulty, "two"] += " and " in script.asked
        counts[task.difficulty, "sum"] += "together" in script.asked
    assert {level for level, kind in counts if counts[level, kind]} == {4, 5}


def test_who_stops_listening_half_way_is_mostly_wrong() -> None:
    """What was noted early is overruled, so notes have to be rewritten."""
    tasks = [task for task in ALL if task.difficulty == 5]
    stale = 0
    for task in tasks:
        script = script_of(task)
        # Two thirds of the facts about those asked about are told in the first eight messages.
        known = read(script.messages[:8])
        try:
            stale += answer_from(known, script.asked) != task.answer[0]
        except KeyError:
            stale += 1
    assert stale > len(tasks) / 2


def test_a_task_depends_on_split_and_index_alone() -> None:
    for split in SPLITS:
        again = NotesEnv().tasks(split)
        for index in (99, 3, 57):
            assert again[index] == TASKS[split][index]


def test_no_task_is_in_two_splits_or_twice_in_one() -> None:
    contents = {str((script_of(task).messages, script_of(task).asked)) for task in ALL}
    assert len({task.id for task in ALL}) == len(contents) == 300
    for split, tasks in TASKS.items():
        assert {split_of(task.id.removeprefix("notes-")) for task in tasks} == {split}


def test_the_opening_says_whom_it_is_about_and_nothing_more() -> None:
    for task in ALL:
        script = script_of(task)
        people = set(re.findall(r"[A-Z]\w+", task.question)) - {"You"}
        assert people == {note.partition(":")[0] for note in script.notes[-1]}
        assert set(re.findall(r"[A-Z]\w+", script.asked)) - {"How", "What"} <= people


def test_coins_stay_countable() -> None:
    rng = np.random.default_rng(0)
    coins = [
        int(facts[COINS])
        for _ in range(100)
        for truth in tell(rng, LEVELS[5]).truth
        for facts in truth.values()
        if COINS in facts
    ]
    assert min(coins) >= 1 and 30 < max(coins) < 40


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Oslo", " oslo. ", True),
        ("the red cat", "Red  cat!", True),
        ("5", "5 coins", False),
        ("Oslo and cat", "cat and Oslo", False),
        ("An", "", True),
        ("12", "1 2", False),
    ],
)
def test_answers_are_compared_by_their_words(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same
