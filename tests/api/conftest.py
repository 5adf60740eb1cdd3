"""What tests of the API share: a service that speaks TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.api.options import ApiOptions
from tests.certificates import self_signed
from tests.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def tls_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service behind a certificate of its own."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = self_signed(folder)
    running = RunningService(folder, options=ApiOptions(tls_cert=str(certificate), tls_key=str(key)))
    try:
        yield running.start()
    finally:
        running.close()
