"""The web as a retriever: engines' answers, pages' text, and the environment over loopback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.unit.envs.loopback_site import Reply, Site, loopback_site
from treegrpo.envs.errors import DataFileError, UnknownOption
from treegrpo.envs.retrieval import Hit, PageFailed, RetrievalFailed, open_retriever
from treegrpo.envs.retrieval.fetch import Answer, Limits
from treegrpo.envs.retrieval.pages import MAX_PAGE_CHARS, decode, load_extractor, page_text

WEB = Path(__file__).resolve().parents[2] / "fixtures" / "web"
QUICK = Limits(connect_s=1.0, read_s=1.0, total_s=2.0, retries=0)
JSON = {"Content-Type": "application/json"}
KEYS = {"brave": "BRAVE_API_KEY", "serper": "SERPER_API_KEY", "tavily": "TAVILY_API_KEY"}


@pytest.fixture
def site() -> Iterator[Site]:
    with loopback_site() as served:
        yield served


def bare(markup: str) -> str:
    """Return the words of simple markup; what trafilatura does is tested where it is there."""
    return markup.replace("<p>", "\n").replace("</p>", "\n")


def engine(site: Site, name: str, tmp_path: Path, **options: Any) -> Any:
    """Return a recorded engine whose answers the site serves."""
    path = "/search" if name == "searxng" else f"/{name}"
    if path not in site.pages:
        site.put(path, Reply((WEB / f"{name}.json").read_bytes(), headers=JSON))
    url = site.url if name == "searxng" else site.url + path
    options = {"limits": QUICK, "extract": bare, "allow_loopback": True} | options
    tape = str(tmp_path / "web.sqlite")
    return open_retriever("web", provider=name, url=url, cassette=tape, **options)


@pytest.mark.parametrize("name", ["searxng", "brave", "serper", "tavily"])
def test_each_engine_is_asked_and_read_in_its_own_way(
    site: Site, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in KEYS:
        monkeypatch.setenv(KEYS[name], "s3cret")
    hits = engine(site, name, tmp_path).search("brindle lighthouse", 2)
    assert hits[0].title == "Brindle Lighthouse"
    assert hits[0].address.endswith("://lights.example/brindle")
    assert "Designed by Mira Tolland" in hits[0].text and "<" not in hits[0].text
    assert len(hits) == 2 and not any(hit.address.startswith("ftp") for hit in hits)
    seen = site.seen[0]
    match name:
        case "searxng":
            assert seen.path == "/search?q=brindle+lighthouse&format=json"
        case "brave":
            assert seen.path == "/brave?q=brindle+lighthouse&count=2"
            assert seen.headers["X-Subscription-Token"] == "s3cret"
        case "serper":
            assert json.loads(seen.body) == {"q": "brindle lighthouse", "num": 2}
            assert seen.headers["X-API-KEY"] == "s3cret"
        case _:
            assert json.loads(seen.body) == {"query": "brindle lighthouse", "max_results": 2}
            assert seen.headers["Authorization"] == "Bearer s3cret"
    assert b"s3cret" not in (tmp_path / "web.sqlite").read_bytes()


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_missing_key_names_its_variable(
    site: Site, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEYS[name], raising=False)
    with pytest.raises(UnknownOption, match=f"{KEYS[name]} is not set. Set it: export"):
        engine(site, name, tmp_path, cassette_mode="record")
    late = engine(site, name, tmp_path)  # auto: what is recorded needs no key
    with pytest.raises(UnknownOption, match=f"{KEYS[name]} is not set"):
        late.search("lamp", 1)


def test_a_refused_key_is_the_machinerys_failure_and_is_not_shown(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAVE_API_KEY", "s3cret")
    site.put("/brave", Reply(status=401))
    with pytest.raises(RetrievalFailed, match=r"status 401.* key in BRAVE_API_KEY") as caught:
        engine(site, "brave", tmp_path).search("lamp", 1)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>busy</html>", "expected JSON, found application/json"),
        (b"[]", "expected an object with 'results', found list"),
        (b'{"results": 3}', "'results' should be a list, found int"),
        (b"[" * 100_000, "expected JSON"),
    ],
)
def test_an_answer_that_is_no_list_of_results_is_refused(
    site: Site, tmp_path: Path, body: bytes, says: str
) -> None:
    site.put("/search", Reply(body, headers=JSON))
    with pytest.raises(RetrievalFailed, match=says):
        engine(site, "searxng", tmp_path).search("lamp", 1)


def test_an_engine_with_nothing_to_say_found_nothing(site: Site, tmp_path: Path) -> None:
    site.put("/search", Reply(b'{"results": [3, {"url": 4}, {"title": "x"}]}', headers=JSON))
    assert engine(site, "searxng", tmp_path).search("lamp", 5) == []
    site.put("/search", Reply(b"{}", headers=JSON))
    assert engine(site, "searxng", tmp_path).search("light", 5) == []


def test_pages_are_opened_recorded_and_refused(site: Site, tmp_path: Path) -> None:
    page = Hit("a", site.put("/a", Reply(b"<p>First.</p><p>Second.</p>"), Reply(b"changed")), "")
    web = engine(site, "searxng", tmp_path)
    assert web.open(page) == web.open(page) == "First.\nSecond."
    image = site.put("/i", Reply(b"\x89PNG", headers={"Content-Type": "image/png"}))
    with pytest.raises(PageFailed, match="it is no text but image/png"):
        web.open(Hit("", image, ""))
    strict = engine(site, "searxng", tmp_path, allow_loopback=False)
    with pytest.raises(PageFailed, match="private address"):
        strict.open(Hit("", site.url + "/b", ""))
    named = engine(site, "searxng", tmp_path, hosts=("lights.example",))
    with pytest.raises(PageFailed, match=r"127\.0\.0\.1 is not one of those that may be opened"):
        named.open(Hit("", site.url + "/c", ""))


def answer(body: bytes, content_type: str = "text/html") -> Answer:
    return Answer(200, httpx.Headers({"content-type": content_type}), body, is_cut=False)


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        ("caf\u00e9".encode(), "text/html; charset=utf-8"),
        ("caf\u00e9".encode("latin-1"), "text/html; charset=utf-8"),
        ("caf\u00e9".encode(), "text/html; charset=iso-8859-1"),
        ("caf\u00e9".encode("latin-1"), "text/html; charset=no-such-charset"),
        ("caf\u00e9".encode("latin-1"), "text/html; charset=rot13"),
        ("caf\u00e9".encode("utf-16"), "text/html"),
        ("\ufeffcaf\u00e9".encode(), "text/html; charset=ascii"),
        (b"<meta charset=cp437>caf\x82", "text/html"),
    ],
)
def test_a_charset_that_is_declared_wrongly_does_no_harm(body: bytes, declared: str) -> None:
    assert decode(body, declared).endswith("caf\u00e9")


def test_what_no_charset_explains_still_becomes_text() -> None:
    assert decode(b"a\x81b\xff") == "a\ufffdb\u00ff"
    assert decode("caf\u00e9".encode()[:-1], is_cut=True) == "caf"
    assert decode("caf\u00e9".encode()[:-1]) == "caf\u00c3"


def test_text_is_tidied_bounded_and_never_empty() -> None:
    said = page_text(answer(b"a \x00\x1b[31m  b\r\n\r\n\xe2\x80\xaec\n", "text/plain"), bare)
    assert said == "a [31m b\nc"
    assert len(page_text(answer(b"x" * 99_000, "text/plain"), bare)) == MAX_PAGE_CHARS
    assert page_text(answer(b'{"a": 1}', "application/json"), bare) == '{"a": 1}'
    with pytest.raises(PageFailed, match="it holds no text"):
        page_text(answer(b" \n "), bare)
    with pytest.raises(PageFailed, match="it holds no text"):
        page_text(answer(b"<p>x</p>"), lambda markup: None)


def test_markup_that_breaks_the_parser_is_a_page_that_fails() -> None:
    def broken(markup: str) -> str:
        raise RecursionError

    with pytest.raises(PageFailed, match=r"its markup cannot be read \(RecursionError\)"):
        page_text(answer(b"<p>x</p>"), broken)


def test_without_the_extractor_the_line_that_installs_it_is_given(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(UnknownOption, match=r"pip install 'treegrpo\[web\]'"):
        engine(site, "searxng", tmp_path, extract=None, cassette_mode="record")


def test_the_extractor_is_asked_for_the_main_text(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def extract(markup: str, **options: Any) -> str:
        calls.append(options)
        return markup.upper()

    monkeypatch.setitem(sys.modules, "trafilatura", SimpleNamespace(extract=extract))
    assert load_extractor()("a") == "A"
    assert calls == [{"include_comments": False, "deduplicate": False}]


def test_trafilatura_keeps_the_article_and_drops_the_rest() -> None:
    pytest.importorskip("trafilatura", reason="the extra 'web' is not installed")
    text = page_text(answer((WEB / "lighthouse.html").read_bytes()), load_extractor())
    assert "designed by Mira Tolland in 1871" in text and "caf\u00e9" in text
    assert "tracker" not in text and "Contact" not in text


def server(site: Site, tmp_path: Path, body: bytes | None = None) -> Any:
    body = (WEB / "retrieve.json").read_bytes() if body is None else body
    url = site.put("/retrieve", Reply(body, headers=JSON))
    return open_retriever("http", url=url, cassette=str(tmp_path / "c.sqlite"), limits=QUICK)


def test_a_passage_server_is_asked_by_its_protocol(site: Site, tmp_path: Path) -> None:
    passages = server(site, tmp_path)
    hits = passages.search("brindle", 2)
    asked = {"queries": ["brindle"], "topk": 2, "return_scores": True}
    assert (site.seen[0].method, json.loads(site.seen[0].body)) == ("POST", asked)
    assert [hit.title for hit in hits] == ["Brindle Lighthouse", "Aldania"]
    assert passages.open(hits[1]) == "The flag of Aldania is green."


@pytest.mark.parametrize(
    ("document", "hit"),
    [
        ({"document": {"title": " A ", "text": " b "}, "score": 1}, Hit("A", "", "b")),
        ({"contents": "A\nb\nc"}, Hit("A", "", "b\nc")),
        ("A\nb", Hit("A", "", "b")),
        ({"document": "just words"}, Hit("just words", "", "just words")),
    ],
)
def test_passages_come_in_several_forms(
    site: Site, tmp_path: Path, document: Any, hit: Hit
) -> None:
    body = json.dumps({"result": [[document]]}).encode()
    assert server(site, tmp_path, body).search("x", 3) == [hit]


def test_two_passages_of_one_title_are_two_pages(site: Site, tmp_path: Path) -> None:
    body = json.dumps({"result": [[{"contents": "A\none"}, {"contents": "A\ntwo"}]]}).encode()
    passages = server(site, tmp_path, body)
    assert [passages.open(hit) for hit in passages.search("x", 3)] == ["one", "two"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "field 'result' should be a list"),
        (b'{"result": [[], []]}', "field 'result' should be a list"),
        (b'{"result": [[{"document": {"id": 1, "body": ""}}]]}', "'text'; found id, body. Check"),
        (b'{"result": [[7]]}', "'text'; found int. Check"),
        (b"busy", "expected JSON"),
    ],
)
def test_a_server_that_speaks_otherwise_is_refused(
    site: Site, tmp_path: Path, body: bytes, says: str
) -> None:
    with pytest.raises(RetrievalFailed, match=says):
        server(site, tmp_path, body).search("x", 2)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("web", {"cassette": None}, "without a cassette"),
        ("wep", {}, "retriever='wep' .* one of http, web. Did you mean 'web'"),
        ("web", {"cassette_mode": "play"}, "'play' .* Did you mean 'replay'"),
        ("web", {}, "provider='searxng' asked for without url"),
        ("web", {"provider": "bravo"}, "'bravo' .* Did you mean 'brave'"),
        ("web", {"url": "localhost:8888"}, "it is no address of the web"),
        ("http", {}, "retriever='http' asked for without url"),
        ("http", {"url": "http://["}, "it is no address of the web"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    name: str, options: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UnknownOption, match=says):
        open_retriever(name, **({"cassette": str(tmp_path / "c.sqlite")} | options))


def test_a_replay_needs_a_file_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="there is no such file"):
        open_retriever(
            "web", provider="brave", cassette=str(tmp_path / "c"), cassette_mode="replay"
        )
