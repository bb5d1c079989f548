"""Which addresses the service may send to."""

import pytest

from jobs.egress import NotAllowed, check_url, is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "192.0.1.1", "2606:4700::1111", "64:ff9b::808:808", "64:FF9B::8.8.8.8"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "100::1",
        "2001:0:808:808::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_all_other_addresses_are_not(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org",
        "https://hooks.example.org:443/a/b?c=d",
        "https://hooks.example.org:8443/",
        "HTTPS://Hooks.Example.ORG/",
        "https://bücher.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
    ],
)
def test_a_url_of_the_internet_may_be_sent_to(url):
    assert check_url(url).scheme == "https"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "https"),
        ("hooks.example.org", "https"),
        ("//hooks.example.org", "https"),
        ("http://hooks.example.org/", "https"),
        ("ftp://hooks.example.org/", "https"),
        ("file:///etc/passwd", "https"),
        ("https://[::1", "not a URL"),
        ("https://hooks.example.org\n/", "not a URL"),
        ("https://me@hooks.example.org/", "password"),
        ("https://me:secret@hooks.example.org/", "password"),
        ("https://hooks.example.org\\@10.0.0.1/", "password"),
        ("https://hooks.example.org/#x", "#"),
        ("https://hooks.example.org:80/", "ports 443, 8443"),
        ("https://hooks.example.org:22/", "ports 443, 8443"),
        ("https://hooks.example.org:99999/", "ports 443, 8443"),
        ("https:///x", "public internet"),
        ("https://localhost/", "public internet"),
        ("https://redis/", "public internet"),
        ("https://me.localhost/", "public internet"),
        ("https://printer.local/", "public internet"),
        ("https://metadata.google.internal/", "public internet"),
        ("https://hooks.example.org./", "public internet"),
        ("https://hooks..example.org/", "public internet"),
        ("https://hooks .example.org/", "public internet"),
        ("https://loc%61lhost.example.org/", "public internet"),
        (f"https://{'a' * 64}.example.org/", "public internet"),
        (f"https://{'a.' * 130}example.org/", "public internet"),
        ("https://127.0.0.1/", "public internet"),
        ("https://127。0。0。1/", "public internet"),
        ("https://127.1/", "public internet"),
        ("https://0x7f.0.0.1/", "public internet"),
        ("https://0177.0.0.1/", "not a URL"),
        ("https://2130706433/", "public internet"),
        ("https://169.254.169.254/latest/meta-data/", "public internet"),
        ("https://[::1]/", "public internet"),
        ("https://[::ffff:10.0.0.1]/", "public internet"),
        ("https://[fe80::1%25eth0]/", "public internet"),
    ],
)
def test_any_other_url_is_refused_with_a_reason(url, words):
    with pytest.raises(NotAllowed, match=words):
        check_url(url)


def test_a_developer_may_send_to_the_own_machine():
    for url in ("http://127.0.0.1:8080/hook", "http://localhost:1/", "https://[::1]:9/", "http://redis/"):
        check_url(url, allow_private=True)
    for url in ("ftp://localhost/", "http://me@localhost/", "http:///x"):
        with pytest.raises(NotAllowed):
            check_url(url, allow_private=True)
