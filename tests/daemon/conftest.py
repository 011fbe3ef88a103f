# SPDX-License-Identifier: Apache-2.0
"""The REST interface of a controller in memory."""

import pytest
from api_lab import V1, Memory
from starlette.testclient import TestClient

from polycube.daemon.api import build_app


@pytest.fixture
def controller():
    return Memory()


@pytest.fixture
def client(controller):
    with TestClient(build_app(controller), base_url="http://localhost", follow_redirects=False) as client:
        yield client


@pytest.fixture
def br0(client, controller):
    assert client.post(f"{V1}simplebridge/br0/", json={"ports": [{"name": "p1", "peer": "veth1"}]}).status_code == 201
    return controller
