"""Batches of issue hold the store no longer than the redemptions behind them can bear, and no less than they may."""

from service.gate.batch_size import FORGOTTEN, LEAST, MAX_HELD_S, REDEEMED_LATELY_S, SHARE_OF_LONE_CALL, BatchSize

MOST = 128
PER_REQUEST_S = 0.00001
A_SECOND_OF_CALLS = 200


class Storm:
    """A store that holds each request for `per_request_s`, and always a line longer than a batch before it."""

    def __init__(self, redeems_elsewhere: bool = False, lone_call_s: float = 0.001) -> None:
        self.now_s = 0.0
        self.size = BatchSize(MOST, redeems_elsewhere, lambda: self.now_s)
        self.size.learn_lone_call(1, lone_call_s)

    def rage(self, per_request_s: float = PER_REQUEST_S, calls: int = A_SECOND_OF_CALLS) -> int:
        """So many batches, as large as they may be; returns what the next one may have."""
        for _call in range(calls):
            self.size.learn_held(self.size.limit, self.size.limit * per_request_s)
        return self.size.limit


def test_a_batch_has_all_that_it_may_have_while_nobody_redeems() -> None:
    assert Storm().rage() == MOST


def test_on_a_slow_store_a_batch_shrinks_until_it_holds_it_for_its_time_and_grows_again() -> None:
    storm = Storm()
    assert storm.rage(0.00004) == round(MAX_HELD_S / 0.00004)
    assert storm.rage() == MOST


def test_batches_shrink_while_somebody_redeems_and_grow_again_when_the_last_redemption_is_a_while_ago() -> None:
    storm, small = Storm(), round(0.001 * SHARE_OF_LONE_CALL / PER_REQUEST_S)
    storm.size.note_redemption()
    assert storm.rage() == small
    storm.now_s += REDEEMED_LATELY_S
    assert storm.rage() == MOST


def test_whoever_issues_beside_processes_for_redemption_always_takes_them_into_account() -> None:
    assert Storm(redeems_elsewhere=True).rage() == round(0.001 * SHARE_OF_LONE_CALL / PER_REQUEST_S)


def test_where_a_lone_call_takes_long_small_batches_would_spare_nobody_anything() -> None:
    assert Storm(redeems_elsewhere=True, lone_call_s=0.0009).rage() == 30
    slow_disk = Storm(redeems_elsewhere=True)
    for _call in range(100):
        slow_disk.size.learn_lone_call(1, 0.006)
    assert slow_disk.rage() == MOST


def test_one_slow_lone_call_is_an_accident_and_a_large_call_is_not_alone() -> None:
    storm = Storm(redeems_elsewhere=True)
    storm.size.learn_lone_call(1, 9.0)
    storm.size.learn_lone_call(MOST, 0.0)
    assert storm.rage() == round(0.001 * FORGOTTEN * SHARE_OF_LONE_CALL / PER_REQUEST_S)


def test_a_batch_never_shrinks_to_where_the_call_itself_is_most_of_it() -> None:
    assert Storm().rage(1.0) == LEAST
    assert BatchSize(4).limit == 4


def test_small_batches_that_are_dear_by_the_call_itself_do_not_bound_the_large_ones() -> None:
    storm = Storm()
    for _call in range(A_SECOND_OF_CALLS):
        storm.size.learn_held(1, 0.00015)
    assert storm.size.limit == MOST


def test_a_store_too_quick_to_be_measured_bounds_nothing() -> None:
    storm = Storm(redeems_elsewhere=True)
    storm.size.learn_held(MOST, 0.0)
    assert storm.size.limit == MOST
