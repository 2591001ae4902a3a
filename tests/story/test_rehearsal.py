"""Why: a rehearsal is believed only if it meets the incident's curve and cannot be talked into a good verdict."""

import csv
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import incident
from loadtest.evidence import Evidence, Extension, Pause, Promise, Stand
from loadtest.messages import NO_ANSWER, Answer, Verb
from loadtest.plan import Plan
from loadtest.rehearse import parse
from loadtest.verdict import judge
from tests.story.running import free_port

PLAN = Plan(hours=9, into_s=60, orders=20_000, merchants=600, seed=1)
EXTENDED = "2026-02-28T23:59:59+08:00"
UNEXTENDED = "2026-02-23T23:59:59+08:00"


def answer(verb: Verb, order: int, at_s: float, status: int = 201, reason: str = "") -> Answer:
    """What the customer of one order was told, with everything in it as it should be."""
    again = status == 201 and verb in (Verb.ISSUE_AGAIN, Verb.REDEEM_AGAIN)
    return Answer(
        verb=verb,
        order=order,
        due_s=at_s,
        started_s=at_s,
        answered_s=at_s + 0.01,
        status=status,
        reason=reason,
        replayed=again,
        identical=again,
        code=f"code-{order}" if status in (200, 201) else "",
        user_id=f"user-{order}" if verb is Verb.ISSUE else "",
        coupon_status="issued" if verb is Verb.LOOK else "",
        expires_at=EXTENDED,
    )


GOOD_DAY = Evidence(
    demanded=3,
    left=0,
    answers=(
        answer(Verb.ISSUE, 0, 1),
        answer(Verb.ISSUE_AGAIN, 0, 1.1),
        answer(Verb.ISSUE, 1, 2, 503, "issuance_paused"),
        answer(Verb.REDEEM, 0, 2.1),
        answer(Verb.REDEEM_AGAIN, 0, 2.2),
        answer(Verb.REDEEM_ELSEWHERE, 0, 2.3, 409, "already_redeemed"),
        answer(Verb.ISSUE, 1, 4),
        answer(Verb.ISSUE, 2, 4.1, 409, "per_user_limit"),
        answer(Verb.LOOK, 1, 6, 200),
        answer(Verb.LOOK, 0, 1.2, 200)._replace(expires_at=UNEXTENDED),
    ),
    promise=Promise(max_coupons=36, max_coupons_per_user=1, budget=90_000, coupon_amount=2_500),
    counters={"issued": 2, "redeemed": 1, "budget_remaining": 85_000},
    conservation_errors=(0, 0),
    conservation_metric=0.0,
    issuance=(Stand(0.5, "issuing", ""), Stand(1.5, "paused", "operator"), Stand(3, "issuing", "")),
    pause=Pause(confirmed_s=1.5, lifted_s=3),
    extension=Extension(
        id="extension",
        accepted_s=5,
        expires_at=EXTENDED,
        first_looks=("2026-02-28T15:59:59.000+00:00",),
        status="completed",
        total=2,
        changed=2,
    ),
)


def with_answer(at: int, changed: Answer) -> Evidence:
    answers = list(GOOD_DAY.answers)
    answers[at] = changed
    return replace(GOOD_DAY, answers=tuple(answers))


def with_one_more(one: Answer) -> Evidence:
    return replace(GOOD_DAY, answers=(*GOOD_DAY.answers, one))


def with_counters(**changed: int) -> Evidence:
    return replace(GOOD_DAY, counters={**GOOD_DAY.counters, **changed})


def with_extension(**changed: object) -> Evidence:
    return replace(GOOD_DAY, extension=replace(GOOD_DAY.extension, **changed))  # type: ignore[arg-type]


def broken_promises(evidence: Evidence) -> list[str]:
    return [check.promise for check in judge(evidence) if not check.kept]


