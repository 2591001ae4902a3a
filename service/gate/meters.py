"""Why: one campaign's stampede must be told from everybody's trouble, so each campaign's line is measured by itself."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from service.domain.saturation import Sample, Signal

SLOTS: Final = 10
MOST_CAMPAIGNS: Final = 64
"""How many campaigns are measured apart; those that come later count together, under no name."""
TOGETHER: Final = ""
IDLE_SAMPLES: Final = 600
"""For so long, a minute, a campaign without a request still is somebody's neighbour."""
PEAK_KEPT: Final = 0.999
"""What is left of a peak after one sample; after a minute it is about half."""


class Line(NamedTuple):
    """How one line stands: requests that wait, requests in the call under way, and that call's age (0: none)."""

    campaign_id: str
    waiting: int
    under_way: int
    call_s: float

    @property
    def in_flight(self) -> int:
        """All of them."""
        return self.waiting + self.under_way


class _Slot:
    """What one campaign's batches said between two samples."""

    __slots__ = ("least_waited_s", "requests", "round_trips_s", "served", "waited_s")

    def __init__(self) -> None:
        self.requests = 0
        self.waited_s = 0.0
        self.served = 0
        self.round_trips_s = 0.0
        self.least_waited_s: float | None = None


class _Meter:
    """One campaign's second."""

    __slots__ = ("idle", "in_flight", "peak", "requests", "served", "slots", "waited_s")

    def __init__(self) -> None:
        self.slots = [_Slot() for _ in range(SLOTS)]
        self.idle = 0
        self.peak = 0.0
        self.requests = 0
        self.waited_s = 0.0
        self.served = 0
        self.in_flight = 0

    def sum_up(self) -> None:
        self.requests = sum(slot.requests for slot in self.slots)
        self.waited_s = sum(slot.waited_s for slot in self.slots)
        self.served = sum(slot.served for slot in self.slots)
        self.peak = max(self.peak * PEAK_KEPT, self.served)
        self.idle = 0 if self.requests or self.in_flight else self.idle + 1

    @property
    def mean_wait_s(self) -> float:
        return self.waited_s / self.requests if self.requests else 0.0


class CampaignMeters:
    """The campaigns' meters of one process. Batches are counted between `begin_slot` and `read`, once a sample."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}
        self._at = 0
        self._peak = 0.0

    def count(self, campaign_id: str, size: int, waited_s: float, least_waited_s: float, served_in_s: float) -> None:
        """Count a batch whose oldest and youngest request waited so long; `served_in_s` is 0 where the call failed."""
        slot = self._meter(campaign_id).slots[self._at]
        slot.requests += size
        slot.waited_s += waited_s * size
        if served_in_s:
            slot.served += size
            slot.round_trips_s += (waited_s + served_in_s) * size
        if slot.least_waited_s is None or least_waited_s < slot.least_waited_s:
            slot.least_waited_s = least_waited_s

    def read(self, lines: Iterable[Line], limit: float) -> dict[str, Sample]:
        """Return the line signals of everybody, under no name, and of each campaign that has neighbours.

        For everybody the campaign that waits longest is left out: its own breaker answers for it.
        """
        for meter in self._meters.values():
            meter.in_flight = 0
        for line in lines:
            self._meter(line.campaign_id).in_flight += line.in_flight
        for meter in self._meters.values():
            meter.sum_up()
        self._meters = {name: meter for name, meter in self._meters.items() if meter.idle < IDLE_SAMPLES}
        self._peak = max(self._peak * PEAK_KEPT, sum(meter.served for meter in self._meters.values()))
        if len(self._meters) < 2:
            return {TOGETHER: self._sample(self._meters.values(), limit)}
        named = {name: meter for name, meter in self._meters.items() if name != TOGETHER}
        worst = max(named, key=lambda name: (named[name].mean_wait_s, named[name].in_flight))
        samples = {name: self._sample([meter], limit) for name, meter in named.items()}
        others = [meter for name, meter in self._meters.items() if name != worst]
        return samples | {TOGETHER: self._sample(others, limit)}

    def begin_slot(self) -> None:
        """Count into the next slot from now on."""
        self._at = (self._at + 1) % SLOTS
        for meter in self._meters.values():
            meter.slots[self._at] = _Slot()

    def round_trip_s(self) -> float:
        """Return the mean time of the requests since the last sample, from arrival to answer; 0 without any."""
        slots = [meter.slots[self._at] for meter in self._meters.values()]
        served = sum(slot.served for slot in slots)
        return sum(slot.round_trips_s for slot in slots) / served if served else 0.0

    def peak_per_second(self, campaign_id: str) -> float:
        """Return the most requests served in a second of late, of one campaign or, under no name, of everybody."""
        if campaign_id == TOGETHER:
            return self._peak
        meter = self._meters.get(campaign_id)
        return 0.0 if meter is None else meter.peak

    def _sample(self, meters: Iterable[_Meter], limit: float) -> Sample:
        requests = waited_s = in_flight = 0.0
        standing_s: float | None = None
        for meter in meters:
            requests += meter.requests
            waited_s += meter.waited_s
            in_flight += meter.in_flight
            least_s = meter.slots[self._at].least_waited_s
            if least_s is not None and (standing_s is None or least_s < standing_s):
                standing_s = least_s
        return {
            Signal.QUEUE_WAIT: waited_s / requests if requests else 0.0,
            Signal.QUEUE_STANDING: standing_s or 0.0,
            Signal.IN_FLIGHT: in_flight / limit,
        }

    def _meter(self, campaign_id: str) -> _Meter:
        meter = self._meters.get(campaign_id)
        if meter is not None:
            return meter
        if len(self._meters) >= MOST_CAMPAIGNS and campaign_id != TOGETHER:
            return self._meter(TOGETHER)
        meter = self._meters[campaign_id] = _Meter()
        return meter
