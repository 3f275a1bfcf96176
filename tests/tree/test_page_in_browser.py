"""The page of a tree in a real headless Chromium: drawn, clicked, searched, and attacked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import browser as chromium
import pytest
from browser import Browser
from page_trees import answer, bushy_tree, deep_tree, hostile_strings, travel_tree, tree_of

from minillmlib import ChatNode

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(chromium.why_not() is not None, reason=str(chromium.why_not())),
]

WIDE, HIGH = 184, 68  # of a card, as in page.html
BAR = 9  # the middle of the coloured bar of a card, from its left side
MOST_SECS_TO_PAINT = 2.0
ROOT_TO_8 = [0, 1, 2, 3, 4, 5, 6, 7, 8]
PHONE = (390, 844)

# Every element with its attributes. What an attribute says counts too, for no text of a message
# may stand in one.
ELEMENTS = """return [...document.querySelectorAll("*")].map(element => element.tagName + " "
    + [...element.attributes].map(({name, value}) => name + "=" + value).sort().join(" "));"""
MESSAGES = """return [...document.querySelectorAll("#talk article")].map(
    article => [article.dataset.role, article.querySelector(":scope > .text")?.textContent ?? ""]);"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with chromium.browsing() as browser:
        yield browser


@pytest.fixture
def opened(window: Browser, tmp_path: Path):
    """Opens the page of a tree in a window of this size."""

    def open_page(root: ChatNode, fragment: str = "", *, size=(1440, 900), **look: bool) -> Browser:
        page = tmp_path / "page.html"
        page.write_text(root.to_html("The page"), encoding="utf-8")
        window.look(*size, **look)
        window.open(page, fragment)
        window.settle()
        return window

    return open_page


def place(window: Browser, name: str) -> tuple[float, float]:
    return tuple(window.run("return treePage.locate(arguments[0])", name))


def colour_at(window: Browser, x: float, y: float) -> list[int]:
    """What the canvas shows at this place of the window."""
    return window.run(
        """const [x, y] = arguments, graph = document.getElementById("graph");
        const box = graph.getBoundingClientRect(), scale = devicePixelRatio;
        const place = [(x - box.left) * scale, (y - box.top) * scale].map(Math.round);
        return [...graph.getContext("2d").getImageData(...place, 1, 1).data].slice(0, 3);""",
        x,
        y,
    )


def colour_named(window: Browser, name: str) -> list[int]:
    value = window.run(
        "return getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0])",
        name,
    )
    return list(bytes.fromhex(value.strip().removeprefix("#")))


def text_of(window: Browser, selector: str) -> str:
    return window.run("return document.querySelector(arguments[0]).textContent", selector)


def thread_at(root: ChatNode, *steps: int) -> list[list[str]]:
    """The messages from the root along these children."""
    node = root
    for step in steps:
        node = node.children()[step]
    return [[message.role.value, message.text or ""] for message in node.thread()]


TO_8, TO_16 = (0, 0, 0, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0)  # which children lead to these messages


def test_every_message_is_drawn_in_the_colour_of_its_role(opened):
    root = travel_tree()
    window = opened(root)
    assert window.run("return treePage.drawn") == 18
    roles = window.run(
        "return JSON.parse(document.getElementById('data').textContent).nodes.map(n => n.role)"
    )
    zoom = window.run("return treePage.zoom")
    for number, role in enumerate(roles):
        x, y = place(window, str(number))
        bar = round(x - (WIDE / 2 - BAR) * zoom)
        seen = [colour_at(window, bar + step, y) for step in (-1, 0, 1)]
        assert colour_named(window, role) in seen, (number, role)


def test_a_card_shows_the_first_note_of_an_answer_in_place_of_its_role(opened):
    root = ChatNode.root("s")
    root.add_user("u").note("score", 7).note("label", "polite")
    window = opened(root)
    window.run(
        """window.texts = [];
        const draw = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (...given) {
          texts.push(given[0]);
          draw.apply(this, given);
        };"""
    )
    window.type("#graph", "+")
    window.settle()
    assert window.run("return [...new Set(texts)]") == ["s", "", "system", "u", "score: 7"]


