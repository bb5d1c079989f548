"""Questions whose answer may not come."""

from threading import Event

import pytest

from jobs.asking import Asking


def test_silence_is_an_answer_and_nobody_asks_again_meanwhile():
    asked, told = [], Event()

    def question():
        asked.append(1)
        told.wait(20)
        return "here"

    asking = Asking(question, "silent", patience_s=0.05)
    assert [asking(), asking()] == ["silent", "silent"]
    assert len(asked) == 1
    told.set()
    assert asking() == "here"


def test_every_answer_is_a_new_one():
    answers = iter("ab")
    asking = Asking(lambda: next(answers), "silent")
    assert [asking(), asking()] == ["a", "b"]


def test_what_goes_wrong_goes_wrong_for_who_asks():
    asking = Asking(lambda: 1 / 0, 0)
    with pytest.raises(ZeroDivisionError):
        asking()
