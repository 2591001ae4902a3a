"""Why: a million lines are checked before one of them counts: page by page, then all together, then in one switch.

What a step has found stands in the import itself, so a step that is repeated finds the same; nobody sees any of it
until the import is published.
"""

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from service.domain.benefit import RedEnvelope
from service.domain.campaign import Campaign
from service.domain.imported_codes import mistake_in, read_line, sorted_order
from service.store.catalogue import Catalogue, Stale
from service.store.imports import MOST_BAD_LINES, PAGE, BadLines, ImportStore
from service.store.long_jobs import JobProgress, JobRecord, JobStatus
from worker.long_work import STEP_S

GONE: Final = "the file is gone; import it again"
TOO_FEW: Final = "a red envelope needs a code for each of its shares"
IMPORTED_BEFORE: Final = "the campaign's codes were imported before"
WHOSE: Final = "nobody could tell whose a code is that begins with both"


@dataclass(frozen=True, slots=True)
class File:
    """The file of an import: how many lines and pages of them it has, and how many lines of heading before."""

    campaign: Campaign
    import_id: str
    lines: int
    pages: int
    heading: int

    def number(self, index: int) -> int:
        """The line of the file that the code with that index stands in."""
        return index + 1 + self.heading


class Importing:
    """The steps of an import. Each raises StoreError when the store does not answer."""

    def __init__(self, catalogue: Catalogue, imports: ImportStore) -> None:
        self._catalogue = catalogue
        self._imports = imports

    async def step(self, record: JobRecord) -> JobProgress:
        """Check the next pages, or index the codes, or publish them; the checkpoint says which."""
        campaign = await self._catalogue.load(record.campaign_id)
        if campaign is None:
            return JobProgress(0, 0, JobStatus.FAILED, error=GONE)
        arguments = record.arguments
        file = File(campaign, arguments["import"], arguments["lines"], arguments["pages"], arguments["heading"])
        stage, _, page = record.progress.checkpoint.partition(" ")
        match stage:
            case "index":
                return await self._index(file)
            case "publish":
                return await self._publish(file)
            case _:
                return await self._check(file, int(page or 0))

    async def _check(self, file: File, page: int) -> JobProgress:
        until_s = time.monotonic() + STEP_S
        bad = await self._imports.bad_lines(file.campaign.id, file.import_id)
        while page < file.pages and len(bad) < MOST_BAD_LINES:
            lines = await self._imports.lines(file.campaign.id, file.import_id, page)
            if not lines:
                return await self._fail(file, GONE)
            codes = [read_line(line) for line in lines]
            for index, code in enumerate(codes, start=page * PAGE):
                why = mistake_in(code, file.campaign.code_prefix)
                if why is not None and len(bad) < MOST_BAD_LINES:
                    bad[file.number(index)] = why
            await self._imports.put_codes(file.campaign.id, file.import_id, page, "\n".join(codes).encode(), bad)
            page += 1
            if time.monotonic() >= until_s:
                break
        if len(bad) >= MOST_BAD_LINES or (bad and page == file.pages):
            return await self._fail(file, _told(bad))
        done = min(file.lines, page * PAGE)
        return JobProgress(done, file.lines, checkpoint="index" if page == file.pages else f"check {page}")

    async def _index(self, file: File) -> JobProgress:
        pages = await self._imports.codes_of(file.campaign.id, file.import_id, file.pages)
        codes = [code for page in pages for code in page]
        if len(codes) != file.lines:
            return await self._fail(file, GONE)
        if isinstance(file.campaign.benefit, RedEnvelope) and file.lines < file.campaign.max_coupons:
            return await self._fail(file, TOO_FEW)
        order = sorted_order(codes)
        if len(set(codes)) < len(codes):
            twice = [(first, again) for first, again in pairwise(order) if codes[first] == codes[again]]
            bad = {file.number(again): f"is the same as line {file.number(first)}" for first, again in twice}
            return await self._fail(file, _told(bad))
        await self._imports.put_order(file.campaign.id, file.import_id, order, file.pages)
        return JobProgress(file.lines, file.lines, checkpoint="publish")

    async def _publish(self, file: File) -> JobProgress:
        old = file.campaign
        overlapping = await self._catalogue.note_imported(old)
        if overlapping is not None:
            return await self._fail(file, f"code_prefix {old.code_prefix} overlaps {overlapping}: {WHOSE}")
        word = await self._imports.publish(old.id, file.import_id)
        if word != "published":
            return await self._fail(file, IMPORTED_BEFORE if word == "imported_before" else GONE)
        if old.imported_codes != file.lines:
            fewer = min(old.max_coupons, file.lines)
            try:
                new = replace(old, imported_codes=file.lines, max_coupons=fewer, version=old.version + 1)
                await self._catalogue.update(old, new)
            except Stale:
                return JobProgress(file.lines, file.lines, checkpoint="publish")
        return JobProgress(file.lines, file.lines, JobStatus.COMPLETED)

    async def _fail(self, file: File, error: str) -> JobProgress:
        await self._imports.drop(file.campaign.id, file.import_id)
        return JobProgress(0, file.lines, JobStatus.FAILED, error=error)


def _told(bad: BadLines) -> str:
    told = "; ".join(f"line {line} {bad[line]}" for line in sorted(bad)[:MOST_BAD_LINES])
    return told if len(bad) < MOST_BAD_LINES else f"{told}; and perhaps more"
