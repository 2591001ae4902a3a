"""Coupons and redemptions as CSV: complete, quoted, harmless in a spreadsheet, and bounded."""

import csv
from io import StringIO

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.exports import FORMULA_BEGINS, csv_text
from service.api.parts import MAX_EXPORTS, Parts
from service.store import coupons
from tests.api.caller import Caller, contents, refusal
from tests.store.desk import Room

pytestmark = pytest.mark.anyio


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    """The file's rows, by the names of its columns."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(StringIO(answer.text, newline="")))


async def test_every_coupon_stands_in_the_file_as_it_stands_in_the_store(api: Caller, room: Room) -> None:
    await api.open()
    codes = [await api.code(f"user-{number}") for number in range(3)]
    await api.redeem(codes[0])
    await api.deactivate(codes[1])
    before = await contents(room)
    answer = await api.http.get("/v1/campaigns/spring/coupons.csv")
    assert answer.headers["x-total-count"] == "3"
    assert answer.headers["content-disposition"] == 'attachment; filename="spring-coupons.csv"'
    columns = ("code", "user_id", "status", "issued_at", "starts_at", "expires_at")
    drawn = {"drawn_amount": ""}
    assert rows(answer) == [{name: (await api.coupon(code))[name] for name in columns} | drawn for code in codes]
    assert await contents(room) == before


async def test_a_red_envelope_stands_in_the_file_with_what_it_has_drawn(api: Caller) -> None:
    envelope = {"kind": "red_envelope", "pot": 1_000, "shares": 3, "min_share": 1, "currency": "CNY"}
    await api.open(benefit=envelope, max_coupons=3, budget={"amount": 1_000, "currency": "CNY"})
    codes = [await api.code(f"user-{number}") for number in range(3)]
    found = rows(await api.http.get("/v1/campaigns/spring/coupons.csv"))
    amounts = [str((await api.coupon(code))["benefit"]["amount"]) for code in codes]
    assert [row["drawn_amount"] for row in found] == amounts
    assert sum(map(int, amounts)) == 1_000


async def test_every_coupon_that_was_ever_redeemed_stands_in_the_file_with_its_latest_redemption(api: Caller) -> None:
    await api.open()
    codes = [await api.code(f"user-{number}") for number in range(4)]
    committed = (await api.redeem(codes[0])).json()
    held = (await api.redeem(codes[1], hold=True)).json()
    first = (await api.redeem(codes[2], "order-2")).json()
    await api.settle("rollback", first["id"])
    back = (await api.redeem(codes[2], "order-3", order_amount=1000)).json()
    answer = await api.http.get("/v1/campaigns/spring/redemptions.csv")
    assert answer.headers["x-total-count"] == "3"
    expected = [
        {name: "" if value is None else str(value) for name, value in one.items()} for one in (committed, held, back)
    ]
    found = rows(answer)
    assert [row.pop("user_id") for row in found] == ["user-0", "user-1", "user-2"]
    assert {row.pop("currency") for row in found} == {"CNY"}
    assert found == expected


async def test_files_of_several_shards_and_pages_are_whole(
    api: Caller, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupons, "COUPONS_PER_PAGE", 3)
    monkeypatch.setattr(parts, "settings", parts.settings.model_copy(update={"campaign_shards": 3}))
    await api.open()
    users = {f"user-{number}" for number in range(20)}
    given_out = {await api.code(user) for user in users}
    found = rows(await api.http.get("/v1/campaigns/spring/coupons.csv"))
    assert {row["code"] for row in found} == given_out
    assert {row["user_id"] for row in found} == users
    assert len(found) == 20


async def test_a_campaign_without_coupons_has_a_file_with_a_head_only(api: Caller) -> None:
    await api.open()
    for what in ("coupons", "redemptions"):
        answer = await api.http.get(f"/v1/campaigns/spring/{what}.csv")
        assert rows(answer) == []
        assert answer.text.count("\r\n") == 1


@pytest.mark.parametrize("what", ["coupons", "redemptions"])
async def test_there_is_no_file_of_a_campaign_that_is_not_there(api: Caller, what: str) -> None:
    for name in ("never-heard-of", "x" * 1_000, "%00", "a b"):
        assert refusal(await api.http.get(f"/v1/campaigns/{name}/{what}.csv")) == (404, "not_found")


async def test_more_files_at_once_than_a_process_streams_are_refused(api: Caller, parts: Parts) -> None:
    await api.open()
    for _ in range(2 * MAX_EXPORTS):
        rows(await api.http.get("/v1/campaigns/spring/coupons.csv"))
    for _ in range(MAX_EXPORTS):
        await parts.export_places.acquire()
    refused = await api.http.get("/v1/campaigns/spring/coupons.csv")
    assert refusal(refused) == (503, "too_many_exports")
    assert int(refused.headers["retry-after"]) > 0
    parts.export_places.release()
    rows(await api.http.get("/v1/campaigns/spring/coupons.csv"))


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=4), max_size=5))
def test_any_text_comes_back_from_the_file_and_none_is_a_formula(table: list[list[str]]) -> None:
    read = list(csv.reader(StringIO(csv_text(table), newline="")))
    assert not [cell for row in read for cell in row if cell.startswith(FORMULA_BEGINS)]
    assert read == [[f"'{cell}" if cell.startswith(FORMULA_BEGINS) else cell for cell in row] for row in table]
