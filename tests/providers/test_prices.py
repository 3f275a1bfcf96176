"""Published prices: the table's own where it is sure, none where it is not, and nothing fetched."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot, types

from minillmlib import (
    ChatNode,
    CompletionParameters,
    CostResolution,
    GeneratorInfo,
    MissingExtraError,
    TokenPrice,
    run,
)
from minillmlib.providers.published_prices import NoPublishedPriceError, find_price
from minillmlib.testing import ScriptedReply, ScriptedTransport

TODAY = datetime.now(tz=UTC)


@pytest.fixture
def table():
    """A table of our own in place of the package's: gives a function that sets it."""

    def holding(*models, fetched=False, address=r"https://api\.openai\.com", vendor="openai"):
        vendors = [
            types.Provider("nobody", "Nobody", r"https://nobody\.example", models=[]),
            types.Provider(vendor, "A vendor", address, models=list(models)),
        ]
        data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(vendors, fetched))

    yield holding
    data_snapshot.set_custom_snapshot(None)


def priced(name="m", match=None, **rates):
    rates = {"input_mtok": Decimal(1), "output_mtok": Decimal(4)} | rates
    return types.ModelInfo(
        name, match or types.ClauseEquals(name), prices=types.ModelPrice(**rates)
    )


def price_of(model="m"):
    return GeneratorInfo.openai(model).with_published_price().token_price


def cost_of(generator, extra=None):
    """What a million tokens in and as many out cost."""
    answer = {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000},
    }
    transport = ScriptedTransport([ScriptedReply.json(answer)])
    generator = generator.with_api_key("k").with_transport(transport)
    node = run(ChatNode.root("s").chat("u", generator, CompletionParameters(extra=extra or {})))
    return node.response.cost


def test_the_published_price_is_the_tables_and_the_cost_says_which_table_and_which_day():
    cost = cost_of(GeneratorInfo.openai("gpt-4o-mini").with_published_price())
    assert (cost.resolution, cost.cost) == (CostResolution.RESOLVED, Decimal("0.75"))
    assert cost.source.startswith("genai-prices 0.2")
    days = (TODAY, datetime.now(tz=UTC))  # midnight may be between
    assert any(f"openai gpt-4o-mini, as of {day:%Y-%m-%d}" in cost.source for day in days)


@pytest.mark.parametrize(
    ("extra", "resolution"),
    [
        ({"service_tier": "priority"}, CostResolution.UNPRICED),
        ({"web_search_options": {}}, CostResolution.UNPRICED),
        ({"service_tier": "default"}, CostResolution.RESOLVED),
        ({"metadata": {}}, CostResolution.RESOLVED),
        # Of these the counts say whether they were used.
        ({"mcp_servers": [{"type": "url"}]}, CostResolution.RESOLVED),
        ({"tools": [{"type": "web_search"}]}, CostResolution.RESOLVED),
    ],
    ids=str,
)
def test_a_published_price_is_not_that_of_a_request_with_surcharges(extra, resolution):
    generator = GeneratorInfo.openai("gpt-4o-mini").with_published_price()
    assert cost_of(generator, extra).resolution is resolution
    by_hand = generator.with_token_price(TokenPrice(1, 2))
    assert cost_of(by_hand, extra).resolution is CostResolution.RESOLVED


def test_a_model_is_known_by_its_vendors_address_and_its_full_name():
    assert GeneratorInfo.anthropic("claude-haiku-4-5").with_published_price().token_price
    assert GeneratorInfo.anthropic("claude-haiku-4-5-20251001").with_published_price().token_price
    assert GeneratorInfo.openrouter("anthropic/claude-haiku-4.5").with_published_price().token_price
    groq = GeneratorInfo.custom("g", "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile")
    assert groq.with_published_price().token_price


