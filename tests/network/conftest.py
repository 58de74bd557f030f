"""What tests with processes of their own share: keys, and a federation that is ended with the test."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    from network_processes import Authority

    return Authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def net(tmp_path, authority):
    from network_processes import machines

    with machines(tmp_path, authority) as found:
        yield found
