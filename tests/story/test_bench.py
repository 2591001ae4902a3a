"""Why: a bench is believed only if its arithmetic is right, a wrong coupon ends it, and its baselines keep the promise.

Nothing here judges a time: how fast something is depends on the machine.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from redis import Redis

from loadtest.bench.__main__ import parse
from loadtest.bench.campaigns import open_baseline_campaign
from loadtest.bench.figures import Bound, Figure, figures
from loadtest.bench.incident import Replay, last_figure, told_transition, write
from loadtest.bench.measure import Task, measure
from loadtest.bench.pace import ask_at_pace
from loadtest.bench.people import read_visit, visit
from loadtest.bench.processes import two_cores
from loadtest.bench.profile import own_shares
from loadtest.bench.samples import Findings, Group, Growth, Idle, Load, Paced, Sample
from loadtest.bench.show import markdown, sheets, verdict
from loadtest.bench.systems import nginx, plain_fastapi
from loadtest.bench.tally import Answers, Tally, answer_violations, ledger_violations
from loadtest.verdict import Check
from service.api.wire import Coupon
from service.cli.failures import CommandError

AMOUNT = 2_500

Result = TypeVar("Result")


def sample(load: Load, number: int, per_second: int, cpu_us: float = 40.0, store_calls: int = 0) -> Sample:
    """One second of one load over 64 connections; the store takes a quarter of the CPU time."""
    service_s, store_s = per_second * cpu_us * 0.75e-6, per_second * cpu_us * 0.25e-6
    return Sample(load, number, 64, per_second, 1.0, 1.0, 2.0, service_s, store_s, 0.1, store_calls)


def of(group: Group, findings: Findings) -> list[Figure]:
    return figures(findings, [group])


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    findings = Findings(
        samples=[
            *(sample(Load.ISSUE, number, issued) for number, issued in ((1, 24_000), (2, 10_000), (3, 18_000))),
            *(sample(Load.PLAIN_FASTAPI, number, issued) for number, issued in ((1, 2_000), (2, 1_000), (3, 2_000))),
        ]
    )
    assert of(Group.ISSUE, findings)[0].values == {"64": 10.0}


def test_a_figure_is_reached_only_if_all_its_values_keep_the_bound() -> None:
    least, most = Bound(8, "x", is_least=True), Bound(12, "µs")
    assert Figure("", least, {"64": 8.0, "256": 9.0}, "").is_reached
    assert not Figure("", least, {"64": 7.9, "256": 9.0}, "").is_reached
    assert Figure("", most, {"64": 12.0}, "").is_reached
    assert not Figure("", most, {"64": 11.0, "256": 12.1}, "").is_reached


def test_what_could_not_be_run_is_not_measured_and_says_why() -> None:
    findings = Findings(samples=[sample(Load.ISSUE, 1, 20_000)], missing={Load.NGINX: "nginx is not installed"})
    figure = of(Group.ISSUE, findings)[1]
    assert (verdict(figure), figure.limited_by) == ("not measured", "nginx is not installed")


@pytest.mark.parametrize(
    ("per_second", "cpu_us", "cost"),
    [(20_000, 40.0, 1.0), (10_000, 40.0, 2.0), (40_000, 60.0, 1.5), (40_000, 20.0, 0.5)],
)
def test_a_refusal_costs_the_worse_of_its_time_and_its_cpu(per_second: int, cpu_us: float, cost: float) -> None:
    findings = Findings(samples=[sample(Load.ISSUE, 1, 20_000), sample(Load.REPLAY, 1, per_second, cpu_us)])
    assert of(Group.REFUSALS, findings)[0].values["64"] == pytest.approx(cost)


def test_while_paused_the_breakers_own_calls_are_allowed_and_no_other() -> None:
    issue = sample(Load.ISSUE, 1, 20_000)
    for calls, beyond in ((4, 0), (120, 0), (20_120, 20_000)):
        findings = Findings(samples=[issue, sample(Load.PAUSED, 1, 20_000, 10.0, calls)])
        cpu, store_calls = of(Group.PAUSED, findings)
        assert cpu.values["64"] == pytest.approx(0.25)
        assert store_calls.values == {"64": beyond}


def test_what_stands_alone_is_the_median_of_its_runs() -> None:
    findings = Findings(
        paced=[
            Paced(number, 256, 10_000, 40_000, 2.0, p99_ms, 0.5) for number, p99_ms in ((1, 5.0), (2, 50.0), (3, 6.0))
        ],
        idle=[Idle(1, 600, 500), Idle(2, 900, 500), Idle(3, 700, 500)],
        growth=Growth(10_000_000, 100_000, 32, 70.5, 77.1, early_us=(10, 20, 30), late_us=(11, 24, 30)),
    )
    assert of(Group.LATENCY, findings)[0].values == {"256": 6.0}
    assert of(Group.IDLE, findings)[0].values == {"": 1.4}
    assert [figure.values for figure in of(Group.MEMORY, findings)] == [{"": 70.5}, {"": 1.1}]


def test_the_stores_time_is_held_against_whichever_one_script_costs_less() -> None:
    loads = {Load.ISSUE: 10.0, Load.PLAIN_FASTAPI: 100.0, Load.NGINX: 50.0}
    findings = Findings(samples=[sample(load, 1, 1_000, cpu_us) for load, cpu_us in loads.items()])
    assert of(Group.STORE, findings)[1].values == {"64": pytest.approx(0.2)}


def test_a_pause_in_the_incident_is_told_with_what_caused_it() -> None:
    change = {"from": "closed", "to": "open", "reason": "store_silence"}
    told = told_transition(579.4, change | {"signals": {"store_silence": 0.3917, "queue_wait": 0}})
    assert told == "  579 s  breaker closed → open: store_silence (store_silence 0.392)"


def test_without_a_replay_of_the_whole_incident_its_figure_is_not_measured(tmp_path: Path) -> None:
    assert verdict(last_figure(tmp_path / "none.json")) == "not measured"
    assert verdict(last_figure(reported(tmp_path, replay_of(1_000)))) == "not measured"


def test_a_replay_that_was_in_time_and_broke_a_promise_is_missed(tmp_path: Path) -> None:
    assert verdict(last_figure(reported(tmp_path, replay_of(10_000_000)))) == "ok"
    broken = replay_of(10_000_000, Check("Never more coupons than there are", "10,000,001 of 10,000,000", False))
    assert verdict(broken.figure) == verdict(last_figure(reported(tmp_path, broken))) == "missed"


def replay_of(coupons: int, *checks: Check) -> Replay:
    return Replay(coupons, 300.0, 0.9, 0.5, (), checks)


def reported(folder: Path, done: Replay) -> Path:
    report = folder / "incident.json"
    write(report, done, {"Commit": "0123abcd"})
    return report


def test_the_page_has_every_figure_with_its_bound_and_verdict_in_a_whole_table() -> None:
    findings = Findings(samples=[sample(Load.ISSUE, 1, 20_000), sample(Load.BARE, 1, 40_000)])
    page = markdown(sheets(findings, of(Group.ISSUE, findings)), {"Commit": "0123abcd"})
    lines = page.splitlines()
    table = lines[lines.index("### Figures") + 2 :][:5]
    assert {line.count("|") for line in table} == {6}
    assert any("Issue / bare ASGI" in line and "0.5" in line and "≥ 0.6" in line and "missed" in line for line in table)
    assert "- Commit: 0123abcd" in lines


def test_a_profile_counts_what_was_running_itself() -> None:
    stacks = ["main (app.py:1);issue (hot.py:7) 6", "main (app.py:1) 1", "main (app.py:1);issue (hot.py:9) 3"]
    assert own_shares(stacks) == {"issue (hot.py)": 0.9, "main (app.py)": 0.1}


GOOD = Tally({"issued": 1_000}, issued=1_000, records=1_000, paid_for=1_000)
AFTER = Tally({"issued": 1_100}, issued=1_100, records=1_100, paid_for=1_100)
BAD_LEDGERS = {
    "a coupon that nobody was given": replace(AFTER, issued=1_165, records=1_165, paid_for=1_165),
    "a coupon that was forgotten": replace(AFTER, issued=1_099, records=1_099, paid_for=1_099),
    "a request that had another outcome": replace(AFTER, outcomes={"issued": 1_100, "sold_out": 1}),
    "a request that was not counted": replace(AFTER, outcomes={"issued": 1_099}),
    "a coupon without a record": replace(AFTER, records=1_099),
    "a redemption that its record does not know of": replace(AFTER, redeemed_records=1),
    "a coupon that was not charged to the budget": replace(AFTER, paid_for=1_099),
    "a ledger that does not add up": replace(AFTER, conservation_error=1),
}


def ledger(after: Tally, outcome: str = "issued") -> list[str]:
    return list(ledger_violations(Answers(100, 0, 0), 64, outcome, GOOD, after))


def test_a_good_run_may_end_with_one_decision_a_connection_that_nobody_waited_for() -> None:
    assert ledger(AFTER) == []
    assert ledger(Tally({"issued": 1_164}, issued=1_164, records=1_164, paid_for=1_164)) == []
    assert ledger(replace(GOOD, outcomes={"issued": 1_000, "sold_out": 100}), "sold_out") == []


def test_a_redemption_counts_if_the_coupon_knows_of_it() -> None:
    told = {"issued": 1_000, "redeemed": 100}
    assert ledger(replace(GOOD, outcomes=told, redeemed=100, redeemed_records=100), "redeemed") == []
    assert len(ledger(replace(GOOD, outcomes=told), "redeemed")) == 1


@pytest.mark.parametrize("after", BAD_LEDGERS.values(), ids=BAD_LEDGERS.keys())
def test_a_run_is_ended_by(after: Tally) -> None:
    assert len(ledger(after)) == 1


@pytest.mark.parametrize(
    ("answers", "outcome", "faults"),
    [
        (Answers(100, 0, 0), "issued", 0),
        (Answers(100, 1, 0), "replayed", 1),
        (Answers(100, 100, 0), "sold_out", 0),
        (Answers(100, 99, 0), "sold_out", 1),
        (Answers(100, 0, 1), "redeemed", 1),
    ],
)
def test_every_answer_must_be_what_the_load_is_about(answers: Answers, outcome: str, faults: int) -> None:
    assert len(list(answer_violations(answers, outcome))) == faults


def test_the_last_line_of_wrk_is_read_and_anything_else_is_an_error() -> None:
    said = 'Running 1s test\n\n{"requests":7,"seconds":1.5,"refused":2,"broken":1,"p50_ms":0.5,"p99_ms":2.0}\n'
    visit = read_visit(said, 0.2)
    assert (visit.answers, visit.seconds, visit.p99_ms, visit.cpu_s) == (Answers(7, 2, 1), 1.5, 2.0, 0.2)
    for broken in ("", "unable to connect to 127.0.0.1:1 Connection refused"):
        with pytest.raises(CommandError, match="wrk broke off"):
            read_visit(broken, 0.2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "sailing"], "--only"),
        (["--rounds", "0"], "--rounds must be between 1 and"),
        (["--seconds", "soon"], "--seconds"),
        (["--coupons", "1000"], "--coupons must be between"),
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


@dataclass(frozen=True, slots=True)
class Baseline:
    """A running baseline."""

    client: httpx.Client
    store: Redis

    def issue(self, campaign_id: str, user_id: str, key: str) -> httpx.Response:
        path = f"/v1/campaigns/{campaign_id}/coupons"
        return self.client.post(path, json={"user_id": user_id}, headers={"Idempotency-Key": key})

    def reasons(self, campaign_id: str, wishes: list[tuple[str, str]]) -> list[str]:
        return [
            "issued" if answer.status_code == 201 else str(answer.json()["reason"])
            for answer in (self.issue(campaign_id, user_id, key) for user_id, key in wishes)
        ]

    def count(self, campaign_id: str) -> tuple[int, int, int, int]:
        campaign = self.store.hgetall(f"campaign:{{{campaign_id}}}")
        records = len(self.store.keys(f"coupon:{{{campaign_id}}}:*"))
        events = self.store.xlen(f"events:{{{campaign_id}}}")
        return int(campaign["issued"]), int(campaign["committed"]) // AMOUNT, records, events


@pytest.fixture(scope="module", params=[plain_fastapi, nginx], ids=["FastAPI", "nginx"])
def baseline(request: pytest.FixtureRequest) -> Iterator[Baseline]:
    if request.param is nginx and shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as folder,
        request.param(Path(folder), two_cores()) as system,
        httpx.Client(base_url=f"http://127.0.0.1:{system.port}", trust_env=False) as client,
    ):
        yield Baseline(client, system.store.client)


def test_a_baseline_gives_the_same_coupon_for_the_same_key_and_charges_once(baseline: Baseline) -> None:
    open_baseline_campaign(baseline.store, "again", max_coupons_per_user=2)
    first, again, another = (baseline.issue("again", "u1", key) for key in ("k1", "k1", "k2"))
    assert [answer.status_code for answer in (first, again, another)] == [201, 201, 201]
    assert again.json() == first.json()
    assert (first.headers.get("Idempotency-Replayed"), again.headers.get("Idempotency-Replayed")) == (None, "true")
    assert another.json()["code"] != first.json()["code"]
    assert baseline.count("again") == (2, 2, 2, 2)


def test_a_baseline_answers_with_the_fields_that_tidegate_answers_with(baseline: Baseline) -> None:
    open_baseline_campaign(baseline.store, "fields")
    coupon = baseline.issue("fields", "u1", "k1").json()
    assert list(coupon) == list(Coupon.model_fields)
    assert coupon["benefit"] == {"kind": "amount", "amount": AMOUNT, "currency": "CNY", "min_order_amount": 0}
    assert coupon["issued_at"].endswith("+08:00")


def test_a_baseline_gives_nobody_more_than_one_may_have(baseline: Baseline) -> None:
    open_baseline_campaign(baseline.store, "capped", max_coupons_per_user=2)
    said = baseline.reasons("capped", [("u1", "k1"), ("u1", "k2"), ("u1", "k3"), ("u1", "k1"), ("u2", "k3")])
    assert said == ["issued", "issued", "per_user_limit", "issued", "issued"]
    assert baseline.count("capped") == (3, 3, 3, 3)


def test_a_baseline_gives_out_exactly_its_stock_to_a_crowd(baseline: Baseline) -> None:
    open_baseline_campaign(baseline.store, "scarce", max_coupons=7)
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda number: baseline.issue("scarce", f"u{number}", "k"), range(40)))
    assert sorted(answer.status_code for answer in answers) == [201] * 7 + [409] * 33
    assert {answer.json()["reason"] for answer in answers if answer.status_code == 409} == {"sold_out"}
    assert baseline.count("scarce") == (7, 7, 7, 7)


@pytest.mark.parametrize(
    ("limits", "reason", "status"),
    [
        ({"budget": 2 * AMOUNT}, "budget_exhausted", 409),
        ({"burst": 2, "per_second_milli": 1}, "rate_limited", 429),
        ({"max_coupons": 2}, "sold_out", 409),
    ],
)
def test_a_baseline_refuses_the_third_when_two_is_the_limit(
    baseline: Baseline, limits: dict[str, int], reason: str, status: int
) -> None:
    campaign_id = reason.replace("_", "-")
    open_baseline_campaign(baseline.store, campaign_id, **limits)
    assert baseline.reasons(campaign_id, [("u1", "k"), ("u2", "k"), ("u3", "k")]) == ["issued", "issued", reason]
    refused = baseline.issue(campaign_id, "u3", "k")
    assert (refused.status_code, refused.headers["Content-Type"]) == (status, "application/problem+json")
    assert ("Retry-After" in refused.headers) == (reason == "rate_limited")
    assert baseline.count(campaign_id) == (2, 2, 2, 2)


def test_a_baseline_issues_only_what_runs_and_only_to_whom_it_understands(baseline: Baseline) -> None:
    open_baseline_campaign(baseline.store, "still", status="paused")
    open_baseline_campaign(baseline.store, "over", ends_at=1)
    assert baseline.reasons("still", [("u1", "k")]) == ["issuance_paused"]
    assert baseline.reasons("over", [("u1", "k")]) == ["campaign_not_running"]
    assert baseline.issue("nowhere", "u1", "k").status_code == 404
    assert baseline.issue("still", "no user's name", "k").status_code == 422
    assert baseline.count("still") == (0, 0, 0, 0)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_small_bench_of_the_real_thing_takes_every_sample_and_finds_no_wrong_coupon() -> None:
    groups = (Group.REDEEM, Group.IDLE)
    findings = measure(Task(groups, rounds=1, seconds=1, connections=(4,), coupons=0, profile=False), lambda _: None)
    assert [taken.load for taken in findings.samples] == [Load.ISSUE, Load.REDEEM]
    assert all(taken.requests > 0 for taken in findings.samples)
    assert all(figure.values for figure in figures(findings, groups))


def paused_at(turn: int, run: Callable[..., Result]) -> Callable[..., Result]:
    """The run, at whose `turn`-th time the breaker pauses issuance."""
    turns = count(1)

    def run_in_turn(port: int, *rest: object) -> Result:
        if next(turns) != turn:
            return run(port, *rest)
        override(port, "forced_open")
        done = run(port, *rest)
        override(port, "forced_closed")
        override(port, "auto")
        return done

    return run_in_turn


def override(port: int, mode: str) -> None:
    """Put the operator's word over the breaker's own."""
    url = f"http://127.0.0.1:{port}/v1/breaker"
    httpx.put(url, json={"mode": mode, "reason": "test"}, trust_env=False).raise_for_status()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_run_that_the_breaker_paused_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    after_the_warm_up = 2
    monkeypatch.setattr("loadtest.bench.rounds.visit", paused_at(after_the_warm_up, visit))
    monkeypatch.setattr("loadtest.bench.rounds.ask_at_pace", paused_at(1, ask_at_pace))
    task = Task((Group.LATENCY,), rounds=1, seconds=1, connections=(4,), coupons=0, profile=False)
    findings = measure(task, lambda _: None)
    assert [taken.attempt for taken in findings.samples] == [2]
    assert [paced.attempt for paced in findings.paced] == [2]
