import time

from worker.cadence import Cadence


def test_it_is_due_after_its_seconds_and_not_before():
    cadence = Cadence(0.05)
    assert not cadence.due()

    time.sleep(0.06)

    assert cadence.due()
    with cadence.turn():
        pass
    assert not cadence.due()


def test_at_once_means_now_and_zero_means_always():
    assert Cadence(3600, at_once=True).due()
    always = Cadence(0)
    with always.turn():
        time.sleep(0.01)
    assert always.due()


def test_what_costs_much_comes_so_rarely_that_it_takes_a_hundredth_of_the_time():
    cadence = Cadence(1e-9)
    with cadence.turn():
        time.sleep(0.01)
    ended = time.monotonic()

    while not cadence.due():
        time.sleep(0.05)

    assert 1.0 <= time.monotonic() - ended < 5


def test_it_comes_ever_more_rarely_where_it_grows_with_the_time():
    cadence = Cadence(1e-9, growth=10)
    time.sleep(0.03)
    with cadence.turn():
        pass

    time.sleep(0.01)

    assert not cadence.due()  # a third of a second, and growing
