"""Measurements survive their process, and are read while they are written."""

import logging
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.metric_store import (
    MAX_VALUES,
    OTHER,
    Content,
    MetricStore,
    Origin,
    Series,
    encode,
    is_final,
    read_file,
)

A, B = Series("a", ("x",)), Series("b", ("x", 7), Origin("ticks", 3, 1_700_000_000_000, True))


def only_file(folder: pathlib.Path) -> pathlib.Path:
    (path,) = folder.iterdir()
    return path


def measured(store: MetricStore) -> Content:
    store.add(A, 2)
    store.add(A, 3)
    store.raise_to(B, 9)
    store.raise_to(B, 4)
    store.observe(Series("c", ()), (1.0, 2.0), 1.0, 2)  # bounds are inclusive
    store.observe(Series("c", ()), (1.0, 2.0), 5.0, 1)
    return {A: (5.0,), B: (9.0,), Series("c", ()): (2.0, 0.0, 1.0, 7.0)}


def test_memory_and_file_hold_the_same(tmp_path: pathlib.Path) -> None:
    expected = measured(in_memory := MetricStore())
    assert in_memory.content() == expected
    assert measured(in_file := MetricStore(tmp_path / "made")) == expected
    assert in_file.content() == read_file(only_file(tmp_path / "made")) == expected


def test_a_file_is_final_when_its_store_is_gone(tmp_path: pathlib.Path) -> None:
    expected = measured(store := MetricStore(tmp_path))
    path = only_file(tmp_path)
    assert not is_final(path)
    del store
    assert is_final(path)
    assert read_file(path) == expected


def test_more_series_than_a_file_takes_are_all_kept(tmp_path: pathlib.Path) -> None:
    store = MetricStore(tmp_path)
    series = [Series("a", (number,)) for number in range(10_000)]
    for number, it in enumerate(series):
        store.add(it, number)
    store.add(series[1], 10)
    found = {it: values for path in tmp_path.iterdir() for it, values in read_file(path).items()}
    assert len(list(tmp_path.iterdir())) > 1
    assert found == {it: (float(number + 10 * (number == 1)),) for number, it in enumerate(series)}


def test_texts_beyond_the_bound_are_one(tmp_path: pathlib.Path) -> None:
    store = MetricStore(tmp_path)
    for number in range(MAX_VALUES + 50):
        store.add(Series("a", (f"text {number}", number)), 1)
        store.add(Series("a", (f"text {number}", 0)), 1)
    content = store.content()
    assert len({series.labels[0] for series in content}) == MAX_VALUES + 1
    assert content[Series("a", (OTHER, 0))] == (50.0,)
    assert sum(values[0] for values in content.values()) == 2 * (MAX_VALUES + 50)


@given(st.text(), st.integers(-(2**53), 2**53))
def test_any_text_is_a_label(text: str, number: int) -> None:
    store = MetricStore()
    store.add(Series("a", (text, number)), 1)
    store.add(Series("a", (text, number)), 1)
    ((series, values),) = store.content().items()
    assert values == (2.0,)
    shown, same = series.labels
    assert same == number
    assert isinstance(shown, str)
    assert shown == text[:200] or "?" in shown  # what UTF-8 cannot say
    shown.encode()


labels = st.lists(st.text(st.characters(codec="utf-8")) | st.integers(0, 2**40), max_size=3).map(tuple)
origins = st.builds(Origin, st.text(st.characters(codec="utf-8")), st.integers(0), st.integers(0), st.booleans())
contents = st.dictionaries(
    st.builds(Series, st.text(st.characters(codec="utf-8")), labels, st.none() | origins),
    st.lists(st.floats(allow_nan=False), max_size=5).map(tuple),
)


@given(contents)
def test_a_file_gives_back_what_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, content: dict[Series, tuple[float, ...]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "file"
    path.write_bytes(encode(content))
    assert read_file(path) == content


@given(contents, st.data())
def test_of_a_damaged_file_the_rest_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: dict[Series, tuple[float, ...]], data: st.DataObject
) -> None:
    whole = encode(content)
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert read_file(path).items() <= content.items()
    path.write_bytes(whole[:16] + bytes(len(whole) - 16))  # pages that a crash of the machine left unwritten
    assert read_file(path) == {}


def test_without_a_folder_to_write_in_a_process_goes_on(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = MetricStore(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        expected = measured(store)
    assert store.content() == expected
    assert len(caplog.messages) == 1  # once, not for each series
    assert f"metrics of process {os.getpid()} are not all in {tmp_path / 'file'}" in caplog.text


def test_a_full_disk_ends_no_process(tmp_path: pathlib.Path) -> None:
    code = (
        "import resource, pathlib, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # refused at this length, as by a full disk\n"
        "from beam_pipelines.transforms.metric_store import MetricStore, Series\n"
        f"store = MetricStore(pathlib.Path({str(tmp_path)!r}))\n"
        "store.add(Series('a', ('x',)), 5)\n"
        "print(store.content()[Series('a', ('x',))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(5.0,)\n", done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_its_space_from_the_beginning(tmp_path: pathlib.Path) -> None:
    store = MetricStore(tmp_path)
    store.add(A, 1)
    size = only_file(tmp_path).stat()
    assert size.st_blocks * 512 >= size.st_size  # in a hole, a full disk would end the process that writes


def test_a_forked_process_writes_files_of_its_own(tmp_path: pathlib.Path) -> None:
    code = (
        "import os\n"
        "from beam_pipelines.transforms.metric_store import Series, process_store\n"
        "process_store().add(Series('a', ('x',)), 1)\n"
        "child = os.fork()\n"
        "process_store().add(Series('a', ('x',)), 10 if child else 100)\n"
        "child and os.waitpid(child, 0)\n"
    )
    environment = {**os.environ, "PIPELINE_METRICS_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert sorted(read_file(path)[A] for path in tmp_path.iterdir()) == [(11.0,), (100.0,)]
    assert all(is_final(path) for path in tmp_path.iterdir())


def test_measuring_imports_neither_beam_nor_prometheus() -> None:
    code = (
        "import sys, beam_pipelines.transforms.monitor; print({'apache_beam', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
