"""The installation's key: made once, kept from others, replaced."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from rankward.errors import InvalidRequest, StoreUnavailable
from rankward.registry.sign import write_keyring
from rankward.registry.signing import Signing
from rankward.store.sqlite.vault import FileVault

if TYPE_CHECKING:
    from pathlib import Path

NOW_US = 1_760_000_000_000_000


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    """A signing key's home, with no key yet."""
    return at(tmp_path / "signing.pem")


def at(path: Path) -> Signing:
    """Sign with the key at a path."""
    return Signing(FileVault(path), clock=lambda: NOW_US)


def test_a_key_is_made_once_and_only_its_owner_can_read_it(signing: Signing, tmp_path: Path) -> None:
    """Whoever has it can make models that every loop's key lets in."""
    ring = signing.keyring()

    assert signing.keyring().certificate == ring.certificate
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
    assert ring.key.key_size == 2048
    assert ring.certificate.not_valid_before_utc.year == 2025


def test_processes_that_need_the_first_key_at_once_get_the_same(tmp_path: Path) -> None:
    """Or one would sign with a key that is gone the moment after."""
    with ThreadPoolExecutor(4) as pool:
        rings = list(pool.map(lambda _: at(tmp_path / "signing.pem").keyring(), range(4)))

    assert len({ring.certificate for ring in rings}) == 1


def test_a_replaced_key_is_trusted_until_it_is_forgotten(signing: Signing) -> None:
    """Exports that were made before can come back, unless the key was lost to somebody."""
    before = signing.keyring()

    replaced = signing.replace()

    assert replaced.certificate != before.certificate
    assert signing.keyring().trusted == (before.certificate,)
    assert signing.forget_others().trusted == ()
    assert signing.keyring().certificates == (replaced.certificate,)


def test_a_key_from_elsewhere_is_taken_with_or_without_its_certificate(signing: Signing, tmp_path: Path) -> None:
    """An installation may move, and an authority may have certified its key."""
    other = at(tmp_path / "other.pem").keyring()
    bare = other.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    first = signing.keyring()

    adopted = signing.adopt(write_keyring(other))
    assert adopted.certificate == other.certificate
    assert adopted.trusted == (first.certificate,)

    again = signing.adopt(bare)
    assert again.key.private_numbers() == other.key.private_numbers()
    assert again.trusted == (first.certificate,)
    with pytest.raises(InvalidRequest, match="cannot be used"):
        signing.adopt(b"no key")
    assert signing.keyring().certificate == again.certificate


def test_another_installation_is_trusted_by_its_certificate(signing: Signing, tmp_path: Path) -> None:
    """So that two of them can hand models to each other with keys of loops alone."""
    other = at(tmp_path / "other.pem").keyring().certificate

    ring = signing.trust(other.public_bytes(serialization.Encoding.DER))

    assert ring.trusted == (other,)
    assert signing.trust(other.public_bytes(serialization.Encoding.PEM)).trusted == (other,)
    with pytest.raises(InvalidRequest, match="cannot be used"):
        signing.trust(b"no certificate")


def test_a_damaged_key_is_said_to_be_so(tmp_path: Path) -> None:
    """Nobody may be given a new one without being told: what the old one signed would be foreign."""
    (tmp_path / "signing.pem").write_bytes(b"damaged")

    with pytest.raises(StoreUnavailable, match="backup"):
        at(tmp_path / "signing.pem").keyring()