BAD_DAYS = {
    "a coupon counted that nobody was given": with_counters(issued=3, budget_remaining=82_500),
    "a coupon given that is not counted": with_counters(issued=1, budget_remaining=87_500),
    "one code for two orders": with_answer(6, GOOD_DAY.answers[6]._replace(code="code-0")),
    "more coupons than the campaign has": replace(GOOD_DAY, promise=replace(GOOD_DAY.promise, max_coupons=1)),
    "two coupons for one who may have one": with_answer(6, GOOD_DAY.answers[6]._replace(user_id="user-0")),
    "a budget that is overdrawn": with_counters(budget_remaining=-2_500),
    "a coupon that was not charged": with_counters(budget_remaining=87_500),
    "a ledger that was off for a moment": replace(GOOD_DAY, conservation_errors=(0, 1, 0)),
    "a ledger that nobody looked at": replace(GOOD_DAY, conservation_errors=()),
    "a metric that is off": replace(GOOD_DAY, conservation_metric=-1.0),
    "a metric that is missing": replace(GOOD_DAY, conservation_metric=None),
    "another answer to the same key": with_answer(1, GOOD_DAY.answers[1]._replace(identical=False)),
    "a replay that does not say so": with_answer(1, GOOD_DAY.answers[1]._replace(replayed=False)),
    "another answer to the same redemption": with_answer(4, GOOD_DAY.answers[4]._replace(identical=False)),
    "a coupon redeemed for a second order": with_answer(5, answer(Verb.REDEEM_ELSEWHERE, 0, 2.3)),
    "a redemption that is not counted": with_counters(redeemed=0),
    "a coupon issued in the pause": with_answer(2, answer(Verb.ISSUE, 1, 2)),
    "a pause told in other words": with_answer(2, answer(Verb.ISSUE, 1, 2, 503, "overloaded")),
    "a pause in which nobody asked": with_answer(2, answer(Verb.ISSUE, 1, 4, 503, "issuance_paused")),
    "a redemption refused in the pause": with_one_more(answer(Verb.REDEEM, 0, 2.05, 503, "overloaded")),
    "an extension not seen at once": with_extension(first_looks=(UNEXTENDED,)),
    "an extension that nobody looked at": with_extension(first_looks=()),
    "an extension forgotten later": with_answer(8, GOOD_DAY.answers[8]._replace(expires_at=UNEXTENDED)),
    "an extension that never ends": with_extension(status="running"),
    "an extension that changed nothing": with_extension(changed=0),
    "a service that often says nothing": with_one_more(answer(Verb.LOOK, 1, 4.1, NO_ANSWER, "")),
    "an internal error": with_one_more(answer(Verb.LOOK, 1, 4.1, 500, "internal_error")),
    "an order that was never settled": with_answer(7, answer(Verb.ISSUE, 2, 4.1, 503, "overloaded")),
    "errands cut off by the deadline": replace(GOOD_DAY, left=1),
}


def test_the_curve_meets_every_published_point_exactly() -> None:
    assert [incident.orders_by(hours) for hours, _ in incident.ORDERS_BY_HOUR] == [
        0,
        10**6,
        2 * 10**6,
        5 * 10**6,
        10**7,
    ]


def test_the_curve_never_falls_and_ends_where_nothing_was_published() -> None:
    curve = [incident.orders_by(9 * step / 9_000) for step in range(9_001)]
    assert curve == sorted(curve)
    for outside in (-0.01, 9.01):
        with pytest.raises(ValueError, match="nothing was published"):
            incident.orders_by(outside)


def test_the_calendar_moves_with_the_launch() -> None:
    assert incident.last_valid_second(incident.EXTENDED_LAST_DAY, incident.LAUNCH).isoformat() == EXTENDED
    midnight_in_shanghai = datetime(2027, 3, 1, 16, tzinfo=UTC)
    moved = incident.last_valid_second(incident.FIRST_LAST_DAY, midnight_in_shanghai)
    assert moved.isoformat() == "2027-03-19T23:59:59+08:00"


@settings(max_examples=30, deadline=None)
@given(orders=st.integers(300, 3_000), hours=st.floats(6, 9), into_s=st.floats(5, 3_600), seed=st.integers(0, 2**32))
def test_every_order_of_a_schedule_is_due_once_and_in_time(orders: int, hours: float, into_s: float, seed: int) -> None:
    plan = Plan(hours, into_s, orders, merchants=10, seed=seed)
    made = plan.make_orders()
    assert [order.number for order in made] == list(range(orders))
    assert all(earlier.due_s <= later.due_s for earlier, later in pairwise(made))
    assert 0 <= made[0].due_s <= made[-1].due_s <= into_s
    assert 0 < plan.pause_s[0] < plan.pause_s[1] < plan.extension_s < into_s