@pytest.mark.parametrize(
    "generator",
    [
        GeneratorInfo.openai("gpt-4o-mini").with_base_url("https://relay.example/v1"),
        GeneratorInfo.openai("gpt-4o-mini").with_base_url("https://api.openai.com.example/v1"),
        GeneratorInfo.custom("c", "http://127.0.0.1:8000/v1", "gpt-4o-mini"),
        GeneratorInfo.openai("gpt-4o-mini-of-tomorrow"),
        GeneratorInfo.openai("gpt-4o-mini-search-preview"),
        GeneratorInfo.openai("gpt-5-search-api"),
        GeneratorInfo.openai("gpt-4o-audio-preview"),
        GeneratorInfo.openai("text-embedding-3-small"),
        GeneratorInfo.anthropic("claude-sonnet-4-55"),
        GeneratorInfo.anthropic("claude-opus-4-8-turbo"),
        GeneratorInfo.openrouter("openrouter/auto"),
        GeneratorInfo.openrouter("openai/gpt-4o-mini:online"),
        GeneratorInfo.openrouter("perplexity/sonar"),
    ],
    ids=str,
)
def test_what_the_table_does_not_know_for_sure_stays_unpriced_and_the_log_says_why(
    generator, caplog
):
    priced = generator.with_published_price()
    assert priced.token_price is None
    assert f"has no price for {generator.model}: " in caplog.text


def test_a_price_set_by_hand_stays_where_the_table_has_none_and_a_published_one_does_not(caplog):
    by_hand = GeneratorInfo.openai("mine").with_token_price(TokenPrice(1, 2))
    assert by_hand.with_published_price() == by_hand
    assert GeneratorInfo.local().with_published_price().token_price == TokenPrice(0, 0)
    other = GeneratorInfo.openai("gpt-4o-mini").with_published_price().replace(model="mine")
    assert other.with_published_price().token_price is None


def test_all_rates_of_a_model_are_taken_over():
    price = GeneratorInfo.anthropic("claude-haiku-4-5").with_published_price().token_price
    assert (price.input, price.output) == (1, 5)
    assert (price.cache_read, price.cache_write, price.cache_write_1h) == (
        Decimal("0.1"), Decimal("1.25"), 2,
    )  # fmt: skip
    assert (price.threshold, price.next_tier) == (None, None)


def test_a_tier_is_the_price_of_the_whole_request_above_its_threshold():
    price = GeneratorInfo.anthropic("claude-haiku-5-5").with_published_price().token_price
    assert (price.input, price.output, price.threshold) == (Decimal("0.1"), Decimal("0.5"), 100_000)
    assert (price.next_tier.input, price.next_tier.output) == (Decimal("0.5"), Decimal("2.5"))
    assert price.next_tier.cache_write_1h == 1
    assert price.next_tier.source == price.source


def test_tiers_with_thresholds_of_their_own_are_laid_over_each_other(table):
    tiered = types.TieredPrices
    table(priced(
        input_mtok=tiered(Decimal(1), [types.Tier(300, Decimal(3)), types.Tier(100, Decimal(2))]),
        output_mtok=tiered(Decimal(4), [types.Tier(200, Decimal(5))]),
    ))  # fmt: skip
    price = price_of()
    rates = [(price.for_input(count).input, price.for_input(count).output)
             for count in (100, 101, 200, 201, 300, 301)]  # fmt: skip
    assert rates == [(1, 4), (2, 4), (2, 4), (2, 5), (2, 5), (3, 5)]


@pytest.mark.parametrize(
    "key", ["requests_kcount", "input_audio_mtok", "output_reasoning_mtok", "rate_of_tomorrow"]
)
def test_a_price_with_parts_that_a_token_price_cannot_say_is_not_taken(table, key):
    table(priced(**{key: Decimal(1)}))
    assert price_of() is None


def test_a_price_that_changes_with_the_hour_is_not_taken(table):
    model = priced()
    night = types.TimeOfDateConstraint(time(1), time(2))
    model.prices = [
        types.ConditionalPrice(prices=model.prices),
        types.ConditionalPrice(night, prices=priced(input_mtok=Decimal(0)).prices),
    ]
    table(model)
    assert price_of() is None


