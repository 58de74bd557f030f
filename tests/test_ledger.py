from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import signal
import stat
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import LedgerError, Rademacher, Sgd, ledger
from baffle.keys import Key
from baffle.ledger import MAGIC, Ledger, Reader
from federation import METHOD, memory_folder, simulation

PAYLOADS = [b"the header", b"", b"round 0" * 20, bytes(40), b"\xff"]


@pytest.fixture
def quick():
    with memory_folder() as folder:
        yield folder


def write(path: Path, payloads=PAYLOADS) -> list[int]:
    """Write a ledger; return where each of its records begins, and where the last one ends."""
    made = Ledger.create(path)
    starts = [path.stat().st_size]
    for payload in payloads:
        made.append(payload)
        starts.append(path.stat().st_size)
    made.close()
    return starts


def by_hand(payloads, version: int = 2) -> bytes:
    """The format as docs/ledger.md says it; version 2 has its own magic alone."""
    data, before = b"BAFFLE" + bytes([version]) + b"\n", bytes(32)
    for payload in payloads:
        length = struct.pack("<I", len(payload))
        seal = hashlib.blake2b(before + length + payload, digest_size=32, person=b"baffle-ledger").digest()
        data += length + struct.pack("<I", zlib.crc32(before + length)) + payload + seal
        before = seal
    return data


def test_the_bytes_are_those_that_the_page_describes(tmp_path) -> None:
    starts = write(tmp_path / "ledger")
    assert (tmp_path / "ledger").read_bytes() == by_hand(PAYLOADS)
    assert starts[0] == 8
    assert [b - a for a, b in pairwise(starts)] == [len(p) + 40 for p in PAYLOADS]


def test_the_bytes_of_a_small_ledger_are_golden(tmp_path) -> None:
    write(tmp_path / "ledger", [b"header", b"round"])
    assert (tmp_path / "ledger").read_bytes().hex() == (
        "424146464c45020a"
        "0600000009eddd4f686561646572f1dc196c7fca569bfbd8db5dc2139bd8991068e60fe36a606e670cdfc97b369f"
        "0500000098a4c6f6726f756e64963a3edcbf04b79c7bda9ff6d7f674061bc06792769cd60f06c1de96b332b77a"
    )


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_what_was_appended_is_read_again(payloads) -> None:
    with memory_folder() as folder:
        starts = write(folder / "ledger", payloads)
        data = (folder / "ledger").read_bytes()
        reader = Reader(folder / "ledger")
        assert list(reader) == payloads
    assert (reader.records, reader.end, reader.torn) == (len(payloads), starts[-1], 0)
    assert reader.head == (data[-32:] if payloads else bytes(32))


def test_the_head_stands_for_all_records_and_their_order(tmp_path) -> None:
    heads = set()
    for number, payloads in enumerate([[b"a", b"b"], [b"b", b"a"], [b"ab", b""], [b"", b"ab"], [b"a", b"b", b""]]):
        write(tmp_path / str(number), payloads)
        reader = Reader(tmp_path / str(number))
        list(reader)
        heads.add(reader.head)
    assert len(heads) == 5


def test_every_flipped_bit_is_found_in_its_record(quick) -> None:
    """No exception: all eight bits of every byte, the magic's counted to record 0."""
    path = quick / "ledger"
    starts = write(path)
    good = path.read_bytes()
    for position in range(len(good)):
        record = max(sum(start <= position for start in starts) - 1, 0)
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            path.write_bytes(bad)
            with pytest.raises(LedgerError) as caught:
                list(Reader(path))
            assert caught.value.record == record, (position, bit)


def test_records_before_the_changed_one_are_still_given(tmp_path) -> None:
    path = tmp_path / "ledger"
    starts = write(path)
    bad = bytearray(path.read_bytes())
    bad[starts[3] + 8] ^= 1
    path.write_bytes(bad)
    given_ = []
    with pytest.raises(LedgerError, match="ledger record 3: the record does not verify"):
        given_.extend(payload for payload in Reader(path))
    reader, kept = iter(Reader(path)), []
    with pytest.raises(LedgerError):
        kept.extend(iter(lambda: next(reader), None))
    assert kept == PAYLOADS[:3]