def test_a_schedule_passes_through_the_published_points() -> None:
    made = PLAN.make_orders()
    for hour, orders in incident.ORDERS_BY_HOUR:
        assert sum(order.due_s <= PLAN.seconds(hour) for order in made) == orders * 20_000 // 10**7


def test_a_seed_plays_the_same_orders_again_and_some_merchants_are_far_more_popular() -> None:
    made = PLAN.make_orders()
    assert made == PLAN.make_orders()
    assert made != replace(PLAN, seed=2).make_orders()
    sold = [count for _, count in Counter(order.merchant_id for order in made).most_common()]
    assert sold[0] > 20 * sold[len(sold) // 2]


def test_some_customers_want_more_than_one_may_have() -> None:
    wanted = Counter(order.user_id for order in PLAN.make_orders())
    assert max(wanted.values()) > incident.MAX_COUPONS_PER_USER


def test_a_good_day_keeps_every_promise() -> None:
    assert broken_promises(GOOD_DAY) == []


@pytest.mark.parametrize("evidence", BAD_DAYS.values(), ids=BAD_DAYS.keys())
def test_one_promise_is_broken_by(evidence: Evidence) -> None:
    assert len(broken_promises(evidence)) == 1


def test_every_promise_can_be_broken() -> None:
    broken = {promise for evidence in BAD_DAYS.values() for promise in broken_promises(evidence)}
    assert broken == {check.promise for check in judge(GOOD_DAY)}


def test_a_day_on_which_nothing_happened_is_no_good_day() -> None:
    assert broken_promises(replace(GOOD_DAY, answers=(), counters=dict.fromkeys(GOOD_DAY.counters, 0)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--orders", "many"], "--orders"),
        (["--orders", "299"], "--orders must be between 300 and 200,000"),
        (["--orders", "20000", "--into", "10s"], "at most 500 for each second"),
        (["--into", "soon"], "no time such as 60s"),
        (["--into", "2s"], "--into must be between 5 and 3,600 seconds"),
        (["--hours", "10"], "--hours must be between 6 and 9"),
        (["--hours", "nan"], "--hours must be between 6 and 9"),
        (["--merchants", "0"], "--merchants must be between 1 and 300,000"),
        (["--url", "127.0.0.1:8000"], "--url must look like http://127.0.0.1:8000"),
        (["--url", "https://coupons.example"], "add --i-own-this-service"),
        (["--url", "http://127.0.0.1:8000", "--self-started"], "not allowed with"),
        (["--api-key", "a-key"], "--api-key goes with --url"),
        (["--sail"], "unrecognized arguments: --sail"),
    ],
)
def test_bad_arguments_get_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    complaint = capsys.readouterr().err
    assert left.value.code == 2
    assert said in complaint
    assert complaint.count("\n") == 1


def test_a_service_on_another_machine_is_rehearsed_by_its_owner_only() -> None:
    assert parse(["--url", "https://coupons.example/", "--i-own-this-service"]).url == "https://coupons.example"


def rehearsal(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "loadtest.rehearse", "--into", "6s", "--orders", "300", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_without_a_service_a_rehearsal_ends_with_exit_code_3_and_one_line() -> None:
    done = rehearsal("--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 3
    assert done.stderr.startswith("rehearse: no Tidegate answers")
    assert done.stderr.count("\n") == 1


def test_a_small_rehearsal_of_a_real_service_keeps_every_promise_and_says_so(tmp_path: Path) -> None:
    done = rehearsal("--report", str(tmp_path / "reports" / "small"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken" not in done.stdout
    assert re.search(r"Issuance: 0 s issuing; \d s paused \(operator\)", done.stdout)
    reports = {path.suffix: path.read_text() for path in (tmp_path / "reports").iterdir()}
    intervals = list(csv.DictReader(reports[".csv"].splitlines()))
    assert sum(int(interval["demanded"]) for interval in intervals) == 300
    assert 0 < sum(int(interval["issued"]) for interval in intervals) <= 300
    assert sum(int(interval["redeemed"]) for interval in intervals) > 0
    ElementTree.fromstring(reports[".svg"])  # noqa: S314 - it was written a moment ago
    assert reports[".svg"] in reports[".html"]
    assert "every promise kept" in reports[".html"]
