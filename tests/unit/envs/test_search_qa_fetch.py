"""Requests over real HTTP on loopback: time, size, tries, redirects, and whom not to ask."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.unit.envs.loopback_site import Reply, Site, loopback_site
from treegrpo.envs.retrieval.base import PageFailed
from treegrpo.envs.retrieval.fetch import Fetcher, Limits, retry_after_s
from treegrpo.envs.retrieval.guard import Guard

HERE = Guard(allow_loopback=True)
QUICK = Limits(connect_s=1.0, read_s=0.2, total_s=1.5, max_bytes=10_000, retries=2, max_wait_s=5)


@pytest.fixture
def site() -> Iterator[Site]:
    with loopback_site() as served:
        yield served


class Pauses:
    """Notes how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)


def refusal(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(PageFailed) as caught:
        fetcher.get(url)
    return str(caught.value)


def test_a_page_comes_back_whole_with_its_headers(site: Site) -> None:
    answer = Fetcher(HERE, QUICK).get(site.put("/a", Reply(b"hello")))
    assert (answer.status, answer.body, answer.is_cut) == (200, b"hello", False)
    assert answer.headers["content-type"] == "text/html"
    assert site.seen[0].headers["Host"] == site.url.removeprefix("http://")


def test_a_silent_server_is_given_up_after_the_read_time(site: Site) -> None:
    gone = threading.Event()
    url = site.put("/slow", Reply(lambda out: gone.wait(5)))
    assert refusal(Fetcher(HERE, QUICK), url) == "the site did not answer in time"
    gone.set()


def dripping(chunk: bytes) -> Any:
    def write(out: Any) -> None:
        for _ in range(2_000):  # 40 s of drops
            out.write(chunk)
            out.flush()
            time.sleep(0.02)

    return write


def test_a_server_that_drips_bytes_is_given_up_after_the_total_time(site: Site) -> None:
    url = site.put("/drip", Reply(dripping(b"x")))
    started = time.monotonic()
    assert refusal(Fetcher(HERE, QUICK), url) == "the site took longer than 1.5 s"
    assert time.monotonic() - started < 20
    assert len(site.seen) == 1


def test_headers_that_drip_are_given_up_too(site: Site) -> None:
    url = site.put("/drip", Reply(dripping(b"H"), is_raw=True))
    assert refusal(Fetcher(HERE, QUICK), url) == "the site took longer than 1.5 s"


def test_too_many_requests_waits_as_long_as_the_server_asks(site: Site) -> None:
    pauses = Pauses()
    busy = Reply(status=429, headers={"Retry-After": "3"})
    url = site.put("/busy", busy, Reply(b"now"))
    assert Fetcher(HERE, QUICK, pauses).get(url).body == b"now"
    assert (pauses.asked, len(site.seen)) == ([3.0], 2)


def test_without_a_word_from_the_server_pauses_double_and_tries_end(site: Site) -> None:
    pauses = Pauses()
    url = site.put("/down", Reply(status=503, headers={}))
    assert refusal(Fetcher(HERE, QUICK, pauses), url) == "the site answered with status 503"
    assert (pauses.asked, len(site.seen)) == ([0.5, 1.0], 3)


def test_a_wait_that_is_too_long_is_not_waited_for(site: Site) -> None:
    pauses = Pauses()
    url = site.put("/busy", Reply(status=429, headers={"Retry-After": "3600"}))
    assert "429 and asks to wait 3600 s" in refusal(Fetcher(HERE, QUICK, pauses), url)
    assert (pauses.asked, len(site.seen)) == ([], 1)


def test_what_is_missing_is_not_asked_for_again(site: Site) -> None:
    assert refusal(Fetcher(HERE, QUICK), f"{site.url}/no") == "the site answered with status 404"
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), (" 0 ", 0.0), ("soon", None), ("", None), ("-3", None), ("9" * 13, None)],
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds


def test_retry_after_as_a_date() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    later = retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT")
    assert later is not None and later > 1e9


def test_fifty_megabytes_are_cut_and_not_read(site: Site) -> None:
    sent: list[int] = []

    def write(out: Any) -> None:
        for _ in range(800):
            out.write(b"x" * 65_536)
            sent.append(65_536)

    answer = Fetcher(HERE, QUICK).get(site.put("/big", Reply(write)))
    assert (len(answer.body), answer.is_cut) == (10_000, True)
    assert sum(sent) < 50_000_000


def test_a_gzip_bomb_is_unpacked_only_up_to_the_limit(site: Site) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(50)) + packer.flush()
    packed = {"Content-Encoding": "gzip"}
    answer = Fetcher(HERE, QUICK).get(site.put("/bomb", Reply(bomb, headers=packed)))
    assert (len(answer.body), answer.is_cut) == (10_000, True)


