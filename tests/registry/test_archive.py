"""Archives of models: what is taken out of them, and what tricks them do not get past."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models import learned

from rankward.errors import InvalidRequest
from rankward.registry.archive import Parcel, pack, unpack

MODEL = learned()
BOUND = 100_000
PACKED = pack(MODEL, b"certificate", b"signature")


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make an archive of any members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as made:
        for name, data in members:
            made.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def opened(data: bytes, bound: int = BOUND) -> Parcel:
    """Unpack bytes."""
    return unpack(io.BytesIO(data), bound=bound)


def refusal(data: bytes, bound: int = BOUND) -> str:
    """Unpack what must be refused. Returns the message."""
    with pytest.raises(InvalidRequest) as caught:
        opened(data, bound)
    assert caught.value.code == "InvalidModelImportFormat"
    return caught.value.message


def test_what_was_packed_is_unpacked() -> None:
    """The members have the names that the original gave them."""
    assert zipfile.ZipFile(io.BytesIO(PACKED)).namelist() == ["model.vw", "signer.der", "sha512_signature.bin"]
    assert opened(PACKED) == Parcel(MODEL, b"certificate", b"signature")
    assert pack(MODEL, b"certificate", b"signature") == PACKED, "the length is asked for first, by HEAD"


def test_a_bare_model_and_an_archive_of_one_are_unsigned() -> None:
    """Both are what people have when they come from elsewhere."""
    assert opened(MODEL) == Parcel(MODEL, None, None)
    assert opened(archive(("model.vw", MODEL))) == Parcel(MODEL, None, None)
    assert opened(archive(("model.vw", MODEL), ("readme.txt", b"hello"), method=zipfile.ZIP_STORED)).model == MODEL


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage" * 99,
        PACKED[:-1],
        PACKED[10:],
        PACKED[: len(PACKED) // 2],
        PACKED + b"more",
        bytes(BOUND),
        PACKED[:40] + b"\xff\xff\xff\xff" + PACKED[44:],
    ],
)
def test_what_is_no_archive_is_refused_in_the_originals_words(data: bytes) -> None:
    """Clients may look for them."""
    assert refusal(data) == "Input is not a valid zip file."


def test_members_that_are_missing_doubled_or_elsewhere_are_refused() -> None:
    """Which of two would be meant? And a path is not a name."""
    assert "no model.vw" in refusal(archive(("signer.der", b"x")))
    assert "no model.vw" in refusal(archive(("../model.vw", MODEL), ("/model.vw", MODEL), ("x/model.vw", MODEL)))
    with pytest.warns(UserWarning, match="Duplicate"):
        doubled = archive(("model.vw", MODEL), ("model.vw", MODEL))
    assert "more than one" in refusal(doubled)
    assert "deflate" in refusal(archive(("model.vw", MODEL), method=zipfile.ZIP_BZIP2))


def test_what_grows_beyond_the_bound_is_refused() -> None:
    """A hundred kilobytes of zeros are a hundred bytes when they are packed."""
    assert "larger than" in refusal(archive(("model.vw", bytes(50 * BOUND))))
    assert "larger than" in refusal(archive(("model.vw", MODEL), ("signer.der", bytes(100_000))))
    assert "larger than" in refusal(MODEL, bound=len(MODEL) - 1)
    assert opened(MODEL, bound=len(MODEL)).model == MODEL


def test_a_member_that_lies_about_its_size_is_bounded_all_the_same() -> None:
    """The size on record is the sender's claim."""
    bomb = bytearray(archive(("model.vw", bytes(50 * BOUND))))
    place = bomb.index(b"PK\1\2") + 24  # the size, unpacked, in the list of members
    bomb[place : place + 4] = struct.pack("<I", 10)
    assert refusal(bytes(bomb))


def test_a_list_of_a_million_members_is_not_read() -> None:
    """It would be held in memory as a whole."""
    many = archive(*((f"{number}", b"") for number in range(3_000)))
    assert refusal(many) == "Input is not a valid zip file."

    end = PACKED.rindex(b"PK\5\6")
    hidden = PACKED[:end] + b"PK\6\7" + bytes(16) + PACKED[end:]  # another list is to be looked for elsewhere
    assert refusal(hidden) == "Input is not a valid zip file."


def test_an_encrypted_member_is_refused() -> None:
    """There is no key for it."""
    secret = bytearray(PACKED)
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        secret[secret.index(mark) + flags] |= 1
    assert refusal(bytes(secret))


@given(st.integers(0, len(PACKED) - 1), st.integers(0, 255))
def test_a_changed_byte_is_noticed_or_harmless(place: int, value: int) -> None:
    """Whatever comes out is the model, or a refusal: the archive has checksums of its own."""
    damaged = bytearray(PACKED)
    damaged[place] = value
    try:
        parcel = opened(bytes(damaged))
    except InvalidRequest:
        return
    assert parcel.model == MODEL