def test_parents_stand_above_their_children_and_no_two_cards_overlap(opened):
    window = opened(travel_tree())
    parents = window.run(
        "return JSON.parse(document.getElementById('data').textContent).nodes.map(n => n.parent)"
    )
    zoom = window.run("return treePage.zoom")
    places = [place(window, str(number)) for number in range(len(parents))]
    for number, (x, y) in enumerate(places):
        assert number == 0 or y > places[parents[number]][1] + HIGH * zoom
        for other_x, other_y in places[:number]:
            assert abs(x - other_x) > WIDE * zoom or abs(y - other_y) > HIGH * zoom


@pytest.mark.parametrize("fragment", ["", "#9"])
def test_a_tree_of_many_short_branches_grows_sideways_until_it_is_turned(opened, fragment):
    root = ChatNode.root("s")
    asked = root.add_user("Which?")
    for number in range(12):
        asked.add_assistant(f"Answer {number}")
    window = opened(root, fragment)
    assert window.run("return treePage.drawn") == 14
    (top_x, _), (first_x, first_y), (last_x, last_y) = (place(window, str(n)) for n in (1, 2, 13))
    assert top_x < first_x == last_x
    assert first_y < last_y
    window.type("#graph", "\ue014" if fragment else "\ue013")
    assert window.run("return location.hash") == ("#9" if fragment else "#12")
    window.click("#turn")
    (_, top_y), (_, first_y), (_, last_y) = (place(window, str(n)) for n in (1, 2, 13))
    assert top_y < first_y == last_y


def test_a_click_shows_the_path_to_the_message_as_a_chat(opened):
    root = travel_tree()
    window = opened(root)
    window.click_at(*place(window, "8"))
    assert window.run(MESSAGES) == thread_at(root, *TO_8)
    assert "path $0.00250" in text_of(window, "#facts")
    assert "branch $0.00054" in text_of(window, "#facts")
    assert window.run("return location.hash") == "#8"
    window.click_at(*place(window, "1"))
    assert window.run(MESSAGES) == thread_at(root, 0)
    assert window.run("return document.querySelectorAll('.on .words').length") == 3


def test_a_chat_shows_calls_thoughts_pictures_and_what_ended_an_answer(opened):
    window = opened(travel_tree(), "#16")
    assert window.run(
        "return [...document.querySelectorAll('#talk img')].map(i => i.naturalWidth)"
    ) == [240]
    assert text_of(window, "details .text").startswith("They want to walk.")
    window.click_at(*place(window, "5"))
    assert (
        text_of(window, ".call")
        == 'forecast {"city": "Lisbon", "days": ["2026-10-30", "2026-10-31"]}'
    )
    assert "answers forecast" in text_of(window, "[data-role=tool] header")
    window.click_at(*place(window, "11"))
    assert "ended by length" in text_of(window, "article:last-of-type header")


CHANCES = (("Low", -0.01), (" water", -1.5), ("\n", -3.0), ("<b>at</b>", -9999.0))
TOKENS = [
    {"token": token, "logprob": logprob, "top_logprobs": [{"token": " tide", "logprob": -0.5}]}
    for token, logprob in CHANCES
]


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_the_tokens_of_an_answer_are_tinted_by_doubt_and_tell_what_else_was_likely(opened, is_dark):
    said = "".join(token for token, _ in CHANCES)
    root = ChatNode.root("When is it low?")
    answer(root, said, logprobs=TOKENS)
    window = opened(root, dark=is_dark)
    assert text_of(window, ".tokens summary") == "4 tokens"
    assert window.run("return document.querySelectorAll('.tokens span').length") == 0
    window.click(".tokens summary")
    assert text_of(window, ".tokens .text") == said
    # The ground is mixed with the text's own, as the eye does.
    doubts, contrasts = window.run("""
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const channel = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        const page = parse(getComputedStyle(document.body).backgroundColor).map(c => c / 255);
        const tokens = [...document.querySelectorAll(".tokens span")];
        const tints = tokens.map(token => parse(getComputedStyle(token).backgroundColor));
        return [tints.map(tint => tint[3]), tokens.map((token, i) => {
          const [r, g, b, a] = tints[i], under = [r, g, b].map((c, k) => c * a + page[k] * (1 - a));
          const ink = parse(getComputedStyle(token).color).map(c => c / 255);
          const [x, y] = [light(ink), light(under)].sort((p, q) => q - p);
          return (x + 0.05) / (y + 0.05);
        })];""")
    assert doubts == sorted(doubts)
    assert doubts[0] < 0.02
    assert doubts[-1] > 0.4
    assert min(contrasts) >= 4.5
    box = window.run("""const box = document.querySelectorAll(".tokens span")[1].getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2];""")
    window.click_at(*box)
    assert text_of(window, ".tokens .note") == '" water" 22.3 % · " tide" 60.7 %'


