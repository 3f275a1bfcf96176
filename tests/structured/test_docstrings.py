"""What is read of docstrings in each style: the description of a tool and of its parameters."""

from __future__ import annotations

import pytest

from minillmlib import ToolDefinition


def read(doc):
    """The description of a tool with this docstring, and those of its parameters that have one."""

    def tool(query: str, top_k: int = 5, more: str = ""):
        pass

    tool.__doc__ = doc
    made = ToolDefinition.from_function(tool)
    parts = made.parameters["properties"]
    told = {name: part["description"] for name, part in parts.items() if "description" in part}
    return made.description, told


WHAT, BOTH = {"query": "What."}, {"query": "What.", "top_k": "How many."}
HEADINGS = ["Args", "Arguments", "Parameters", "Params", "Keyword Args", "Keyword Arguments",
            "Other Parameters"]  # fmt: skip


@pytest.mark.parametrize("heading", HEADINGS)
def test_each_heading_of_a_list_of_parameters(heading):
    entries = "    query: What.\n    top_k: How many.\n"
    assert read(f"Search.\n\n{heading}:\n{entries}\nReturns:\n    more: no") == ("Search.", BOTH)
    assert read(f"Search.\n{heading}:   \n{entries}") == ("Search.", BOTH)
    assert read(f"{heading}:\n{entries}") == (None, BOTH)
    assert read(f"Search.\n\n{heading}\n---\nquery\n    What.\n") == ("Search.", WHAT)
    assert read(f"Search.\n\n{heading.upper()}:\n{entries}") == ("Search.", BOTH)
    assert read(f"Search.\n\n{heading}: some\n{entries}")[1] == {}
    assert read(f"Search.\n\nMore {heading}:\n{entries}") == ("Search.", {})
    assert read(f"Search.\n\n{heading}:\nquery: no") == ("Search.", {})
    assert read(f"Search.\n\n{heading}:") == ("Search.", {})


@pytest.mark.parametrize("word", ["param", "parameter", "arg", "argument", "key", "keyword"])
@pytest.mark.parametrize("mark", [":", "@"])
def test_each_word_of_a_field(word, mark):
    start = f"Search.\n\n{mark}{word}"
    assert read(f"{start} query: What.\n{mark}{word} top_k: How many.") == ("Search.", BOTH)
    assert read(f"{start} str query: What.") == ("Search.", WHAT)
    assert read(f"{start} list of str *query: What.") == ("Search.", WHAT)
    assert read(f"{start} `query`: What.") == ("Search.", WHAT)
    assert read(f"{start} query:\n    What.\n") == ("Search.", WHAT)
    assert read(f"{start}: no name\n{mark}{word} query: What.") == ("Search.", WHAT)
    assert read(f"{start} query:What.") == ("Search.", {})
    assert read(f"{start} query:") == ("Search.", {})
    assert read(f"{mark}{word} query: What.") == (None, WHAT)
    assert read(f"{mark}x{word} query: no") == (None, {})