@pytest.mark.parametrize(
    "edit",
    [
        lambda parts: [parts[0], parts[2], parts[1], *parts[3:]],
        lambda parts: [parts[0], *parts[2:]],
        lambda parts: [parts[0], parts[1], *parts[1:]],
        lambda parts: parts[1:],
    ],
    ids=["swapped", "left out", "doubled", "headless"],
)
def test_whole_records_can_be_neither_moved_nor_left_out_nor_doubled(edit, tmp_path) -> None:
    path = tmp_path / "ledger"
    starts = write(path)
    data = path.read_bytes()
    parts = [data[a:b] for a, b in pairwise(starts)]
    path.write_bytes(MAGIC + b"".join(edit(parts)))
    with pytest.raises(LedgerError, match="does not verify"):
        list(Reader(path))


def test_every_truncation_is_a_torn_tail_and_no_error(quick) -> None:
    path = quick / "ledger"
    starts = write(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        reader = Reader(path)
        whole = sum(start <= length for start in starts) - 1
        assert list(reader) == PAYLOADS[: max(whole, 0)]
        end = starts[whole] if whole >= 0 else 0
        assert (reader.end, reader.torn) == (end, length - end), length


def test_a_cut_ledger_is_taken_up_and_becomes_what_it_was(quick) -> None:
    path = quick / "ledger"
    starts = write(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        reader = Reader(path)
        done = len(list(reader))
        again = Ledger.reopen(reader)
        for payload in PAYLOADS[done:]:
            again.append(payload)
        again.close()
        assert path.read_bytes() == data, length
    assert starts[-1] == len(data)


@pytest.mark.parametrize("zeros", [1, 7, 8, 9, 40, 4096])
def test_zeros_at_the_end_are_a_torn_tail(zeros, tmp_path) -> None:
    """A file grown but not written before a power failure."""
    path = tmp_path / "ledger"
    starts = write(path)
    data = path.read_bytes()
    path.write_bytes(data + bytes(zeros))
    reader = Reader(path)
    assert list(reader) == PAYLOADS
    assert (reader.end, reader.torn) == (starts[-1], zeros)
    again = Ledger.reopen(reader)
    again.append(b"next")
    again.close()
    assert path.read_bytes() == by_hand([*PAYLOADS, b"next"])


def test_zeros_with_something_behind_them_are_an_error(tmp_path) -> None:
    path = tmp_path / "ledger"
    write(path)
    path.write_bytes(path.read_bytes() + bytes(5000) + b"\1")
    with pytest.raises(LedgerError) as caught:
        list(Reader(path))
    assert caught.value.record == len(PAYLOADS)


def test_a_changed_length_does_not_pass_for_a_torn_tail(tmp_path) -> None:
    """Without a checksum of its own, this record would claim the file's rest and more."""
    path = tmp_path / "ledger"
    starts = write(path)
    bad = bytearray(path.read_bytes())
    bad[starts[1] + 3] = 0x7F
    path.write_bytes(bad)
    with pytest.raises(LedgerError, match="ledger record 1: the length does not verify"):
        list(Reader(path))


@pytest.mark.parametrize("content", [b"hello, world", b"BAFFLE\x03\n" + bytes(100), b"x"])
def test_other_files_and_other_versions_are_refused(content, tmp_path) -> None:
    (tmp_path / "ledger").write_bytes(content)
    with pytest.raises(LedgerError, match="ledger record 0: this is no ledger of a version known here"):
        list(Reader(tmp_path / "ledger"))


def test_a_missing_ledger_is_told_in_words(tmp_path) -> None:
    with pytest.raises(LedgerError, match=r"ledger record 0: .*ledger can't be read: No such file"):
        list(Reader(tmp_path / "ledger"))


def test_a_ledger_is_never_begun_over_another(tmp_path) -> None:
    write(tmp_path / "ledger")
    data = (tmp_path / "ledger").read_bytes()
    with pytest.raises(LedgerError, match="is there already"):
        Ledger.create(tmp_path / "ledger")
    assert (tmp_path / "ledger").read_bytes() == data


def test_a_ledger_that_is_open_is_not_opened_again(tmp_path) -> None:
    """A lock is a descriptor's, so that a second one in this process stands for another process."""
    path = tmp_path / "ledger"
    held = Ledger.create(path)
    held.append(b"header")
    for _ in range(2):  # what is created keeps others out, and what is taken up
        data, reader = path.read_bytes(), Reader(path)
        assert list(reader)
        with pytest.raises(LedgerError, match=r"^ledger record 0: .*ledger is being written by another process$"):
            Ledger.reopen(reader)
        assert path.read_bytes() == data
        held.close()
        held = Ledger.reopen(reader)
        held.append(b"round")
    held.close()
    assert list(Reader(path)) == [b"header", b"round", b"round"]


@pytest.mark.parametrize("written", [0, 1, 4, 8, 20, 39, 44])
def test_an_append_that_the_disk_refuses_loses_nothing(written, tmp_path, monkeypatch) -> None:
    """The disk takes some bytes of the frame and then is full; later it has room again."""
    path = tmp_path / "ledger"
    made = Ledger.create(path)
    made.append(b"before")
    data, head = path.read_bytes(), made.head
    whole = ledger._write

    def full(file, frame):
        file.write(frame[:written])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write", full)
        with pytest.raises(LedgerError, match=r"ledger record 1: can't be written: No space left on device") as caught:
            made.append(b"after")
    assert caught.value.record == 1
    assert ledger._write is whole
    assert path.read_bytes() == data
    assert (made.head, made.records) == (head, 1)
    made.append(b"after")
    made.close()
    assert path.read_bytes() == by_hand([b"before", b"after"])


def test_a_record_that_is_written_but_not_flushed_does_not_count(tmp_path, monkeypatch) -> None:
    path = tmp_path / "ledger"
    made = Ledger.create(path)
    made.append(b"before")
    data = path.read_bytes()

    def fails(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(LedgerError, match="Input/output error"):
            made.append(b"after")
    made.close()
    assert path.read_bytes() == data
    assert list(Reader(path)) == [b"before"]


def test_a_real_limit_on_the_files_size_loses_nothing(tmp_path) -> None:
    path = tmp_path / "ledger"
    made = Ledger.create(path)
    made.append(b"before")
    data = path.read_bytes()
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) + 50, old[1]))
        with pytest.raises(LedgerError, match="File too large; nothing before it is lost"):
            made.append(b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == data
    made.append(b"after")
    made.close()
    assert list(Reader(path)) == [b"before", b"after"]


def test_a_record_is_on_disk_when_append_returns(tmp_path, monkeypatch) -> None:
    """Written, then flushed, in this order, for every record."""
    path = tmp_path / "ledger"
    made = Ledger.create(path)
    sizes = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (sizes.append(os.fstat(descriptor).st_size), flush(descriptor)))
    for payload in PAYLOADS:
        made.append(payload)
        assert sizes[-1] == path.stat().st_size
    assert len(sizes) == len(PAYLOADS)
    made.close()


