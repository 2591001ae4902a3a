"""Who redeems only goes before who issues, where they share a core: each asks the kernel for time slices to match."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Group
from tests.api.process import running_api
from tests.store.server import StoreServer

SINCE = (6, 12)
ASK = "import os; from service.api.time_slices import ask_for_slices; ask_for_slices({serves!r})"
TELL = "print(open('/proc/self/sched').read(), 'policy', os.sched_getscheduler(0), 'nice', os.nice(0))"


def kernel() -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found and sys.platform == "linux" else (0, 0)


needs_slices = pytest.mark.skipif(
    kernel() < SINCE or not Path("/proc/self/sched").exists(), reason="this kernel gives or shows no slices"
)


def slice_ns(scheduling: str) -> int:
    found = re.search(r"^se\.slice *: *(\d+)$", scheduling, re.MULTILINE)
    assert found is not None
    return int(found[1])


def told(serves: Group | None, before: str = "") -> str:
    program = f"{before}\n{ASK.format(serves=serves)}\n{TELL}"
    return subprocess.run((sys.executable, "-c", program), check=True, capture_output=True, text=True).stdout


@needs_slices
@pytest.mark.parametrize(("serves", "expected_ns"), [("redeem", 100_000), ("issue", 4_000_000), (None, 4_000_000)])
def test_slices_follow_from_what_a_process_serves_and_its_priority_stays(
    serves: Group | None, expected_ns: int
) -> None:
    said = told(serves, "import os; os.nice(3)")
    assert slice_ns(said) == expected_ns
    assert said.endswith("policy 0 nice 3\n")


@needs_slices
def test_a_policy_that_somebody_else_has_chosen_stays() -> None:
    chosen = "import os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"
    said = told("redeem", chosen)
    assert slice_ns(said) > 100_000
    assert f"policy {os.SCHED_BATCH} " in said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a system call of Linux")
def test_a_kernel_that_grants_nothing_is_no_reason_not_to_serve() -> None:
    program = f"from service.api import time_slices; time_slices._SCHED_SETATTR = dict.fromkeys(%r, 100000); {ASK}"
    subprocess.run((sys.executable, "-c", program.format(serves=None) % [platform.machine()]), check=True)


@needs_slices
def test_an_api_process_asks_as_it_starts(own_store: StoreServer, tmp_path: Path) -> None:
    with running_api(own_store.url, tmp_path / "log", TIDEGATE_SERVE_ONLY="redeem") as api:
        assert slice_ns(Path(f"/proc/{api.process.pid}/sched").read_text()) == 100_000