@pytest.mark.parametrize(
    ("doc", "description", "told"),
    [
        # The first paragraph.
        (None, None, {}),
        ("   \n  ", None, {}),
        ("Search.", "Search.", {}),
        ("Search\n  the \t  base  \n now.\n\nMore.", "Search the base now.", {}),
        ("\n\n    Search.\n\n    More.", "Search.", {}),
        ("Search:\nthe base.", "Search: the base.", {}),
        ("Search.\nExample:\n    of it", "Search.", {}),
        ("Search.\nexample:\n    of it", "Search. example: of it", {}),
        ("Search.\nExample\n---\nof it", "Search.", {}),
        ("Search.\nExample\n--\nof it", "Search. Example -- of it", {}),
        ("Search.\nExample\n---x\nof it", "Search. Example ---x of it", {}),
        ("Search.\n---", None, {}),
        ("---\nSearch.", "--- Search.", {}),
        ("Search.\n:returns: no", "Search.", {}),
        ("Search.\n@return: no", "Search.", {}),
        ("Search :here: now.", "Search :here: now.", {}),
        # Entries in the style of Google.
        ("S.\n\nArgs:\n    ``query``: What.\n    *top_k: How many.", "S.", BOTH),
        ("S.\n\nArgs:\n    query(str): What.\n    top_k (int) : How many.", "S.", BOTH),
        ("S.\n\nArgs:\n    query:What.\n    top_k: How many.", "S.", {"top_k": "How many."}),
        ("S.\n\nArgs:\n    query:\n        What.\n\n    top_k:\n\n        How\n        many.",
         "S.", BOTH),
        ("S.\n\nArgs:\n    query: What\n        is\n\n        sought.\n    top_k: How many.", "S.",
         {"query": "What is sought.", "top_k": "How many."}),
        ("S.\n\nArgs:\n    query: What.\n    and more\n        of it\n    top_k: How many.", "S.",
         BOTH),
        ("S.\n\nArgs:\n    unknown: no\n    query: What.\n", "S.", WHAT),
        ("S.\n\nArgs:\n    query: What.\nKeyword Args:\n    top_k: How many.\n", "S.", BOTH),
        ("S.\n\nArgs:\n    query: What.\n\nReturns:\n    top_k: no\n\nParams:\n    more: Yes.", "S.",
         {"query": "What.", "more": "Yes."}),
        ("S.\n\nArgs:\n    query: no\n    query: What.", "S.", WHAT),
        ("S.\n\nArgs:\n\n    query: What.\n\n\n    top_k: How many.", "S.", BOTH),
        ("S.\n\nText.\n    Args:\n        query: no", "S.", {}),
        ("S.\n\nText.\nArgs:\n  query: What.\n  top_k: How many.\nEnd.", "S.", BOTH),
        # Those of NumPy, whose sections end at the next heading.
        ("S.\n\nParameters\n----------\nquery : str\n    What.\ntop_k : int, optional\n    How many.",
         "S.", BOTH),
        ("S.\n\nParameters\n----------\nquery, top_k : int\n    All.\n", "S.",
         {"query": "All.", "top_k": "All."}),
        ("S.\n\nParameters\n----------\n*query, **top_k\n    All.\nmore\n    Yes.", "S.",
         {"query": "All.", "top_k": "All.", "more": "Yes."}),
        ("S.\n\nParameters\n---\nquery\n    What.\nReturns\n---\ntop_k\n    no", "S.", WHAT),
        ("S.\n\nParameters\n---\nquery\n    What.\n\nReturns\n---\ntop_k\n    no", "S.", WHAT),
        ("S.\n\nParameters\n---\n\nquery\n    What.\n\n  Returns\n  ---\ntop_k\n    no", "S.", WHAT),
        ("S.\n\nParameters\n---\nquery\n    What.\nReturns\n---\nx\nParams\n---\ntop_k\n    How many.",
         "S.", BOTH),
        ("S.\n\nParameters\n---\nquery\n    What.\nan unknown line\n    no", "S.", WHAT),
        ("S.\n\nParameters\n---\nquery\n    What.\n\n---\ntop_k\n    How many.", "S.", BOTH),
        ("S.\n\nParameters\n---", "S.", {}),
        # Fields of Sphinx and Epytext.
        ("S.\n\n:param query: What\n  is\n\n  sought.\nText.\n:param top_k: How many.", "S.",
         {"query": "What is sought.", "top_k": "How many."}),
        ("S.\n:param query: no\n:type query: str\n:param query: What.", "S.", WHAT),
        ("S.\n\nText.\n  :param query: no", "S.", {}),
        # Both.
        ("S.\n\nArgs:\n    query: What.\n:param top_k: How many.", "S.", BOTH),
        (":param top_k: How many.\nParams\n---\nquery\n    What.", None, BOTH),
    ],
)  # fmt: skip
def test_a_docstring(doc, description, told):
    assert read(doc) == (description, told)
