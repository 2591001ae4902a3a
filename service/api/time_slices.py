"""Why: where a stampede on issue keeps a core busy, those who need it for a moment should not wait for their turn: a
redemption, the store, and the kernel's own threads, without which no write of the store comes to its end.

Linux lets whoever has asked for shorter time slices go before one who has asked for longer ones as soon as he wakes up
(since 6.12: EEVDF, `sched_setattr(2)`). How much time each gets stays as it is.
"""

import ctypes
import os
import platform
import sys
from struct import Struct
from typing import Final

from service.settings import Group

SHORT_NS: Final = 100_000
"""The shortest that there is."""
LONG_NS: Final = 4_000_000
"""Longer than what everybody has by default, 3 ms at most, and no longer than between two of most kernels' ticks: two
processes that issue on one core wait so long for each other."""

_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
"""The C library has had no function for this call for most of its life; these are the kernel's numbers."""
_ATTRIBUTES: Final = Struct("=IIQiIQQQ")
"""`struct sched_attr`: its size, policy, flags, nice, priority; runtime, deadline, period (ns)."""


def ask_for_slices(serves: Group | None) -> None:
    """Ask for short slices for this process and those that it starts if it serves redemption only, else for long ones.

    A kernel that does not know or does not grant it changes nothing, and no answer depends on it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    # Whoever was started with another policy was given it for a reason.
    if not sys.platform.startswith("linux") or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    slice_ns = SHORT_NS if serves == "redeem" else LONG_NS
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)