def test_a_printed_page_has_all_messages_and_no_control(opened):
    window = opened(deep_tree(80))
    assert window.pages_when_printed() > 2
    window.look(1440, 900, prints=True)
    seen = window.run("""return [...document.querySelectorAll("article, button, canvas, input")].filter(
        e => e.checkVisibility()).map(e => e.tagName);""")
    assert seen == ["ARTICLE"] * 80


def shown_in_comparison(window: Browser) -> list[list[list[str]]]:
    """The shared messages, and those of each side."""
    return window.run("""
        const shown = article => [article.dataset.role, article.querySelector(".text")?.textContent ?? ""];
        const pair = document.querySelector(".pair"), cells = [...pair.children].slice(2);
        const side = n => cells.filter((cell, i) => i % 2 === n && cell.matches("article"));
        const shared = [...pair.parentElement.children].filter(child => child.matches("article"));
        const text = article => article.querySelector(":scope > .text")?.textContent ?? "";
        return [shared, side(0), side(1)].map(all => all.map(a => [a.dataset.role, text(a)]));""")


@pytest.mark.parametrize("way", ["shift", "button", "keys", "link"])
def test_two_branches_stand_side_by_side_below_what_they_share(opened, way):
    root = travel_tree()
    window = opened(root, "#8,16" if way == "link" else "")
    if way != "link":
        window.click_at(*place(window, "8"))
    if way == "button":
        window.click("#compare")
    if way == "keys":
        window.type("#graph", "c")
    if way != "link":
        window.click_at(*place(window, "16"), shift=way == "shift")
    left, right = thread_at(root, *TO_8), thread_at(root, *TO_16)
    assert shown_in_comparison(window) == [left[:2], left[2:], right[2:]]
    heads = window.run(
        "return [...document.querySelectorAll('.side')].map(side => side.textContent)"
    )
    assert heads == ["#8 path $0.0025", "#16 path $0.040"]
    assert window.run("return location.hash") == "#8,16"
    columns = window.run(
        "return [...document.querySelectorAll('.pair > article')].slice(0, 2).map(a => a.getBoundingClientRect().top)"
    )
    assert columns[0] == columns[1]
    window.click("#compare")
    assert window.run(MESSAGES) == right


def test_a_branch_beside_its_own_beginning_ends_early(opened):
    root = travel_tree()
    window = opened(root, "#3,8")
    whole = thread_at(root, *TO_8)
    assert shown_in_comparison(window) == [whole[:4], [], whole[4:]]
    assert "Ends here." in text_of(window, ".pair")


