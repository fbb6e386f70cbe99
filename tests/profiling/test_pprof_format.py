"""What we write in pprof's format is what others read."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.profiling import Frame, Kind, Profile
from patron.profiling.proto import encode

CPU = (Kind("samples", "count"), Kind("cpu", "nanoseconds"))
MAIN = Frame("shop.main", "/srv/shop.py", 12, 10)
BUSY = Frame("shop.busy", "/srv/shop.py", 34, 30)
IDLE = Frame("shop.idle", "/srv/shop.py", 56, 50)


def profile(**options):
    made = Profile(CPU, 1_700_000_000_000_000_000, 5_000_000_000, period=10_000_000, **options)
    made.add([BUSY, MAIN], [90, 900_000_000], thread="a")
    made.add([IDLE, MAIN], [10, 100_000_000], thread="b")
    return made


def test_a_profile_is_read_as_it_was_written(read_pprof):
    read = read_pprof(encode(profile(comments=["worker 0", "and more"])))
    assert read.kinds == [("samples", "count"), ("cpu", "nanoseconds")]
    assert read.samples == [
        (["shop.busy", "shop.main"], [90, 900_000_000], {"thread": "a"}),
        (["shop.idle", "shop.main"], [10, 100_000_000], {"thread": "b"}),
    ]
    message = read.message
    assert (message.time_nanos, message.duration_nanos) == (1_700_000_000_000_000_000, 5_000_000_000)
    assert (read.text[message.period_type.type], message.period) == ("cpu", 10_000_000)
    assert read.text[message.default_sample_type] == "cpu"
    assert read.comments == ["worker 0", "and more"]
    function, line = read.locations[message.sample[0].location_id[0]]
    assert (read.text[function.filename], function.start_line, line) == ("/srv/shop.py", 30, 34)


def test_a_profile_keeps_what_readers_rely_on(read_pprof):
    read = read_pprof(encode(profile()))
    message = read.message
    assert read.text[0] == ""
    assert len(read.text) == len(set(read.text))
    # 0 is no id (profile.proto), and nothing refers to what is not there.
    ids = [place.id for place in message.location]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert {place.mapping_id for place in message.location} == {message.mapping[0].id}
    # Otherwise go tool pprof looks for a binary with symbols, and speedscope draws nothing.
    assert message.mapping[0].has_functions
    assert all(len(place.line) == 1 for place in message.location)
    assert all(len(sample.value) == len(message.sample_type) for sample in message.sample)
    # speedscope takes this for the number of a sample type, and the last one when there are not so many.
    assert message.default_sample_type >= len(message.sample_type) - 1


def test_a_profile_without_samples_is_one_too(read_pprof):
    read = read_pprof(encode(Profile(CPU, 1)))
    assert (read.samples, read.kinds[1]) == ([], ("cpu", "nanoseconds"))


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.builds(Frame, st.text(), st.text(), st.integers(0, 2**31), st.integers(0, 2**31)),
                max_size=4,
            ),
            st.tuples(st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1)),
            st.text(),
        ),
        max_size=8,
        unique_by=lambda sample: (tuple(sample[0]), sample[2]),
    )
)
def test_whatever_the_names_and_numbers_are_they_come_through(read_pprof, samples):
    made = Profile(CPU, 0)
    for stack, values, thread in samples:
        made.add(stack, values, thread=thread)
    read = read_pprof(encode(made)).samples
    assert read == [
        ([f.function for f in stack], list(values), {"thread": t}) for stack, values, t in samples
    ]


def test_a_name_that_is_no_text_is_replaced(read_pprof):
    made = Profile(CPU, 0)
    made.add([Frame("half \udc80 a letter", "\udcff.py")], [1, 1])
    assert read_pprof(encode(made)).samples == [(["half ? a letter"], [1, 1], {})]


def test_a_profile_survives_its_way_to_another_worker():
    original = profile(comments=["worker 1"])
    assert Profile.from_json(original.to_json()) == original


def test_profiles_of_several_workers_are_added_up():
    whole, part = profile(), profile()
    whole.label("worker", "0")
    part.label("worker", "1")
    whole.merge(part)
    assert len(whole.samples) == 4
    whole.merge(part)
    assert whole.samples[(BUSY, MAIN), (("thread", "a"), ("worker", "1"))] == [180, 1_800_000_000]


@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, whose pprof is the reference")
def test_go_reads_it(tmp_path):
    file = tmp_path / "cpu.pb.gz"
    file.write_bytes(encode(profile(comments=["worker 0"])))
    top = subprocess.run(
        ["go", "tool", "pprof", "-top", file], capture_output=True, text=True, check=True
    ).stdout
    assert "Type: cpu" in top
    assert "Total samples = 1000ms (20.00%)" in top
    rows = [line.split() for line in top.splitlines()]
    assert ["900ms", "90.00%", "90.00%", "900ms", "90.00%", "shop.busy"] in rows
    raw = subprocess.run(
        ["go", "tool", "pprof", "-raw", file], capture_output=True, text=True, check=True
    ).stdout
    assert "samples/count cpu/nanoseconds[dflt]" in raw
    assert "shop.busy /srv/shop.py:34" in raw
    assert "thread:[a]" in raw
