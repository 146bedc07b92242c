"""Answers that runs of the tests share: the same to the last bit, and only to the same question."""

from __future__ import annotations

import numpy as np
import pytest
from support import judgements


@pytest.fixture
def ask(tmp_path, monkeypatch):
    monkeypatch.setattr(judgements, "FOLDER", str(tmp_path))
    asked = []

    def judge(x, options):
        asked.append(x)
        return {"y": x / 3, **options}

    judge.asked = asked
    return judgements.shared(judge)


def test_a_question_is_answered_once(ask, tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    first, second = ask(x, {"a": 1}), ask(x.copy(), {"a": 1})
    assert len(ask.__wrapped__.asked) == len(list(tmp_path.iterdir())) == 1
    assert first.keys() == second.keys()
    assert first["y"].tobytes() == second["y"].tobytes()


def test_another_question_has_an_answer_of_its_own(ask, monkeypatch):
    x = np.zeros(3)
    questions = [(x, {}), (-x, {}), (x.astype(np.float32), {}), (x.reshape(3, 1), {}), (x, {"a": 1}), (x, {"a": 1.0})]
    for question in questions:
        ask(*question)
    assert len(ask.__wrapped__.asked) == len(questions)
    monkeypatch.setattr(judgements, "judges", lambda: b"other sources")
    ask(x, {})
    assert len(ask.__wrapped__.asked) == len(questions) + 1


def test_every_run_judges_for_itself_unless_told(monkeypatch):
    monkeypatch.setattr(judgements, "FOLDER", "")

    def judge(x):
        return x

    assert judgements.shared(judge) is judge
