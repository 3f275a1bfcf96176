"""The fault matrix: whatever a server does wrong, the caller is told right, and in time."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

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
FAULTS = [*faults_http.FAULTS, *faults_bodies.FAULTS, *faults_streamed.FAULTS]


@asynccontextmanager
async def over_httpx2():
    async with httpx2.AsyncClient(verify=CERTIFICATES) as client:
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


def marked(fault: Fault):
    filters = [pytest.mark.filterwarnings(f"ignore:{start}:ResourceWarning")
               for start in fault.ignores]  # fmt: skip
    return pytest.param(fault, marks=filters, id=fault.name)


@pytest.mark.parametrize("fault", [marked(fault) for fault in FAULTS])
async def test_a_fault_is_told_in_time_recorded_and_leaves_the_tree(
    fault, record_property, monkeypatch
):
    if fault.grace_secs is not None:
        monkeypatch.setattr(stream_reader, "USAGE_GRACE_SECS", fault.grace_secs)
    cells = cells_of(fault)
    async with AsyncExitStack() as stack:
        transports = {
            name: await stack.enter_async_context(make()) for name, make in TRANSPORTS.items()
        }
        # Cells that only wait do so together; of the others a few, so that their time is their own.
        is_waiting = any(cell.expect.secs is not None for cell in cells)
        turns = asyncio.Semaphore(len(cells) if is_waiting else 4)

        async def verdict_of(cell: Cell) -> list[str]:
            async with turns:
                return await cell.complaints(transports[cell.transport])

        verdicts = await asyncio.gather(*map(verdict_of, cells))
    if fault.ignores:
        gc.collect()  # what is left behind is warned of here, where the warning is ignored
    wrong = [
        f"{cell}: {'; '.join(said)}" for cell, said in zip(cells, verdicts, strict=True) if said
    ]
    assert not wrong, "\n".join(wrong)
    record_property("right_cells", len(cells))


@pytest.mark.parametrize("fault", [marked(fault) for fault in FAULTS])
async def test_a_fallback_answers_after_a_fault_that_another_model_may_cure_also_in_a_replay(
    fault, monkeypatch, tmp_path
):
    if fault.grace_secs is not None:
        monkeypatch.setattr(stream_reader, "USAGE_GRACE_SECS", fault.grace_secs)
    cells = [cell for cell in cells_of(fault) if cell.transport == "aiohttp"]
    transport = AiohttpTransport()
    first = FAULTS.index(fault)
    recorded = [
        not (fault.is_about_a_clock or (first + n) % RECORDED_SHARE) for n in range(len(cells))
    ]
    calls = [
        cell.complaints(
            transport, has_fallback=True, path=tmp_path / str(n) if is_recorded else None
        )
        for n, (cell, is_recorded) in enumerate(zip(cells, recorded, strict=True))
    ]
    verdicts = await asyncio.gather(*calls)
    if fault.ignores:
        gc.collect()
    wrong = [
        f"{cell}: {'; '.join(told)}" for cell, told in zip(cells, verdicts, strict=True) if told
    ]
    assert not wrong, "\n".join(wrong)


def test_the_matrix_is_as_large_as_it_says():
    cells = [str(cell) for fault in FAULTS for cell in cells_of(fault)]
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60
    assert len(set(cells)) == len(cells) >= 1000
    assert {cell.split(" / ")[1] for cell in cells} == set(WIRES)
