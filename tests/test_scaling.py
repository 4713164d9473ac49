"""When workers start and retire: the state machine, without an event loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antflow._workers.scaling import Scaling, StandBy


def test_the_lowest_free_number_is_claimed() -> None:
    scaling = Scaling(5)
    assert [scaling.claim() for _ in range(4)] == [0, 1, 2, 3]
    assert (scaling.spare, scaling.idle) == (1, 4)
    for number in (2, 0):
        assert not scaling.left(number)
    assert [scaling.claim() for _ in range(3)] == [0, 2, 4]
    assert scaling.spare == 0


def test_batches_double_until_a_worker_waits() -> None:
    scaling = Scaling(1000)
    assert [scaling.taken(queued=999) for _ in range(5)] == [1, 2, 4, 8, 16]
    scaling.started_waiting()
    scaling.stopped_waiting()
    assert scaling.taken(queued=999) == 1
    assert scaling.taken(queued=999) == 2
    scaling.claim()
    scaling.left(0)
    assert scaling.taken(queued=999) == 1


def test_a_batch_is_limited_by_items_and_spare_workers_but_not_empty() -> None:
    scaling = Scaling(10)
    scaling.next_batch = 64
    assert scaling.taken(queued=3) == 3
    assert scaling.taken(queued=0) == 1
    assert scaling.taken(queued=99) == 10


def test_left_returns_whether_the_worker_was_the_last() -> None:
    scaling = Scaling(2)
    first, second = scaling.claim(), scaling.claim()
    assert not scaling.left(first)
    assert scaling.left(second)


def test_a_worker_stands_by_as_long_as_others_are_blocked_and_items_are_settled() -> None:
    scaling = Scaling(3)
    assert not StandBy(scaling, settled=0).should_wait(settled=0)
    scaling.became_blocked()
    stand_by = StandBy(scaling, settled=0)
    assert [stand_by.should_wait(settled=0) for _ in range(9)] == [True] * 8 + [False]

    stand_by = StandBy(scaling, settled=0)
    for turn in range(1, 25):
        # One is unblocked, and blocked again, while eight items are settled.
        scaling.became_unblocked()
        scaling.became_blocked()
        assert stand_by.should_wait(settled=8 * turn)
    scaling.became_unblocked()
    assert not stand_by.should_wait(settled=999)


def test_items_that_are_settled_at_other_stages_do_not_prolong_standby() -> None:
    scaling = Scaling(3)
    scaling.became_blocked()
    stand_by = StandBy(scaling, settled=0)
    assert [stand_by.should_wait(settled=100 * turn) for turn in range(9)] == [True] * 8 + [False]


@given(workers=st.integers(1, 6), moves=st.lists(st.integers(0, 99), max_size=60))
def test_a_worker_is_idle_or_all_have_an_item(workers: int, moves: list[int]) -> None:
    """The invariant of the module holds after any sequence of calls while the queue is open."""
    scaling = Scaling(workers)
    claimed = [scaling.claim()]
    waiting: list[int] = []
    having: list[int] = []

    def take(number: int) -> None:
        having.append(number)
        if scaling.spare and not scaling.idle:
            claimed.extend(scaling.claim() for _ in range(scaling.taken(queued=moves[0] % 4)))

    for move in moves:
        if move % 3 == 0 and claimed:
            number = claimed.pop(move % len(claimed))
            scaling.began()
            take(number)
        elif move % 3 == 1 and waiting:
            number = waiting.pop(move % len(waiting))
            scaling.stopped_waiting()
            take(number)
        elif move % 3 == 2 and having:
            number = having.pop(move % len(having))
            if scaling.idle >= 2:
                assert not scaling.left(number)
            else:
                scaling.started_waiting()
                waiting.append(number)
        assert scaling.idle == len(claimed) + len(waiting)
        assert scaling.spare == workers - scaling.idle - len(having)
        assert scaling.idle or len(having) == workers
        assert len({*claimed, *waiting, *having}) == workers - scaling.spare
