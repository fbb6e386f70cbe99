"""``Cache-Control`` is read as RFC 9111 says, whatever a client sends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.http.caching.directives import NO_WISHES, Wishes, parse, seconds, wishes


def read(control: str | None = None, pragma: str | None = None) -> Wishes:
    headers = {"HTTP_CACHE_CONTROL": control, "HTTP_PRAGMA": pragma}
    return wishes({name: value for name, value in headers.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("max-age=5", Wishes(max_age=5)),
        ("MAX-Age=5", Wishes(max_age=5)),
        (" max-age=5 ,\tmin-fresh=3 ", Wishes(max_age=5, min_fresh=3)),
        ("max-age=5,,, ,min-fresh=3", Wishes(max_age=5, min_fresh=3)),
        ('max-age="5"', Wishes(max_age=5)),
        ("max-age = 5", Wishes(max_age=5)),
        ("max-age=00005", Wishes(max_age=5)),
        ("no-cache", Wishes(no_cache=True)),
        ("no-store", Wishes(no_store=True)),
        ("only-if-cached", Wishes(only_if_cached=True)),
        ("max-stale", Wishes(max_stale=math.inf)),
        ("max-stale=7", Wishes(max_stale=7)),
        ('no-cache="x, max-age=9"', Wishes(no_cache=True)),
        ("max-age=5, no-cache, only-if-cached", Wishes(max_age=5, no_cache=True, only_if_cached=True)),
    ],
)
def test_directives_are_read_in_any_case_and_spacing(text, meant):
    assert read(text) == meant


@pytest.mark.parametrize(
    "value", ["", "x", "-1", "+5", "5.5", "5s", "\u0665", "1 2", '"', '""', "0x10", "1_000", "1e3"]
)
def test_a_malformed_number_counts_as_0(value):
    assert read(f"max-age={value}").max_age == 0
    assert read(f"max-stale={value}").max_stale == 0
    assert read(f"min-fresh={value}").min_fresh == 0


def test_a_number_that_is_missing_counts_as_0_but_for_max_stale():
    assert read("max-age, min-fresh, max-stale") == Wishes(0, 0, math.inf)


@pytest.mark.parametrize("value", ["2147483648", "9" * 30, "0" * 50 + "9" * 30])
def test_a_number_that_is_too_large_counts_as_the_largest(value):
    assert read(f"max-age={value}").max_age == 2**31


def test_of_directives_that_are_said_twice_the_strictest_counts():
    assert read("max-age=5, max-age=3, max-age=9").max_age == 3
    assert read("max-age=5, max-age=x").max_age == 0
    assert read("min-fresh=5, min-fresh=9").min_fresh == 9
    assert read("max-stale, max-stale=4").max_stale == 4


@pytest.mark.parametrize(
    "text", ["", " ", ",", "community=UCI", "max-agee=5", "s-maxage=5", "=", "=5", "public"]
)
def test_what_is_unknown_is_ignored(text):
    assert read(text) is NO_WISHES


@pytest.mark.parametrize("pragma", ["no-cache", "No-Cache", "x, no-cache", 'a="b", no-cache=1'])
def test_pragma_counts_where_there_is_no_cache_control(pragma):
    assert read(None, pragma) == Wishes(no_cache=True)
    assert read("max-age=5", pragma) == Wishes(max_age=5)


def test_other_pragmas_say_nothing():
    assert read(None, "max-age=0, only-if-cached") is NO_WISHES


def test_an_escaped_quote_does_not_end_a_quoted_value():
    assert list(parse(r'a="x\", max-age=5", b')) == [("a", 'x", max-age=5'), ("b", None)]


def test_a_quote_that_is_never_closed_is_a_character():
    assert list(parse('a="x, max-age=5')) == [("a", '"x'), ("max-age", "5")]


def test_a_huge_header_is_read_in_no_time_and_not_to_its_end():
    assert read("x," * 100_000 + "no-cache") is NO_WISHES
    assert read('"' * 100_000) is NO_WISHES
    assert read('"\\' * 100_000) is NO_WISHES


@given(st.text(alphabet='max-ge=0123456789,"\\ \tnocfrshiyd;\x00é', max_size=80))
def test_no_header_is_an_error(text):
    found = read(text)
    assert found.max_age is None or 0 <= found.max_age <= 2**31


DIRECTIVE = st.sampled_from(
    [
        "max-age=5",
        "max-age=0",
        "min-fresh=9",
        "max-stale",
        "max-stale=3",
        "no-cache",
        "no-store",
        "x=1",
        "Max-Age=8",
    ]
)


@given(st.lists(DIRECTIVE, max_size=6), st.randoms())
def test_the_order_and_the_spacing_of_directives_do_not_matter(directives, random):
    shuffled = random.sample(directives, len(directives))
    assert read(",".join(directives)) == read(" ,\t".join(shuffled))


@given(st.lists(DIRECTIVE, max_size=6))
def test_several_header_lines_are_one(directives):
    # A server joins them by a comma.
    assert read(",".join(directives + directives)) == read(",".join(directives))


@given(st.integers(0, 2**40))
def test_a_number_is_itself_up_to_the_largest(number):
    assert seconds(str(number)) == min(number, 2**31)
