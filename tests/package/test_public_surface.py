"""The door: what is public, that it is explained, and what importing it does not do."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import subprocess
import sys
import typing

import pytest
from doors import DOORS

import minillmlib
import minillmlib.testing


def test_all_is_sorted_and_complete():
    assert all(hasattr(minillmlib, name) for name in minillmlib.__all__)
    assert set(minillmlib.__all__) <= set(dir(minillmlib))
    public = {
        name for name, value in vars(minillmlib).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }  # fmt: skip
    assert minillmlib.__all__ == sorted(minillmlib.__all__)
    assert set(minillmlib.__all__) == public | {"__version__"}


def test_public_objects_say_where_they_are_imported_from():
    for name in minillmlib.__all__:
        value = getattr(minillmlib, name)
        is_ours = value is not typing.Any  # a name of ours for it is not
        if is_ours and (inspect.isclass(value) or inspect.isfunction(value)):
            assert value.__module__ == "minillmlib", name


def test_a_name_that_is_not_public_is_an_error_that_names_it():
    with pytest.raises(AttributeError) as caught:
        minillmlib.nothing  # noqa: B018 - reading it is the test
    assert str(caught.value) == "module 'minillmlib' has no attribute 'nothing'"
    assert dir(minillmlib) == sorted({*vars(minillmlib), *minillmlib.__all__})


@pytest.mark.parametrize(
    "name",
    ["AnswerCache", "Bank", "BankLike", "Bulk", "BulkReport", "BulkRuntime", "JsonChange",
     "JsonChangeKind", "Lease", "Recording", "RepairResult", "loads", "log_requests", "repair",
     "repair_json"],
)  # fmt: skip
def test_what_few_programs_need_is_imported_on_its_first_use_and_kept(name, monkeypatch):
    before = getattr(minillmlib, name)
    monkeypatch.delitem(vars(minillmlib), name)
    assert name in dir(minillmlib)
    found = getattr(minillmlib, name)
    assert found is before
    assert (vars(minillmlib)[name], found.__module__) == (before, "minillmlib")


def test_what_is_not_ours_stays_where_it_is():
    assert typing.Any.__module__ == "typing"
    assert pickle.loads(pickle.dumps(list[typing.Any])) == list[typing.Any]


def public_objects():
    for door in DOORS:
        for name in door.__all__:
            value = getattr(door, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{door.__name__}.{name}", value


def members_of(value):
    if not inspect.isclass(value):
        return
    for name, attribute in vars(value).items():
        member = getattr(attribute, "__func__", attribute)
        if not name.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, property)
        ):
            yield name, member


@pytest.mark.parametrize(("name", "value"), list(public_objects()))
def test_everything_public_has_a_docstring(name, value):
    assert inspect.getdoc(value), name
    for member_name, member in members_of(value):
        assert inspect.getdoc(member), f"{name}.{member_name}"


@pytest.mark.parametrize("door", DOORS)
def test_help_and_type_hints_work_for_everything_public(door):
    assert pydoc.render_doc(door)
    for _, value in public_objects():
        assert pydoc.render_doc(value)
        typing.get_type_hints(value)
        for _, member in members_of(value):
            if inspect.isfunction(member):
                typing.get_type_hints(member)


def in_new_process(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_opens_no_socket_and_no_file_and_brings_no_http_library():
    program = """
import sys
opened = []
def watch(event, args):
    if event.startswith("socket.") and event != "socket.gethostname" or event == "subprocess.Popen":
        opened.append(event)
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        opened.append(args)
sys.addaudithook(watch)
import minillmlib
http = {"aiohttp", "httpx", "httpx2", "requests", "urllib3", "http.client", "urllib.request"}
print(opened, sorted(http & set(sys.modules)), "asyncio" in sys.modules)
late = ("hashlib", "logging", "minillmlib.json_repair.")
print(sorted(name for name in sys.modules if name.startswith(late)))
"""
    assert in_new_process(program) == "[] [] False\n[]\n"


def test_the_http_library_comes_with_the_first_request():
    program = """
import sys, minillmlib as m
from minillmlib.testing import ScriptedTransport
generator = m.GeneratorInfo.custom("c", "http://127.0.0.1:1/v1", "m")
print("aiohttp" in sys.modules)
try:
    m.run(m.ChatNode.root("s").chat("u", generator, m.NodeCompletionParameters(retry=0)))
except m.ConnectError:
    print("aiohttp" in sys.modules)
"""
    assert in_new_process(program) == "False\nTrue\n"
