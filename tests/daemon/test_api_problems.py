# SPDX-License-Identifier: Apache-2.0
"""REST: what can't be done, and how that is said."""

import pytest
from api_lab import V1, error_of

from polycube.daemon import http


def test_problems_say_where_what_and_what_was_expected(client, br0):
    assert error_of(client.patch(f"{V1}simplebridge/br0/fdb/aging-time", json=-1)) == (
        400,
        "invalid-value",
        "br0/fdb/aging-time cannot be -1: expected an integer from 0 to 4294967295",
    )
    assert error_of(client.get(f"{V1}simplebridge/br0/fbd/"))[2].startswith("br0 has no fbd; did you mean fdb?")
    body = {"ports": [{"name": "p", "peer": "a b"}], "loglevel": "loud"}
    errors = client.post(f"{V1}router/r1", json=body).json()["ietf-restconf:errors"]["error"]
    assert [error["error-path"] for error in errors] == ["/r1/loglevel", "/r1/ports/p/peer"]


@pytest.mark.parametrize("body", ["{", "[1", '{"a":NaN}', "\udcff", "[" * 100_000, "1" * 5000, '["\\ud800"]'])
def test_what_is_not_json_is_refused(client, body):
    response = client.post(f"{V1}router/r1/", content=body.encode(errors="surrogateescape"))
    assert response.status_code == 400 and "traceback" not in response.text.lower()


def test_text_that_is_no_unicode_does_no_harm(client):
    response = client.post(f"{V1}router/r1/", content=b'{"name":"\\ud800","\\udfff":1}')
    assert response.status_code == 400
    response = client.post(f"{V1}connect", content=b'{"peer1":"\\ud800","peer2":"x","\\udfff":1}')
    assert response.status_code == 400
    assert client.get(f"{V1}%ff%00/").status_code == 404


def test_a_body_over_the_limit_is_refused(client, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY", 2**20)
    response = client.post(f"{V1}router/r1/", content=b" " * (2**20 + 1))
    assert (response.status_code, response.text) == (413, "The request is larger than 1 MiB")


def test_errors_of_a_service_are_told_and_unexpected_ones_are_not(client, capsys):
    response = client.post(f"{V1}router/r1/", json={"loglevel": "off"})
    assert (response.status_code, response.text) == (400, "the service does not want this")
    response = client.post(f"{V1}router/r1/", json={"loglevel": "critical"})
    assert (response.status_code, response.text) == (500, "Internal error: the daemon's log says more")
    assert "secret detail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("kinds=port-upp", "did you mean port-up"),
        ("drops=many", "expected dropped frames a second"),
        ("drops=-1", "expected dropped frames"),
    ],
)
def test_a_stream_of_events_that_cannot_be_is_refused(client, query, said):
    answer = client.get(f"{V1}events?{query}")
    assert answer.status_code == 400 and said in answer.text
