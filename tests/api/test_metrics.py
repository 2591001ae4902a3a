"""/metrics tells what was counted and what the store says, under the promised names, and names no user, code or key."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.api import metrics
from service.api.app import fastapi_lane
from service.api.parts import Parts
from service.domain.breaker import Mode
from service.domain.campaign import CampaignStatus
from service.domain.outcomes import Overloaded
from service.domain.tickets import Ticket
from service.domain.webhooks import Health
from service.gate.signals import BatchReport
from service.store.keys import state_key
from tests.api.caller import Caller, refusal, settings
from tests.api.test_tickets import issue, ticket_of
from tests.store.desk import LAUNCH, TURNABLE_CLOCK, Room
from tests.store.server import StoreServer
from tests.story.running import free_port
from tests.story.test_deploy import COUNTERS_AND_GAUGES, HISTOGRAMS

pytestmark = pytest.mark.anyio

PROMISED = {
    "issue_total": {"campaign", "outcome"},
    "redeem_total": {"campaign", "outcome"},
    "http_request_duration_seconds_bucket": {"call", "status", "le"},
    "slow_lane_total": {"call"},
    "batch_size_bucket": {"verb", "le"},
    "batch_wait_seconds_bucket": {"verb", "le"},
    "store_call_seconds_bucket": {"verb", "le"},
    "breaker_state": {"state"},
    "breaker_transitions_total": {"from", "to", "reason"},
    "breaker_signal": {"signal"},
    "coupons": {"campaign", "status"},
    "budget_remaining": {"campaign", "currency"},
    "bucket_tokens": {"campaign"},
    "coupon_conservation_error": {"campaign"},
    "extension_progress_ratio": {"campaign", "extension"},
    "queue_jobs": {"queue", "state"},
    "queue_oldest_job_age_seconds": {"queue"},
}

Labels = dict[str, str]


def samples(text: str, name: str) -> list[tuple[Labels, float]]:
    """Every sample of that name."""
    families = text_string_to_metric_families(text)
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == f"tidegate_{name}"]


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of that name with these labels among its own."""
    (found,) = [number for own, number in samples(text, name) if labels.items() <= own.items()]
    return found


def counted(text: str) -> dict[str, float]:
    """What is counted of requests, outcomes and batches, all in all."""
    names = "issue_total", "redeem_total", "shed_total", "batch_size_count", "batch_size_sum", "store_call_seconds_sum"
    return {name: sum(number for _, number in samples(text, name)) for name in names}


async def test_whoever_looks_twice_sees_the_same_and_what_is_over_a_bound_in_the_bucket_above_it(
    api: Caller, parts: Parts
) -> None:
    await a_busy_hour(api)
    parts.metrics.count_unserved("redeem", None, Overloaded(), "redemption")
    for size in (8, 9, 300):
        parts.metrics.observe_batch(BatchReport("redeem", size, 0.0, 0.0, None, "spring", 0.0))
    first, second = (parts.metrics.exposition().decode() for _ in range(2))
    assert counted(first) == counted(second)
    assert value(first, "redeem_total", campaign="other", outcome="overloaded") == 1
    sizes = {own["le"]: number for own, number in samples(first, "batch_size_bucket") if own["verb"] == "redeem"}
    assert [sizes["16.0"] - sizes["8.0"], sizes["+Inf"] - sizes["256.0"]] == [1, 1]


async def a_busy_hour(api: Caller) -> list[str]:
    """Everything that is counted happens; returns what no label may ever be."""
    await api.open()
    issued = [await api.issue(f"user-{number}", "key-of-ann") for number in range(4)]
    codes = [answer.json()["code"] for answer in issued]
    await api.issue("user-0", "key-of-ann")
    redeemed = (await api.redeem(codes[0], "order-99")).json()["id"]
    await api.redeem(codes[1], hold=True)
    await api.redeem(codes[0], "order-98")
    await api.deactivate(codes[2])
    await api.extend()
    await api.issue("user-9", campaign="never-heard-of")
    await api.http.get("/v1/coupons/QWEN-FORGED")
    await api.override("forced_open", reason="the words of an operator")
    await api.issue("user-9", campaign="never-heard-of")
    await api.issue("user-9")
    secrets = ["user-", "key-of-ann", "order-99", "tea-house", "never-heard-of", "FORGED", "words of an operator"]
    return [*codes, redeemed, *secrets]


async def test_every_promised_metric_is_there_with_its_labels(api: Caller) -> None:
    await a_busy_hour(api)
    text = await api.metrics()
    for name, labels in PROMISED.items():
        found = samples(text, name)
        assert found, name
        assert {frozenset(own) for own, _ in found} == {frozenset(labels)}, name
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert len({family.name for family in families}) == len(families)


