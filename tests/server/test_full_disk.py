"""A disk that is full costs the numbers that find no room on it, and no worker."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from patron.observe.slotfiles import SlotCollector, SlotFiles


class Disk:
    """As much of a disk as reserving room on it needs."""

    def __init__(self) -> None:
        self.full = False
        self._reserve = os.posix_fallocate

    def reserve(self, file: int, offset: int, size: int) -> None:
        if self.full and os.fstat(file).st_size < size:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._reserve(file, offset, size)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "posix_fallocate", made.reserve)
    return made


def counted(files: SlotFiles, name: str) -> Any:
    value = files.value_class()("counter", name, f"{name}_total", (), (), "help", multiprocess_mode="")
    value.inc(1.0)
    return value


def shown(directory: Path) -> str:
    registry = CollectorRegistry()
    registry.register(SlotCollector(directory))
    return generate_latest(registry).decode()


def test_the_room_of_a_file_is_reserved_before_it_is_mapped(tmp_path: Path, disk: Disk) -> None:
    files = SlotFiles(0, tmp_path)
    numbers = [counted(files, f"orders_{number}_{'x' * 200}") for number in range(1000)]
    [file] = tmp_path.iterdir()
    assert file.stat().st_blocks * 512 >= file.stat().st_size > 4 * 65536
    assert shown(tmp_path).count(" 1.0\n") == len(numbers)
    files.close()


def test_numbers_without_room_are_counted_for_nobody_and_the_others_go_on(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    files = SlotFiles(0, tmp_path)
    early = counted(files, "early")
    disk.full = True
    late = [counted(files, f"late_{number}_{'x' * 200}") for number in range(500)]
    early.inc(1.0)
    assert [number.get() for number in late] == [1.0] * 500
    assert "early_total 2.0" in shown(tmp_path)
    assert 100 < shown(tmp_path).count(" 1.0\n") < 400  # those that the file had room for
    [record] = caplog.records
    assert "no room" in record.getMessage()
    files.close()


def test_a_disk_that_is_full_from_the_start_shows_nothing(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.full = True
    files = SlotFiles(0, tmp_path)
    assert counted(files, "orders").get() == 1.0
    assert shown(tmp_path) == ""
    assert len(caplog.records) == 1
    files.close()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_disk_that_reserves_no_room_keeps_the_numbers_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(file: int, offset: int, size: int) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    files = SlotFiles(0, tmp_path)
    numbers = [counted(files, f"orders_{number}_{'x' * 200}") for number in range(500)]
    assert shown(tmp_path).count(" 1.0\n") == len(numbers)
    files.close()