def test_search_marks_its_hits_in_the_tree_in_the_list_and_in_the_chat(opened):
    window = opened(travel_tree())
    window.type("#query", "ALFAMA")
    window.wait_for("document.querySelector('#hits li')")
    window.settle()
    assert text_of(window, "#count") == "5 hits"
    listed = window.run(
        "return [...document.querySelectorAll('#hits li')].map(l => l.querySelector('mark').textContent)"
    )
    assert listed == ["Alfama"] * 5
    zoom = window.run("return treePage.zoom")
    hit, other = colour_named(window, "hit"), colour_named(window, "surface")
    for number in range(18):
        x, y = place(window, str(number))
        seen = colour_at(window, x - (WIDE / 2 - 3) * zoom, y)
        assert seen == (hit if number in (2, 6, 12, 14, 17) else other), number
    visited = []
    for button in ["#after"] * 6 + ["#before"]:
        window.click(button)
        visited.append(window.run("return location.hash"))
        assert (
            window.run(
                "return document.querySelector('#talk article:last-of-type mark').textContent"
            )
            == "Alfama"
        )
    assert visited == ["#2", "#6", "#12", "#14", "#17", "#2", "#17"]
    assert text_of(window, "#count") == "5 of 5"


def test_search_takes_every_sign_for_itself_and_finds_calls_and_thoughts(opened):
    window = opened(travel_tree())
    for wanted, hits in (
        ("(€12)", "1 hit"),
        (".*", "no hit"),
        ("forecast\ue007", "1 of 1"),
        ("Swap nothing", "1 hit"),
    ):
        window.run("document.getElementById('query').value = ''")
        window.type("#query", wanted)
        window.wait_for(f"document.getElementById('count').textContent === {json.dumps(hits)}")


def test_the_keys_walk_the_tree_and_tell_where_they_are(opened):
    window = opened(travel_tree(), "#1")
    up, down, left, right, home, end = "\ue013\ue015\ue012\ue014\ue011\ue010"
    walks = [
        (down, 2),
        (right, 12),
        (right, 17),
        (right, 17),
        (left, 12),
        (up, 1),
        (home, 0),
        (up, 0),
        (end, 17),
    ]
    for key, number in walks:
        window.type("#graph", key)
        assert window.run("return location.hash") == f"#{number}"
        assert text_of(window, "#status").startswith(f"#{number} ")
    assert window.run("return document.activeElement.id") == "graph"


def test_the_hand_moves_the_tree_and_the_wheel_zooms_it_where_the_mouse_is(opened):
    window = opened(travel_tree(), "#8")
    x, y = map(round, place(window, "3"))
    window.drag(((x, y), (x + 40, y + 30)))
    moved_x, moved_y = place(window, "3")
    assert (abs(moved_x - x - 40), abs(moved_y - y - 30)) < (1, 1)
    assert window.run("return location.hash") == "#8", "a pull is not a click"
    window.wheel(round(moved_x), round(moved_y), 50)
    assert place(window, "3") == pytest.approx((moved_x, moved_y - 50), abs=1)
    window.wheel(x, y, -50)
    zoom, at = window.run("return treePage.zoom"), place(window, "3")
    window.wheel(round(at[0]), round(at[1]), -100, with_control=True)
    assert window.run("return treePage.zoom") > 1.5 * zoom
    assert place(window, "3") == pytest.approx(at, abs=2)


def test_two_fingers_zoom_and_a_click_after_them_chooses(opened):
    window = opened(travel_tree(), "#8", size=PHONE, phone=True)
    window.click("#to-tree")
    zoom = window.run("return treePage.zoom")
    window.drag(((150, 400), (100, 400)), ((250, 400), (350, 400)), kind="touch")
    assert window.run("return treePage.zoom") == pytest.approx(zoom * 2.5, rel=0.1)
    assert window.run("return [location.hash, document.body.dataset.view]") == ["#8", "tree"]
    window.click("#fit")
    window.click_at(*place(window, "3"))
    assert window.run("return [location.hash, document.body.dataset.view]") == ["#3", "chat"]


def test_every_control_has_a_name_and_can_be_reached(opened):
    window = opened(travel_tree(), "#8")
    nameless = window.run("""return [...document.querySelectorAll("button, input, canvas, [tabindex]")].filter(
        e => !(e.getAttribute("aria-label") || e.textContent.trim()) || e.tabIndex < 0).map(e => e.outerHTML)""")
    assert nameless == []