async def test_whatever_rules_and_dashboard_read_is_on_a_real_exposition(api: Caller) -> None:
    families = {family.name for family in text_string_to_metric_families(await api.metrics())}
    assert {f"tidegate_{name.removesuffix('_total')}" for name in (*COUNTERS_AND_GAUGES, *HISTOGRAMS)} == families


async def test_open_jobs_and_webhooks_that_fail_are_shown_and_what_is_well_is_not(api: Caller, parts: Parts) -> None:
    await api.open()
    await api.extend()
    register = {"url": "https://receiver.example/", "types": ["coupon.issued"]}
    failing, _well = [(await api.http.post("/v1/webhooks", json=register)).json()["id"] for _ in range(2)]
    hooks = {hook.id: hook for hook, _ in await parts.webhooks.list()}
    await parts.webhooks.note_failure(hooks[failing], Health().after_failure("no answer", LAUNCH, 1_000_000))
    text = await api.metrics()
    assert samples(text, "webhook_failing_since_timestamp_seconds") == [({"webhook": failing}, LAUNCH / 1000)]
    of_extension = {"kind": "extension", "campaign": "spring"}
    assert samples(text, "long_job_done") == [(of_extension, 0)]
    assert samples(text, "long_job_opened_timestamp_seconds") == [(of_extension, LAUNCH / 1000)]


async def test_what_was_issued_and_who_decides_about_a_campaign_are_shown(api: Caller) -> None:
    await api.open(
        benefit={"kind": "red_envelope", "pot": 1000, "shares": 10, "min_share": 1, "currency": "CNY"},
        max_coupons=10,
        budget=None,
    )
    drawn = (await api.issue()).json()["benefit"]["amount"]
    await api.override("forced_open", campaign="spring")
    text = await api.metrics()
    assert value(text, "money_issued", campaign="spring", currency="CNY") == drawn
    modes = {own["mode"]: number for own, number in samples(text, "campaign_breaker_mode")}
    assert modes == {mode.value: float(mode is Mode.FORCED_OPEN) for mode in Mode}


async def test_no_label_names_a_user_a_code_a_key_or_what_a_caller_made_up(api: Caller) -> None:
    secrets = await a_busy_hour(api)
    text = await api.metrics()
    assert [secret for secret in secrets if secret in text] == []


async def test_what_happened_is_counted_by_outcome(api: Caller) -> None:
    await a_busy_hour(api)
    text = await api.metrics()
    issues = {(own["campaign"], own["outcome"]): number for own, number in samples(text, "issue_total")}
    assert issues == {
        ("spring", "issued"): 4,
        ("spring", "replayed"): 1,
        ("spring", "issuance_paused"): 1,
        ("other", "issuance_paused"): 1,
    }
    redemptions = {own["outcome"]: number for own, number in samples(text, "redeem_total")}
    assert redemptions == {"redeemed": 1, "reserved": 1, "already_redeemed": 1}
    durations = {
        (own["call"], own["status"]): number for own, number in samples(text, "http_request_duration_seconds_count")
    }
    assert durations["issue", "2xx"] == 5
    assert durations["issue", "4xx"] == 1
    assert durations["issue", "5xx"] == 2
    assert (durations["redeem", "2xx"], durations["redeem", "4xx"]) == (2, 1)
    assert value(text, "batch_size_count", verb="issue") == value(text, "store_call_seconds_count", verb="issue") == 5
    assert value(text, "breaker_transitions_total") == 1


async def test_what_never_came_to_a_batch_because_the_store_is_away_is_counted_too(own_store: StoreServer) -> None:
    parts = Parts(settings(own_store.url))
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        for campaign, prefix in (("spring", "QWEN"), ("summer", "SUN")):
            await api.open(id=campaign, code_prefix=prefix, validity={"timezone": "UTC", "duration": "P7D"})
            code = (await api.issue(campaign=campaign)).json()["code"]
        await api.tell("pause")
        ticket = await ticket_of(api)
        own_store.kill()
        in_vain = [await api.issue("newcomer"), await issue(api, ticket)]
        in_vain += [await issue(api, parts.tickets.seal(Ticket("summer", 0, bytes(8), "ann")), campaign="summer")]
        in_vain += [await api.issue(campaign="autumn"), await api.redeem(code.replace("SUN", "OTHER"))]
        assert [refusal(answer) for answer in in_vain] == [(503, "store_unavailable")] * 5
        text = await api.metrics()
    unserved = {own["campaign"]: n for own, n in samples(text, "issue_total") if own["outcome"] == "store_unavailable"}
    assert unserved == {"spring": 2, "summer": 1, "other": 1}
    assert value(text, "redeem_total", campaign="other", outcome="store_unavailable") == 1


