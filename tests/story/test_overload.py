"""Why: the rehearsal of overload is believed only if its arithmetic is right and it does not talk itself into a yes.

Nothing here judges a time: how fast something is depends on the machine.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.figures import Bound
from loadtest.overload.__main__ import ACTS, parse
from loadtest.overload.answers import Answer, Task
from loadtest.overload.bucket import BURST, PER_SECOND, error_percent, most_above
from loadtest.overload.findings import Finding, granted_percent, p99_ms, ratio
from loadtest.overload.outage import first_fast_ms, full_after_s, redeemed_twice
from loadtest.overload.reopening import POLICY, WINDOW_S, fullest_ratio
from loadtest.overload.watch import Watch

REHEARSAL_TIMEOUT_S = 120


def answer(asked_s: float, status: int = 201, seconds: float = 0.001, port: int = 1, visitor: int = 0) -> Answer:
    return Answer(visitor, port, asked_s, asked_s + seconds, status, 0)


def through(until_s: int, extra: int = 0) -> list[Answer]:
    """A bucket's answers that let through exactly what it holds and gains, and some more at the end."""
    steady = [answer(number / PER_SECOND) for number in range(1, PER_SECOND * until_s + 1)]
    return [*[answer(0.0)] * BURST, *steady, *[answer(float(until_s))] * extra]


def test_a_bound_that_could_not_be_seen_is_not_kept() -> None:
    assert not Finding("", Bound(1, ""), None, "").kept
    assert Finding("", Bound(1, ""), 1.0, "").kept
    assert not Finding("", Bound(1, "", is_least=True), 0.9, "").kept
    assert (p99_ms([]), granted_percent([]), ratio(None, 1), ratio(1, None), ratio(1, 0)) == (None,) * 5


def test_percentiles_and_shares_are_of_all_who_asked() -> None:
    answers = [answer(0.0, seconds=(number + 1) / 1000) for number in range(100)]
    assert p99_ms(answers) == pytest.approx(99)
    assert granted_percent([*answers, answer(0.0, 503)]) == pytest.approx(100 * 100 / 101)


def test_a_bucket_is_held_to_what_it_holds_and_gains() -> None:
    assert error_percent(through(10)) == pytest.approx(0)
    assert most_above(through(10)) <= 1e-9
    assert error_percent(through(10, extra=21)) == pytest.approx(2)
    assert most_above(through(10, extra=21)) == pytest.approx(21, abs=0.2)
    assert error_percent([answer(0.0), answer(10.0, 429)]) > 99


def test_the_first_fast_refusal_is_that_of_the_slowest_process() -> None:
    before = [answer(9.9, 503, port=1), answer(9.9, 503, port=2)]
    slow = [answer(10.0, 503, seconds=1.0, port=port) for port in (1, 2)]
    first = answer(10.2, 503, port=1)
    assert first_fast_ms([*before, *slow, first], 10.0) is None
    assert first_fast_ms([*before, *slow, first, answer(10.5, 503, port=2)], 10.0) == pytest.approx(501)


def test_the_rate_is_full_when_no_later_second_is_poor() -> None:
    good = [answer(20 + number / 100) for number in range(1000)]
    assert full_after_s(good, 20.0) == 0
    assert full_after_s([*good, *[answer(23.5, 503)] * 50], 20.0) == 4
    assert full_after_s([*good, *[answer(29.5, 503)] * 50], 20.0) is None
    assert full_after_s([], 20.0) is None


def test_arrivals_are_measured_against_the_full_rate_of_the_ramp() -> None:
    area = POLICY.ramp_ms / 1000 * (1 + POLICY.ramp_start_permille / 1000) / 2
    herd = [answer(100.1)] * 1000
    assert fullest_ratio(herd, 1000, 100.0) == pytest.approx(area / WINDOW_S)
    assert fullest_ratio([answer(99.0)] * 1000, 1000, 100.0) == 0
    steady = [answer(100 + number * area / 1000) for number in range(1000)]
    assert fullest_ratio(steady, 1000, 100.0) == pytest.approx(1, abs=0.02)


def test_a_watch_counts_the_pauses_of_the_process_that_pauses_most() -> None:
    watch = Watch()
    watch.said[1] = [(1.0, "issuing"), (2.0, "paused"), (2.1, "paused"), (3.0, "recovering"), (4.0, "issuing")]
    watch.said[2] = [(1.0, "issuing"), (2.5, "paused"), (3.0, "issuing"), (3.5, "paused"), (4.0, "recovering")]
    watch.memory_mib |= {1: [50.0, 70.0, 60.0], 2: [50.0, 51.0]}
    assert watch.most_pauses(0.0) == 2
    assert watch.first_ms("paused", 1.5) == pytest.approx(1000)
    assert watch.first_ms("issuing", 3.2) is None
    assert (watch.all_say("issuing"), watch.growth_mib()) == (False, 20)


def test_a_task_survives_the_way_to_the_visitors() -> None:
    task = Task("issue", "spring", (1, 2), 3, 4.5, 6.0, patient=True)
    assert Task.from_line(task.to_line()) == task


@pytest.mark.parametrize(
    "arguments", [["--waiters", "99"], ["--outage-seconds", "61"], ["--seconds", "0"], ["--only", "panic"], ["--fast"]]
)
def test_bad_arguments_are_refused_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_every_act_can_be_named() -> None:
    assert set(parse([]).acts) == set(ACTS) == set(parse(["--only", *ACTS]).only)


def test_the_full_length_is_what_the_bounds_ask_for_unless_another_is_named() -> None:
    full = parse(["--full"])
    assert (full.bucket_seconds, full.outage_seconds) == (60, 30)
    assert (parse(["--full", "--outage-seconds", "5"]).outage_seconds, parse([]).outage_seconds) == (5, 10)


def test_a_short_rehearsal_tells_what_it_saw_and_leaves_nothing_behind(tmp_path: Path) -> None:
    report = tmp_path / "overload.json"
    arguments = ("--only", "bucket", "refusal", "--seconds", "1", "--bucket-seconds", "1", "--json", report)
    run = subprocess.run(
        (sys.executable, "-m", "loadtest.overload", *map(str, arguments)),
        capture_output=True,
        text=True,
        timeout=REHEARSAL_TIMEOUT_S,
        check=False,
    )
    found = json.loads(report.read_text())["findings"]
    assert (run.returncode, run.stderr) == (0 if all(one["kept"] for one in found) else 1, "")
    seen = {one["promise"]: one["value"] for one in found}
    assert seen["Bucket: most above burst and rate at any moment"] == 0
    assert seen["A refusal while paused: store calls"] == 0
    assert None not in seen.values()


def test_a_code_is_redeemed_twice_if_another_order_was_granted_it_and_where_none_was_redeemed_nobody_knows() -> None:
    first, refused = [answer(1, visitor=1), answer(1, visitor=2)], answer(2, 409, visitor=1)
    assert redeemed_twice(first, [refused, answer(2, 409, visitor=2)]) == 0
    assert redeemed_twice(first, [refused, answer(2, visitor=2)]) == 1
    assert redeemed_twice([refused], [refused]) is None