def test_of_several_prices_the_last_whose_day_has_come_is_taken(table):
    day = timedelta(days=1)
    model = priced()
    model.prices = [
        types.ConditionalPrice(prices=priced(input_mtok=Decimal(1)).prices),
        *(types.ConditionalPrice(
            types.StartDateConstraint((TODAY + shift * day).date()),
            prices=priced(input_mtok=Decimal(rate)).prices,
        ) for shift, rate in ((-9, 2), (-5, 3), (9, 4))),
    ]  # fmt: skip
    table(model)
    assert price_of().input == 3
    model.prices = model.prices[-1:]
    assert price_of() is None


def test_a_name_that_only_begins_or_contains_an_entrys_is_another_model(table):
    table(
        priced("begins", types.ClauseStartsWith("m-1")),
        priced("contains", types.ClauseContains("part")),
        priced("fits", types.ClauseRegex(r"^r-\d$")),
    )
    known = ("R-1", "m-1", "M-1", "m-1-20260101", "m-1-2026-01-01", "m-1@20260101", "m-1-latest")
    assert all(price_of(name) for name in known)
    unknown = ("r-10", "m-12", "m-1-mini", "m-1.5", "m-1-20260101-mini", "apart", "part")
    assert not any(price_of(name) for name in unknown)


@pytest.mark.parametrize(
    ("rule", "known", "unknown"),
    [
        (types.ClauseEquals("m-1"), ["m-1", "M-1"], ["m-1-latest", "m-1-20260101", "m"]),
        (types.ClauseStartsWith("m-1"),
         ["m-1", "M-1", "m-1-20260101", "m-1@20260101", "m-1-2026-01-01", "m-1@2026-01-01",
          "m-1-latest", "m-1-20260101-v1", "m-1-20260101-v2:0"],
         ["m-", "m-12", "m-1-2026010", "m-1-202601011", "m-1.20260101", "m-1@latest", "m-1-v1",
          "m-1-20260101-v1:", "m-1-20260101-v10", "m-1-20260101-20260101", "m-1-latest-1"]),
        (types.ClauseContains("m-1"), [], ["m-1", "am-1b"]),
        (types.ClauseEndsWith("m-1"), [], ["m-1", "am-1"]),
        (types.ClauseAnd([types.ClauseEquals("m-1")]), [], ["m-1"]),
        (types.ClauseOr([types.ClauseContains("m"), types.ClauseEquals("m-1")]), ["m-1"], ["m-2"]),
        (types.ClauseRegex(r"^m-\d$"), ["m-1", "M-2"], ["m-10"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_rule_of_the_table_names_these_models_and_no_others(table, rule, known, unknown):
    table(priced("entry", rule))
    assert [name for name in (*known, *unknown) if price_of(name)] == known
    for name in unknown:
        assert why_not(name) == "it does not know this model of openai"


def why_not(model="m", url="https://api.openai.com/v1"):
    """Why the table has no price for a model."""
    with pytest.raises(NoPublishedPriceError) as caught:
        find_price(url, model)
    return str(caught.value)


@pytest.mark.parametrize(
    "word", ["search", "sonar", "audio", "realtime", "image", "transcribe", "tts"]
)
def test_a_model_that_also_bills_something_else_has_no_price(table, word):
    table(priced("entry", types.ClauseRegex("m")))
    assert price_of("m-plain")
    for name in (f"m-{word}", f"m-{word}-1"):
        assert why_not(name) == "the model is not billed by the token alone"


@pytest.mark.parametrize("rate", ["input_mtok", "output_mtok"])
def test_a_model_without_the_rate_of_input_or_output_has_no_price(table, rate):
    table(priced(**{rate: None}))
    assert why_not() == "the model is not billed by the token alone"


@pytest.mark.parametrize("fee", ["web_searches_kcount", "storage_searches_kcount"])
def test_the_fee_of_a_tool_is_paid_on_demand_at_some_vendors_only(table, fee):
    for vendor in ("openai", "anthropic", "openrouter", "google", "perplexity"):
        table(priced(**{fee: Decimal(9)}), vendor=vendor)
        if vendor in ("google", "perplexity"):
            assert why_not() == f"its price has a part that is not of plain tokens, {fee}"
        else:
            assert (price_of().input, price_of().output) == (1, 4)


def test_each_rate_of_the_table_has_its_place_in_a_price(table):
    table(priced(cache_read_mtok=Decimal("0.5"), cache_write_mtok=Decimal(2)))
    price = price_of()
    assert price == TokenPrice(1, 4, cache_read=0.5, cache_write=2, source=price.source)


@pytest.mark.parametrize(
    ("pattern", "known", "unknown"),
    [
        (r"https://api\.v\.example",
         ["https://api.v.example", "https://api.v.example/", "https://api.v.example/v1"],
         ["https://api.v.example.evil/v1", "https://api.v.example:8080/v1", "http://api.v.example",
          "https://x/https://api.v.example"]),
        (r"https://api\.v\.",
         ["https://api.v.ai", "https://api.v.ai/v1"],
         ["https://api.v.cn/v1", "https://api.v.air/v1"]),
        (r"https://v\.example/openai/", ["https://v.example/openai/v1", "https://v.example/openai/"],
         ["https://v.example/openai"]),
        (r"https://(a|b)\.v\.example", ["https://a.v.example/v1", "https://b.v.example"],
         ["https://c.v.example"]),
    ],
)  # fmt: skip
def test_a_vendor_is_known_by_its_whole_address(table, pattern, known, unknown):
    table(priced(), address=pattern)
    for url in known:
        assert find_price(url, "m").input == 1
    for url in unknown:
        assert why_not(url=url) == f"it knows no vendor at {url}"


def test_the_first_vendor_with_an_address_and_the_first_entry_with_a_name_count(table):
    table(priced("m", input_mtok=Decimal(7)), priced("m", input_mtok=Decimal(9)))
    assert price_of().input == 7
    assert why_not(url="https://nobody.example/v1") == "it does not know this model of nobody"
    table(priced(), vendor="azure")
    assert why_not() == "the name of a deployment does not say which model it is"


def test_why_there_is_no_price_is_logged(table, caplog):
    table()
    assert price_of("a/m") is None
    told = "genai-prices has no price for a/m: it does not know this model of openai"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_the_source_of_a_price_names_the_table_the_entry_and_the_day(table):
    table(priced("m", types.ClauseEquals("n")))
    version = genai_prices.__version__
    days = {f"{day:%Y-%m-%d}" for day in (TODAY, datetime.now(tz=UTC))}
    expected = {f"genai-prices {version}: openai m, as of {day}" for day in days}
    assert price_of("n").source in expected


def test_prices_by_the_hour_and_of_tomorrow_are_not_taken_in_these_words(table):
    model = priced()
    night = types.TimeOfDateConstraint(time(1), time(2))
    tomorrow = types.StartDateConstraint((TODAY + timedelta(days=2)).date())
    for rule, reason in ((night, "the price changes with the hour"),
                         (tomorrow, "the price is not in force yet")):  # fmt: skip
        model.prices = [types.ConditionalPrice(rule, prices=priced().prices)]
        table(model)
        assert why_not() == reason


def test_prices_that_the_caller_has_fetched_are_used_and_the_source_says_so(table):
    table(priced(), fetched=True)
    assert f", fetched {datetime.now():%Y-%m-%d}: openai m" in price_of().source  # noqa: DTZ005


def test_without_the_extra_the_error_names_the_command_that_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(MissingExtraError, match=r'pip install "minillmlib\[prices\]"'):
        GeneratorInfo.openai("gpt-4o-mini").with_published_price()


def test_nothing_is_loaded_before_it_is_asked_for_and_nothing_is_ever_fetched():
    program = """
import sys, threading
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
from minillmlib import GeneratorInfo
generator = GeneratorInfo.openai("gpt-4o-mini")
late = {"genai_prices", "httpx2", "pydantic", "aiohttp"}
print(sorted(late & set(sys.modules)))
assert generator.with_published_price().token_price
print("genai_prices" in sys.modules, {"socket.connect", "socket.getaddrinfo"} & set(sockets),
      threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\nTrue set() 1\n", "")