async def test_what_the_store_says_is_shown(api: Caller, room: Room) -> None:
    await a_busy_hour(api)
    await room.clock.advance(1)
    text = await api.metrics()
    coupons = {own["status"]: number for own, number in samples(text, "coupons")}
    assert coupons == {"outstanding": 1, "reserved": 1, "redeemed": 1, "expired": 0, "deactivated": 1}
    assert value(text, "coupons_issued", campaign="spring") == 4
    assert value(text, "coupons_remaining", campaign="spring") == 9_996
    assert value(text, "coupon_conservation_error", campaign="spring") == 0
    assert value(text, "budget_remaining", campaign="spring", currency="CNY") == 10**9 - 3 * 2500
    assert value(text, "liability", campaign="spring", currency="CNY") == 2 * 2500
    assert value(text, "bucket_tokens", campaign="spring") == 9_997
    assert value(text, "extension_progress_ratio", campaign="spring", extension="1") == 0
    assert value(text, "queue_jobs", state="queued") == 1
    assert {own["state"]: number for own, number in samples(text, "breaker_state")} == {
        "closed": 0,
        "open": 1,
        "half_open": 0,
    }
    assert value(text, "breaker_share_ratio") == 0
    assert value(text, "store_up") == 1


async def test_the_scheduler_was_seen_when_it_last_left_word_and_of_one_that_never_did_nothing_is_told(
    api: Caller, parts: Parts, room: Room
) -> None:
    assert samples(await api.metrics(), "scheduler_seen_timestamp_seconds") == []
    await parts.scheduler_heartbeat.beat()
    await room.clock.advance(60_000)
    assert value(await api.metrics(), "scheduler_seen_timestamp_seconds") == LAUNCH / 1000


async def test_records_that_were_never_counted_to_the_end_grow_older_from_the_first_day_on(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open()
    await api.issue()
    await room.clock.advance(60_000)
    text = await api.metrics()
    assert value(text, "recount_age_seconds", campaign="spring") == 60
    assert samples(text, "recount_error") == []
    (campaign,) = await parts.catalogue.list()
    while not (await parts.recounts.go_on(campaign, 0)).ended:
        pass
    await room.clock.advance(5_000)
    text = await api.metrics()
    assert value(text, "recount_age_seconds", campaign="spring") == 5
    assert value(text, "recount_error", of="coupons") == 0


async def test_the_status_is_the_one_that_the_campaign_shows(api: Caller, room: Room) -> None:
    window = {"starts_at": "2026-02-07T00:00:00+08:00", "ends_at": "2026-02-08T00:00:00+08:00"}
    await api.open(issue_window=window)
    for _ in range(2):
        shown = (await api.campaign())["status"]
        text = await api.metrics()
        statuses = {own["status"]: number for own, number in samples(text, "campaign_status")}
        assert statuses == {status.value: float(status == shown) for status in CampaignStatus}
        await room.clock.advance(86_400_000)


async def test_a_queue_that_is_away_hides_nothing_but_itself(room: Room, store_url: str) -> None:
    del room
    parts = Parts(settings(store_url, queue_url=f"redis://127.0.0.1:{free_port()}"), TURNABLE_CLOCK)
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        await api.open()
        text = await api.metrics()
    assert value(text, "store_up") == 1
    assert value(text, "coupon_conservation_error", campaign="spring") == 0
    assert samples(text, "queue_jobs") == samples(text, "queue_oldest_job_age_seconds") == []


async def test_a_damaged_shard_hides_no_campaign_but_its_own(api: Caller, room: Room) -> None:
    await api.open()
    await api.open(id="summer", code_prefix="SUN")
    await room.client.set(state_key("summer", 0), "damaged")
    text = await api.metrics()
    assert value(text, "store_up") == 1
    assert samples(text, "coupon_conservation_error") == [({"campaign": "spring"}, 0)]
    assert value(text, "queue_jobs", state="queued") == 0


async def test_only_so_many_campaigns_get_a_label_of_their_own(
    api: Caller, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MAX_CAMPAIGN_LABELS", 2)
    for number in range(4):
        await api.open(id=f"campaign-{number}", code_prefix=f"C{number}")
        await api.issue(campaign=f"campaign-{number}")
    del parts
    issues = {own["campaign"]: number for own, number in samples(await api.metrics(), "issue_total")}
    assert issues == {"campaign-0": 1, "campaign-1": 1, "other": 2}