def test_gzip_is_unpacked_and_what_is_damaged_or_unknown_refused(site: Site) -> None:
    packed = {"Content-Encoding": "gzip"}
    url = site.put("/gz", Reply(gzip.compress(b"hello"), headers=packed))
    assert Fetcher(HERE, QUICK).get(url).body == b"hello"
    url = site.put("/bad", Reply(b"no gzip at all", headers=packed))
    assert refusal(Fetcher(HERE, QUICK), url) == "its packed data are damaged"
    url = site.put("/br", Reply(b"x", headers={"Content-Encoding": "br"}))
    assert "packed as 'br'" in refusal(Fetcher(HERE, QUICK), url)


def leading_to(there: str) -> Reply:
    return Reply(status=302, headers={"Location": there})


def test_redirects_are_followed_and_keys_stay_with_their_site(site: Site) -> None:
    with loopback_site() as other:
        url = site.put("/one", leading_to("/two"))
        site.put("/two", leading_to(other.put("/three", Reply(b"end"))))
        answer = Fetcher(HERE, QUICK).get(url, {"X-API-KEY": "secret"})
        assert answer.body == b"end"
        assert [request.headers.get("X-API-KEY") for request in site.seen] == ["secret", "secret"]
        assert "X-API-KEY" not in other.seen[0].headers


def test_a_circle_of_redirects_ends(site: Site) -> None:
    url = site.put("/round", leading_to("/round"))
    assert refusal(Fetcher(HERE, QUICK), url) == "it redirects more than 5 times"
    assert len(site.seen) == 6


def test_a_request_with_a_body_is_not_sent_elsewhere(site: Site) -> None:
    url = site.put("/post", leading_to("/else"))
    with pytest.raises(PageFailed, match="with a body elsewhere"):
        Fetcher(HERE, QUICK).post(url, {"q": "x"})


@pytest.mark.parametrize(
    "there",
    [
        "http://10.0.0.1/",
        "http://192.168.1.1/admin",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://100.64.0.1/",
    ],
)
def test_a_redirect_into_the_private_network_is_refused(site: Site, there: str) -> None:
    url = site.put("/out", leading_to(there))
    assert "private address, which is never opened" in refusal(Fetcher(HERE, QUICK), url)


@pytest.mark.parametrize("there", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"])
def test_a_redirect_out_of_the_web_is_refused(site: Site, there: str) -> None:
    said = refusal(Fetcher(HERE, QUICK), site.put("/out", leading_to(there)))
    assert "not one of the web" in said or "cannot be read" in said


def test_loopback_is_refused_unless_a_test_allows_it(site: Site) -> None:
    url = site.put("/a", Reply(b"hello"))
    other_spellings = ("localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]")
    for address in (url, *(url.replace("127.0.0.1", one) for one in other_spellings)):
        assert "private address" in refusal(Fetcher(Guard(), QUICK), address)
    assert site.seen == []


def test_only_the_hosts_that_were_named_are_asked(site: Site) -> None:
    guard = Guard(hosts=("lights.example",), resolve=lambda host, port: ["93.184.216.34"])
    for host in ("lights.example", "www.lights.example", "LIGHTS.example."):
        assert guard.addresses(httpx.URL(f"https://{host}/")) == ["93.184.216.34"]
    for host in ("example", "badlights.example", "lights.example.evil.test"):
        with pytest.raises(PageFailed, match="not one of those that may be opened"):
            guard.addresses(httpx.URL(f"https://{host}/"))


def test_one_private_address_among_many_is_enough_to_refuse() -> None:
    guard = Guard(resolve=lambda host, port: ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(PageFailed, match=r"two-faced\.example is at a private address"):
        guard.addresses(httpx.URL("http://two-faced.example/"))


def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_asked(site: Site) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    site.put("/a", Reply(b"hello"))
    port = site.url.rpartition(":")[2]
    guard = Guard(allow_loopback=True, resolve=resolve)
    answer = Fetcher(guard, QUICK).get(f"http://site.example:{port}/a")
    assert (answer.body, asked) == (b"hello", ["site.example"])
    assert site.seen[0].headers["Host"] == f"site.example:{port}"


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    site.put("/a", Reply(b"hello"))
    port = site.url.rpartition(":")[2]
    guard = Guard(allow_loopback=True, resolve=lambda host, port: ["::1", "127.0.0.1"])
    assert Fetcher(guard, QUICK).get(f"http://site.example:{port}/a").body == b"hello"


def test_nobody_at_home_is_tried_again_and_then_said() -> None:
    with loopback_site() as gone:
        url = gone.url
    pauses = Pauses()
    assert refusal(Fetcher(HERE, QUICK, pauses), url) == "the site cannot be reached"
    assert pauses.asked == [0.5, 1.0]


@pytest.mark.parametrize("url", ["", "no address", "http://a:b@site.example/", "http://[::1"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    guard = Guard(resolve=lambda host, port: ["93.184.216.34"])
    said = refusal(Fetcher(guard, QUICK), url)
    assert "its address" in said


def test_proxies_of_the_environment_are_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    assert Fetcher(HERE, QUICK).get(site.put("/a", Reply(b"direct"))).body == b"direct"
