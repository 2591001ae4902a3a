"""The store against its model: any life that Hypothesis can think of ends the same in both.

`TIDEGATE_SOAK_EXAMPLES=5000` makes it think for longer than a test run has time for.
"""

import asyncio
import os
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from service.store import extensions
from service.store.client import connect
from tests.store.life import CampaignLife
from tests.store.server import running_store
from tests.store.tended_life import CHUNK

EXAMPLES: Final = int(os.environ.get("TIDEGATE_SOAK_EXAMPLES", "50"))
STEPS: Final = 45


def test_the_store_lives_any_life_as_its_model_does(store_program: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", CHUNK)
    limits = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    with running_store(store_program) as server, asyncio.Runner() as runner:
        client = connect(server.url, timeout_ms=5_000)
        try:
            machine: Any = partial(CampaignLife, runner.run, client, server)
            run_state_machine_as_test(machine, settings=limits)
        finally:
            runner.run(client.aclose())
