"""Posting to addresses that users choose, with real servers, good and bad."""

import socket
import ssl
import time
from threading import Event

import pytest
import trustme

from jobs.egress import NotAllowed
from tests.fixtures.broker import free_port
from tests.worker.receiver import drip, endless_body, endless_header, gibberish, hang, receiving, redirect
from worker.egress import Unreachable, post

HOST = "hooks.example.org"


def send(url, *, addresses=("127.0.0.1",), allow_private=True, limit_s=5, tls=None):
    """Post to a place whose name has these addresses."""
    options = {"allow_private": allow_private, "limit_s": limit_s, "tls": tls}
    return post(url, b"{}", {"X-Own": "1"}, resolve=lambda *_: addresses, **options)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def server_tls(authority):
    """A server's side of TLS, with a certificate for a name."""

    def server_tls(name=HOST):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    return server_tls


def test_a_post_arrives_and_its_status_comes_back():
    with receiving(200, 418) as receiver:
        assert [send(receiver.url("/a?b=c")), send(receiver.url())] == [200, 418]
    first = receiver.received[0]
    assert (first.path, first.body, first.headers["x-own"]) == ("/a?b=c", b"{}", "1")
    assert first.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_tls_and_host_header_keep_the_name_while_the_connection_goes_to_the_address(server_tls, trusting):
    with receiving(200, tls=server_tls()) as receiver:
        assert send(receiver.url(scheme="https", host=HOST), tls=trusting) == 200
    assert receiver.names == [HOST]
    assert receiver.received[0].headers["host"] == f"{HOST}:{receiver.port}"


def test_a_certificate_of_another_name_or_authority_is_not_accepted(server_tls, trusting):
    with receiving(tls=server_tls("evil.example.org")) as receiver:
        with pytest.raises(Unreachable, match=f"the certificate was not accepted: .*{HOST}"):
            send(receiver.url(scheme="https", host=HOST), tls=trusting)
        with pytest.raises(Unreachable, match="the certificate was not accepted"):
            send(receiver.url(scheme="https", host="evil.example.org"))
    assert receiver.received == []


def test_a_name_is_looked_up_once_and_the_answer_that_was_checked_is_connected_to(monkeypatch, server_tls, trusting):
    """127.0.0.1 stands for the internet here, and 127.0.0.2 for what is ours alone."""
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    monkeypatch.setattr("worker.egress.is_public", lambda address: address == "127.0.0.1")
    with receiving(200, tls=server_tls()) as receiver, receiving(200, address="127.0.0.2") as private:
        monkeypatch.setattr("jobs.egress.PORTS", (receiver.port,))
        url = receiver.url(scheme="https", host=HOST)
        assert post(url, b"{}", {}, resolve=lambda *_: answers.pop(0), tls=trusting) == 200
        assert answers == [["127.0.0.2"]]
        with pytest.raises(NotAllowed):
            post(url, b"{}", {}, resolve=lambda *_: answers.pop(0), tls=trusting)
    assert (len(receiver.received), private.received) == (1, [])


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"], ["::ffff:169.254.169.254"]]
)
def test_a_name_with_any_private_address_is_never_connected_to(addresses):
    with pytest.raises(NotAllowed, match="not of the public internet"):
        send(f"https://{HOST}/", addresses=addresses, allow_private=False)


def test_what_the_text_of_a_url_forbids_is_not_even_looked_up():
    for url in ("http://hooks.example.org/", "https://127.0.0.1/", "https://hooks.example.org:22/"):
        with pytest.raises(NotAllowed):
            post(url, b"{}", {}, resolve=lambda *_: pytest.fail("was looked up"))


def test_the_next_address_is_tried_if_the_first_does_not_answer():
    with receiving(200) as receiver:
        assert send(receiver.url(host="two.test"), addresses=["127.0.0.9", "127.0.0.1"]) == 200


def test_nothing_is_followed():
    with receiving(redirect) as receiver:
        assert send(receiver.url()) == 307
    assert [request.path for request in receiver.received] == ["/hook"]


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with receiving(200) as receiver:
        assert send(receiver.url()) == 200


@pytest.mark.parametrize("answer", [hang, drip])
def test_a_server_that_is_slow_does_not_hold_us(answer):
    with receiving(answer) as receiver:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.4 seconds"):
            send(receiver.url(), limit_s=0.4)
        assert time.monotonic() - started < 1.5


def test_a_server_that_never_ends_its_handshake_does_not_hold_us(trusting):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unreachable, match=r"no answer within 0\.4 seconds"):
            send(f"https://{HOST}:{port}/", tls=trusting, limit_s=0.4)


def test_a_server_that_speaks_no_tls_is_not_spoken_to(trusting):
    with receiving() as receiver, pytest.raises(Unreachable, match="TLS could not be agreed on"):
        send(receiver.url(scheme="https", host=HOST), tls=trusting)


def test_a_name_server_that_is_slow_does_not_hold_us():
    over = Event()
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer within 0\.3 seconds"):
        post(f"https://{HOST}/", b"{}", {}, limit_s=0.3, resolve=lambda *_: over.wait(20) and [])
    assert time.monotonic() - started < 1.5
    over.set()


def test_of_a_body_without_end_nothing_is_read():
    with receiving(endless_body) as receiver:
        started = time.monotonic()
        assert send(receiver.url()) == 200
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("answer", [endless_header, gibberish])
def test_what_is_not_an_answer_is_given_up_without_telling_what_it_was(answer):
    with receiving(answer) as receiver, pytest.raises(Unreachable) as caught:
        send(receiver.url())
    assert str(caught.value) == "the connection broke, or what came was not HTTP"


def test_nobody_there():
    with pytest.raises(Unreachable, match="refused"):
        send(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(Unreachable, match="not known"):
        post("https://does-not-exist.invalid/", b"{}", {})
    with pytest.raises(Unreachable, match="no address"):
        send(f"https://{HOST}/", addresses=[])
