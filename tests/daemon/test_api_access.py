# SPDX-License-Identifier: Apache-2.0
"""REST: who may read, and who may change."""

import os

from api_lab import V1
from starlette.testclient import TestClient

from polycube.daemon.api import build_app
from polycube.daemon.auth import Access, Role
from polycube.daemon.http import Guard


def test_a_socket_for_everyone_is_read_only_and_knows_its_names(controller):
    guarded = Guard(build_app(controller), Access(anonymous=Role.READER))
    with TestClient(guarded, base_url="http://localhost:9000") as client:
        assert client.get(f"{V1}cubes").status_code == 200
        assert client.get(f"{V1}cubes", headers={"Origin": "http://127.0.0.1:9000"}).status_code == 200
        assert client.options(f"{V1}router?help=NONE").status_code == 200
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, f"{V1}router/r1", json={}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Host": "evil.example"}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Host": "[::1"}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Origin": "null"}).status_code == 403


def test_a_stream_is_for_those_who_may_change_things(controller):
    with TestClient(build_app(controller), base_url="http://localhost") as client:
        assert client.post(f"{V1}filter/f1", json={}).status_code == 201
        answer = client.get(f"{V1}filter/f1/follow")
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"packets of f1", "application/x-pcapng")
        assert client.head(f"{V1}filter/f1/follow").status_code == 200
        assert client.post(f"{V1}filter/f1/follow").status_code == 405
        assert client.get(f"{V1}filter/f1/action").status_code == 200
        assert controller.reads[-1]
    with TestClient(Guard(build_app(controller), Access(anonymous=Role.READER)), base_url="http://localhost") as client:
        refused = client.get(f"{V1}filter/f1/follow")
        assert (refused.status_code, refused.text.partition(" needs")[0]) == (403, "f1/follow")
        assert client.get(f"{V1}filter/f1/action").status_code == 200
        assert not controller.reads[-1]  # nothing is taken out


def test_tokens_give_roles(controller, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# who\nreading-token-0123 reader\nchanging-token-0123 admin # everything\n")
    file.chmod(0o600)
    access = Access(token_file=file)
    with TestClient(Guard(build_app(controller), access), base_url="http://localhost") as client:

        def status(method, token, **headers):
            headers |= {"Authorization": token} if token else {}
            return client.request(method, f"{V1}router/r1", json={} if method == "POST" else None, headers=headers).status_code

        assert status("GET", "") == 401
        assert status("GET", "Bearer no-such-token-0123") == 401
        assert status("GET", "Basic cmVhZGluZy10b2tlbi0wMTIz") == 401
        assert status("POST", "Bearer reading-token-0123") == 403
        assert status("POST", "Bearer changing-token-0123", Origin="http://evil.example") == 403
        assert status("POST", "bearer changing-token-0123") == 201
        assert status("GET", "Bearer reading-token-0123") == 200
        file.write_text("another-token-01234 admin\n")
        os.utime(file, ns=(1, 1))
        assert status("GET", "Bearer reading-token-0123") == 401
        file.write_text("nonsense\n")
        os.utime(file, ns=(2, 2))
        assert status("GET", "Bearer another-token-01234") == 200  # what can't be used changes nothing