def test_a_link_opens_its_message_and_a_broken_one_the_newest(opened):
    root = travel_tree()
    assert opened(root, "#8").run(MESSAGES) == thread_at(root, *TO_8)
    for broken in ("", "#99", "#8,99", "#%E0%A4%A", "#<img src=x onerror=alert(1)>", "#1,2,3"):
        assert opened(root, broken).run(MESSAGES) == thread_at(root, 0, 2)


def test_five_thousand_messages_are_painted_within_two_seconds(opened, capsys):
    root = bushy_tree(5000)
    window = opened(root)
    window.wait_for("performance.getEntriesByName('tree-drawn').length")
    window.wait_for("performance.getEntriesByName('first-paint').length")
    paints = dict(
        window.run("return performance.getEntriesByType('paint').map(p => [p.name, p.startTime])")
    )
    drawn = window.run("return performance.getEntriesByName('tree-drawn')[0].startTime")
    assert window.run("return treePage.items") == 5000
    took = window.run("""
        const start = performance.now();
        document.getElementById("fit").click();
        return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(
            () => done([performance.now() - start, treePage.drawn]))));""")
    assert took[1] == 5000
    with capsys.disabled():
        print(
            f"\n5,000 messages: {paints}, tree drawn at {drawn:.0f} ms, all in view {took[0]:.0f} ms later"
        )
    assert max(paints["first-paint"], drawn) < MOST_SECS_TO_PAINT * 1000
    window.type("#query", "needle")
    window.wait_for("document.getElementById('count').textContent === '9 hits'")
    window.click("#after")
    assert "needle" in text_of(window, "#talk article:last-of-type mark")


def test_a_thread_of_a_hundred_thousand_messages_opens_folded_and_can_be_walked(opened):
    window = opened(deep_tree(100_000))
    assert window.run("return treePage.items") < 20
    assert text_of(window, "#talk article:last-of-type .text") == "turn 99999"
    assert text_of(window, "#talk button").startswith("Show earlier messages (99,900 more)")
    window.click("#talk button")
    assert window.run("return document.querySelectorAll('#talk article').length") == 200
    window.type("#graph", "\ue011\ue015\ue015\ue015\ue015\ue015\ue015\ue015\ue015")  # home, 8 down
    assert text_of(window, "#talk article:last-of-type .text") == "turn 8"
    window.type("#query", "turn 50505")
    window.wait_for("document.getElementById('count').textContent === '1 hit'")
    window.click("#after")
    assert window.run("return location.hash") == "#50505"
    assert window.run("return treePage.items") < 30


def show_all(window: Browser) -> None:
    """Shows the earlier messages of the thread too, all of them."""
    window.run("""
        const more = () => document.querySelector("#talk .path > button:not([hidden])");
        while (more()) more().click();""")


def point_at_tokens(window: Browser) -> None:
    """Opens the tokens of all answers in sight, and points at each."""
    window.run("document.querySelectorAll('.tokens').forEach(box => { box.open = true; })")
    window.wait_for("document.querySelectorAll('.tokens span').length")
    window.run("""document.querySelectorAll(".tokens span").forEach(
        token => token.dispatchEvent(new PointerEvent("pointerover")));""")


def walk_everything(window: Browser, wanted: str) -> list[list[str]]:
    """The elements in each state of the page: the whole thread, a search, a comparison, a branch."""
    states = []
    show_all(window)
    states.append(window.run(ELEMENTS))
    assert sum("ARTICLE" in element for element in states[0]) == 2001
    window.run("location.hash = '#2002,2004'")
    window.wait_for("document.querySelector('.pair')")
    point_at_tokens(window)
    states.append(window.run(ELEMENTS))
    window.run("location.hash = '#0'")
    window.wait_for("!document.querySelector('.pair')")
    states.append(window.run(ELEMENTS))
    window.type("#query", wanted)
    window.wait_for("document.querySelector('#hits li')")
    window.settle()
    states.append(window.run(ELEMENTS))
    return states


