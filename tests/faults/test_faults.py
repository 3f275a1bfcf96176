"""The fault matrix: whatever a server does wrong, the caller is told right, and in time."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from itertools import count
from pathlib import Path

import aiohttp
import faults_bodies
import faults_http
import faults_streamed
import httpx2
import pytest
from fault_cells import Cell, Fault
from fault_wires import WIRES

from minillmlib import Transport
from minillmlib.client import deferred_cost as late
from minillmlib.client import stream_reader
from minillmlib.httpx import HttpxTransport
from minillmlib.transport.aiohttp import AiohttpTransport

CERTIFICATES = ssl.create_default_context()  # once, since to read them takes a while
MAX_TOGETHER = 4  # faults that wait
START_SECS = 0.004  # between their calls, so that starting them keeps none of them from its clock
FAULTS = [*faults_http.FAULTS, *faults_bodies.FAULTS, *faults_streamed.FAULTS]


@asynccontextmanager
async def over_httpx2():
    keeps_all = httpx2.Limits()  # by default no more than 20 connections
    async with httpx2.AsyncClient(verify=CERTIFICATES, limits=keeps_all) as client:
        yield HttpxTransport(client)


TRANSPORTS: Mapping[str, Callable[[], AbstractAsyncContextManager[Transport]]] = {
    "aiohttp": lambda: nullcontext(AiohttpTransport()),
    "httpx2": over_httpx2,
}


# Of the cells that are not about a clock a third is recorded and replayed, in turn, so that each
# row, wire and mode is: all of them would take half a minute more.
RECORDED_SHARE = 3

# An engine that reads one wire's bytes right reads any: these wires are tried over the first alone.
ON_ONE_ENGINE = ("responses", "completions", "azure", "azure-dated", "azure-responses")


def cells_of(fault: Fault) -> list[Cell]:
    return [
        Cell(fault, provider, mode, transport)
        for provider in fault.providers
        for mode in fault.modes
        for transport in TRANSPORTS
        if provider not in ON_ONE_ENGINE or transport == "aiohttp"
    ]


@pytest.fixture(autouse=True)
def _short_waits_for_late_costs(monkeypatch):
    monkeypatch.setattr(late, "WAITS_SECS", (0.01, 0.01))


@pytest.fixture(autouse=True)
def _no_real_resolver(monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *rest, **more):
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def is_waiting(fault: Fault) -> bool:
    """Whether most of the time that a fault takes is spent in waiting."""
    expected = (fault.expect, fault.streamed, fault.over_httpx2)
    has_clock = any(one is not None and one.secs is not None for one in expected)
    return has_clock or fault.is_warm or fault.pause_secs > 0


def rows():
    """Faults by themselves, and those that wait in groups that do so together."""
    groups = defaultdict(list)
    for fault in FAULTS:
        waits_for = (fault.grace_secs, fault.ignores) if is_waiting(fault) else fault.name
        groups[waits_for].append(fault)
    for group in groups.values():
        for start in range(0, len(group), MAX_TOGETHER):
            faults = group[start : start + MAX_TOGETHER]
            filters = [pytest.mark.filterwarnings(f"ignore:{start}:ResourceWarning")
                       for start in faults[0].ignores]  # fmt: skip
            yield pytest.param(faults, marks=filters, id=" + ".join(one.name for one in faults))


async def complaints_about(
    faults: list[Fault],
    transports: Mapping[str, Transport],
    *,
    has_fallback: bool = False,
    folder: Path | None = None,
) -> list[str]:
    """Make all calls of some faults at once, and return what of them is not right.

    With a folder, a share of them is recorded there, and replayed.
    """

    are_waiting = is_waiting(faults[0])
    turns = asyncio.Semaphore(1000 if are_waiting else 8)  # else none had its time for its own

    async def verdict_of(number: int, cell: Cell) -> str:
        path = None
        if folder is not None and not cell.fault.is_about_a_clock:
            place = FAULTS.index(cell.fault) + number
            path = None if place % RECORDED_SHARE else folder / str(number)
        await asyncio.sleep(number * START_SECS if are_waiting else 0)
        async with turns:
            transport = transports[cell.transport]
            said = await cell.complaints(transport, has_fallback=has_fallback, path=path)
        return f"{cell}: {'; '.join(said)}" if said else ""

    cells = [cell for fault in faults for cell in cells_of(fault) if cell.transport in transports]
    verdicts = await asyncio.gather(*map(verdict_of, count(), cells))
    if faults[0].ignores:
        gc.collect()  # what is left behind is warned of here, where the warning is ignored
    return [verdict for verdict in verdicts if verdict]


@pytest.mark.parametrize("faults", [*rows()])
async def test_a_fault_is_told_in_time_recorded_and_leaves_the_tree(
    faults, record_property, monkeypatch
):
    if faults[0].grace_secs is not None:
        monkeypatch.setattr(stream_reader, "USAGE_GRACE_SECS", faults[0].grace_secs)
    async with AsyncExitStack() as stack:
        transports = {
            name: await stack.enter_async_context(make()) for name, make in TRANSPORTS.items()
        }
        wrong = await complaints_about(faults, transports)
    assert not wrong, "\n".join(wrong)
    record_property("right_cells", sum(len(cells_of(fault)) for fault in faults))


@pytest.mark.long
@pytest.mark.parametrize("faults", [*rows()])
async def test_a_fallback_answers_after_a_fault_that_another_model_may_cure_also_in_a_replay(
    faults, monkeypatch, tmp_path
):
    if faults[0].grace_secs is not None:
        monkeypatch.setattr(stream_reader, "USAGE_GRACE_SECS", faults[0].grace_secs)
    real = aiohttp.ClientSession._request

    # As a recorder does it, so that these go all the way through aiohttp's session.
    async def record(session, *args, **options):
        return await real(session, *args, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", record)
    transports = {"aiohttp": AiohttpTransport()}
    wrong = await complaints_about(faults, transports, has_fallback=True, folder=tmp_path)
    assert not wrong, "\n".join(wrong)


def test_the_matrix_is_as_large_as_it_says():
    cells = [str(cell) for fault in FAULTS for cell in cells_of(fault)]
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60
    assert len(set(cells)) == len(cells) >= 1000
    assert {cell.split(" / ")[1] for cell in cells} == set(WIRES)
