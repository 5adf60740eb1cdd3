"""Models as they travel: a zip file of the model, its bins, a certificate and the signature; or the model alone.

Nothing is unpacked to disk, and what is read is bounded whatever the archive claims: so it can hold no path, and a
few bytes cannot grow into many.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from typing import BinaryIO

import msgspec

from rankward.errors import InvalidRequest
from rankward.vw.model_file import is_model

MODEL, BINS, CERTIFICATE, SIGNATURE = "model.vw", "bins.json", "signer.der", "sha512_signature.bin"
_EVIDENCE_BYTES_MAX = 65_536  # of the certificate, and of the signature
_BINS_BYTES_MAX = 1_048_576
_DIRECTORY_BYTES_MAX = 65_536  # of the archive's list of members: all of it is read at once
_BEGINNING = 512
_END = struct.Struct("<4sHHHHIIH")  # of the list: mark, disks, members, its bytes, its place, length of a comment
_END_MARK, _END64_MARK, _END64_BYTES = b"PK\5\6", b"PK\6\7", 20


class Parcel(msgspec.Struct, frozen=True):
    """A model that came from outside, with what vouches for it. Nothing of it has been checked."""

    model: bytes
    certificate: bytes | None  # of the signer, DER; None: it is not signed
    signature: bytes | None
    bins: bytes | None = None  # None: it sees numbers as they are

    @property
    def signed(self) -> bytes:
        """What the signature is of."""
        return signed_bytes(self.model, self.bins)


def signed_bytes(model: bytes, bins: bytes | None) -> bytes:
    """Put together what is signed of a model: the model alone, as the original did, or its bins behind it."""
    return model if bins is None else b"".join((model, b"\0", BINS.encode(), b"\0", bins))


def pack(
    model: bytes, certificate: bytes | None = None, signature: bytes | None = None, *, bins: bytes | None = None
) -> bytes:
    """Write the archive of a model. The same input gives the same bytes."""
    target = io.BytesIO()
    members = ((MODEL, model), (BINS, bins), (CERTIFICATE, certificate), (SIGNATURE, signature))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            if data is None:
                continue
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def unpack(file: BinaryIO, *, bound: int) -> Parcel:
    """Read what was sent: an archive, signed or not, or a bare model.

    Args:
        file: can be read from any place.
        bound: bytes of the model.

    Raises:
        InvalidRequest: it is neither, or larger.
    """
    beginning = file.read(_BEGINNING)
    if is_model(beginning):
        bare = beginning + file.read(max(0, bound + 1 - len(beginning)))
        if len(bare) > bound:
            raise _too_large(MODEL, bound)
        return Parcel(bare, None, None)
    _check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            model = _member(archive, MODEL, bound)
            bins = _member(archive, BINS, _BINS_BYTES_MAX)
            certificate = _member(archive, CERTIFICATE, _EVIDENCE_BYTES_MAX)
            signature = _member(archive, SIGNATURE, _EVIDENCE_BYTES_MAX)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError, RuntimeError) as error:
        raise _no_archive() from error
    if model is None:
        raise _refused(f"there is no {MODEL} in it: send what `GET model?signed=true` answers, as it is")
    return Parcel(model, certificate, signature, bins)


def _check_directory(file: BinaryIO) -> None:
    """Make sure that the archive's list of members is a short one, before it is read as a whole."""
    size = file.seek(0, os.SEEK_END)
    if size < _END.size:
        raise _no_archive()
    file.seek(max(0, size - _END.size - _END64_BYTES))
    last = file.read()
    mark, _, _, _, _, directory_bytes, _, comment_bytes = _END.unpack(last[-_END.size :])
    if mark != _END_MARK or comment_bytes or last.startswith(_END64_MARK) or directory_bytes > _DIRECTORY_BYTES_MAX:
        raise _no_archive()


def _member(archive: zipfile.ZipFile, name: str, bound: int) -> bytes | None:
    """Read a member of the archive. None: there is none."""
    found = [member for member in archive.infolist() if member.filename == name]
    if not found:
        return None
    if len(found) > 1:
        raise _refused(f"it has more than one {name}")
    if found[0].compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _refused(f"its {name} is packed in a way that is not taken: use deflate")
    with archive.open(found[0]) as member:
        data = member.read(bound + 1)
    if len(data) > bound:
        raise _too_large(name, bound)
    return data


def _no_archive() -> InvalidRequest:
    """The original's own words."""
    return InvalidRequest("Input is not a valid zip file.", code="InvalidModelImportFormat", target="model")


def _too_large(name: str, bound: int) -> InvalidRequest:
    return _refused(f"{name} is larger than {bound} bytes: raise RANKWARD_LIMIT_MODEL_BYTES if it is meant to be")


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the model cannot be imported: {why}. Nothing was changed.", code="InvalidModelImportFormat", target="model"
    )