def test_a_thousand_hostile_strings_create_no_element_and_no_attribute(opened):
    hostile = hostile_strings(1000)
    plain = [
        f"plain {'<b' if '<b' in text else 'x'}{number}" for number, text in enumerate(hostile)
    ]
    first_state, *states = walk_everything(opened(tree_of(plain), "#2000"), "plain")
    window = opened(tree_of(hostile), "#2000")
    window.requests()
    attacked_first, *attacked = walk_everything(window, "<script")
    assert attacked_first == first_state
    assert attacked[:2] == states[:2]
    added = set(attacked[2]) - set(states[2])
    assert added == set(), "a search adds marks, and only those"
    assert window.run("return [typeof window.hacked, document.title]") == ["undefined", "The page"]
    assert window.requests() == []


def test_the_text_of_hostile_messages_is_shown_as_it_was_written(opened):
    hostile = hostile_strings(1000)
    window = opened(tree_of(hostile), "#2000")
    show_all(window)
    # As JSON in JSON, because WebDriver takes no half of a surrogate pair.
    shown = json.loads(window.run(f"return JSON.stringify((() => {{ {MESSAGES} }})());"))
    assert [text for role, text in shown if role == "assistant"] == hostile


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and the paths it has been asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_browser_lets_the_page_fetch_run_and_parse_nothing_else(opened):
    with listening() as (address, asked):
        window = opened(travel_tree())
        window.requests()
        refused = window.run(
            """const [address] = arguments, wait = new Promise(done => setTimeout(done, 300));
            const script = document.createElement("script"), image = document.createElement("img");
            let parsed = "parsed";
            try { document.body.innerHTML += "<b>"; } catch (error) { parsed = error.name; }
            try { script.text = "window.hacked = 1"; document.body.append(script); } catch { }
            image.src = address + "/x.png";
            document.body.append(image);
            const fetched = fetch(address + "/x").then(() => "fetched", error => error.name);
            return wait.then(() => fetched).then(what => [what, parsed, typeof window.hacked]);""",
            address,
        )
    assert refused == ["TypeError", "TypeError", "undefined"]
    assert asked == []


def test_opening_and_using_the_page_asks_for_nothing_but_its_file(opened):
    window = opened(travel_tree())
    window.requests()
    window = opened(travel_tree(), "#16")
    window.click_at(*place(window, "8"))
    window.click("#compare")
    window.click_at(*place(window, "16"))
    window.type("#query", "alfama\ue007")
    asked = [
        address for address in window.requests() if not address.startswith(("data:", "about:"))
    ]
    assert len(asked) == 1
    assert asked[0].startswith("file:///")
    assert "/page.html" in asked[0]


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_one_view_fills_the_screen_in_the_wanted_light(opened, is_dark):
    window = opened(travel_tree(), "#8", size=PHONE, phone=True, dark=is_dark)
    shown = "return ['tree', 'chat'].map(name => document.getElementById(name).clientWidth)"
    assert window.run(shown) == [0, 390]
    window.click("#to-tree")
    assert window.run(shown) == [390, 0]
    assert window.run("return treePage.drawn") > 3
    background = colour_at(window, 3, window.run("return graph.getBoundingClientRect().top") + 3)
    assert (max(background) < 60) == is_dark
    window.click_at(*place(window, "8"))
    assert window.run(shown) == [0, 390]
    assert window.run("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    window.click("#compare")
    assert window.run(shown) == [390, 0]


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("fragment", ["#8", "#8,16"], ids=["chat", "comparison"])
def test_all_text_stands_out_from_its_ground(opened, fragment, is_dark):
    """The contrast that WCAG asks of small text, 4.5 to 1."""
    window = opened(travel_tree(), fragment, dark=is_dark)
    faint = window.run("""
        const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        const ground = e => {
          for (; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
          }
        };
        return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.disabled
            && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== "SCRIPT")
          .map(e => {
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
            return [e.tagName + " " + e.className + " " + e.textContent.slice(0, 20), (a + 0.05) / (b + 0.05)];
          }).filter(([, ratio]) => ratio < 4.5);""")
    assert faint == []