def test_what_is_cut_off_is_off_the_disk_before_anything_is_added(tmp_path, monkeypatch) -> None:
    path = tmp_path / "ledger"
    starts = write(path)
    path.write_bytes(path.read_bytes()[:-1])
    reader, sizes, flush = Reader(path), [], os.fsync
    assert len(list(reader)) == len(PAYLOADS) - 1
    monkeypatch.setattr(os, "fsync", lambda descriptor: (sizes.append(os.fstat(descriptor).st_size), flush(descriptor)))
    again = Ledger.reopen(reader)
    assert sizes == [starts[-2]]
    again.close()


def test_a_new_ledger_and_its_name_are_on_disk_before_its_first_record(tmp_path, monkeypatch) -> None:
    flushed, flush = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (flushed.append(os.fstat(descriptor).st_ino), flush(descriptor))
    )
    Ledger.create(tmp_path / "ledger").close()
    assert flushed == [(tmp_path / "ledger").stat().st_ino, tmp_path.stat().st_ino]


# The page.

PAGE = Path(__file__).parents[1] / "docs" / "ledger.md"
GOLDEN = Path(__file__).parent / "golden" / "v1"


def block(language: str) -> str:
    """Return the page's one block of code in that language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return text


@pytest.fixture
def read():
    """The reader that the page prints."""
    names: dict = {}
    exec(block("python"), names)
    return names["read"]


@pytest.mark.parametrize("version", [1, 2])
def test_the_pages_example_is_a_ledger(version, tmp_path) -> None:
    page = PAGE if version == 1 else PAGE.with_name(f"ledger-{version}.md")
    (text,) = re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "ledger").write_bytes(bytes.fromhex(text))
    reader = Reader(tmp_path / "ledger")
    assert list(reader) == [b"header", b"round"]
    assert reader.version == version
    assert bytes.fromhex(text) == by_hand([b"header", b"round"], version)


def test_the_pages_reader_reads_what_ours_does(read, tmp_path, capsys) -> None:
    path = tmp_path / "ledger"
    path.write_bytes((GOLDEN / "default" / "ledger").read_bytes())
    payloads = list(Reader(path))
    assert list(read(path)) == payloads
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    assert list(read(path)) == payloads[:-1]
    assert f"bytes of an unfinished record {len(payloads) - 1}" in capsys.readouterr().out
    bad = bytearray(data)
    for position in range(0, len(data), 37):
        bad[position] ^= 2
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"no ledger of version 1|record"):
            list(read(path))
        bad[position] ^= 2


def test_records_have_the_fields_that_the_page_lists() -> None:
    """Names and order, of a run with a round that was tried again."""
    header, *rounds = [msgspec.msgpack.decode(payload) for payload in Reader(GOLDEN / "linear" / "ledger")]
    text = PAGE.read_text(encoding="utf-8")
    assert list(header) == ["noise", "algorithm", "federation", "samples", "initial", "budget"]
    for name in (*header, *header["federation"], *header["algorithm"], *header["federation"]["layout"]["tensors"][0]):
        assert f"`{name}`" in text, name
    for record in rounds:
        plan, answered, uploads, left_out, aggregate, digest, epsilon = record
        assert len(plan) == 15
        assert [type(field) for field in plan] == [
            *(int, int, int, bytes, list, int, int, int, float, int, int, int, dict, list, type(None)),
        ]
        assert epsilon is None
        assert all([type(field) for field in one] == [int, int, int, float, dict, float] for one in plan[13])
        assert len(answered) == len(uploads)
        assert all(len(pair) == 2 for pair in left_out)
        assert (aggregate is None) == (digest is None)
        if aggregate is not None:
            weight, bits, sums, shift, inside = aggregate
            assert [type(field) for field in aggregate] == [int, int, bytes, int, list]
            assert inside == []
            assert weight > 0
            assert 0 <= shift <= 64 - bits
            assert bits == plan[11]
            assert len(sums) == -(-plan[6] * plan[7] * sum(one[2] for one in plan[13]) * bits // 8)
    assert any(record[4] is None for record in rounds)


def test_the_estimate_is_what_the_page_says(tmp_path) -> None:
    """Section 3 by hand: sums unpacked bit by bit, directions as integers, plain SGD without momentum."""
    method = msgspec.structs.replace(METHOD, optimizer=Sgd(rate=0.25), groups=2, local_steps=2, forwards=80)
    simulation(method).run(1, out=tmp_path)
    header, record = [msgspec.msgpack.decode(payload) for payload in Reader(tmp_path / "ledger")]
    _, plan, _, _, _, (weight, bits, packed, shift, _), digest, _, _ = record
    groups, steps, blocks = plan[6], plan[7], plan[13]
    number = int.from_bytes(packed, "little")
    count = groups * steps * sum(one[2] for one in blocks)
    codes = [number >> (i * bits) & ((1 << bits) - 1) for i in range(count)]
    sums = iter((code - (1 << bits) if code >> (bits - 1) else code) << shift for code in codes)
    totals = [np.zeros(stop - start, np.int64) for start, stop, *_ in blocks]
    for group in range(groups):
        for step in range(steps):
            for at, (start, stop, budget, *_) in enumerate(blocks):
                key = Key(plan[3]).fold(group, step, at)
                for direction in range(budget):
                    totals[at] += next(sums) * Rademacher().entries(key, direction, 0, stop - start).astype(np.int64)
    theta = simulation(method).header().start({}).parameters
    assert hashlib.blake2b(theta.astype("<f4").tobytes(), digest_size=32).hexdigest() == header["initial"]
    for total, (start, stop, budget, bound, *_) in zip(totals, blocks, strict=True):
        estimate = (total * (bound / ((2 ** (plan[11] - 1) - 1) * 1.0 * (budget * steps * weight)))).astype(np.float32)
        theta[start:stop] -= np.float32(0.25) * estimate
    assert hashlib.blake2b(theta.astype("<f4").tobytes(), digest_size=32).hexdigest() == digest


def test_a_ledger_can_be_read_by_its_owner_alone(tmp_path) -> None:
    """Its header has the run's secret."""
    before = os.umask(0o022)
    try:
        simulation().run(1, out=tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ledger").stat().st_mode) == 0o600
