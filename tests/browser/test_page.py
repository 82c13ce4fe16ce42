"""The page of a run in a real browser: what a person clicks, types and reads."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from trainer.monitors.base import read_rows
from trainer.page.build import write_page

GROUPS, MEMBERS = 256, 8


@pytest.fixture
def page(browser, invented):
    """The browser at the rollouts of an invented run, and that run's rows."""
    path = invented(GROUPS * MEMBERS)
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(1440, 900)
    browser.open(f"{path.as_uri()}#view=rollouts")
    browser.until("document.querySelectorAll('.answer').length == 8")
    yield browser, list(read_rows(path.with_name("rollouts.jsonl")))
    assert browser.errors == []
    outside = [r for r in browser.requests if not r.startswith(("file:", "data:", "about:"))]
    assert outside == []


def numbers(browser, selector: str) -> list[float]:
    texts = browser.run(f"[...document.querySelectorAll('{selector}')].map(e => e.innerText)")
    return [float(text.replace("\u2212", "-").replace(",", "")) for text in texts]


def shown(browser, groups: int) -> None:
    browser.until(f"cohort.filters.shown.length == {groups}")


def test_a_group_reads_as_it_was_logged(page):
    browser, rows = page
    browser.click(".row", 3)
    browser.until("document.querySelector('.head h1').innerText.includes('Group 3')")
    members = [row for row in rows if row["step"] == 1 and row["group"] == 3]
    known = [row for row in members if row["reward"] is not None]
    assert numbers(browser, ".answer .reward") == pytest.approx(
        [row["reward"] for row in known], abs=6e-4
    )
    for m, row in enumerate(members):
        card = f".answer[data-member='{m}']"
        text = browser.run(f'document.querySelector("{card} .reply").textContent')
        assert text.removesuffix("end") == row["reply"]
        parts = browser.run(
            f'[...document.querySelectorAll("{card} .parts dt, {card} .parts .value")]'
            ".map(e => e.innerText)"
        )
        assert parts[::2] == sorted(row["parts"], key=list(row["parts"]).index)
        assert [float(v) for v in parts[1::2]] == pytest.approx(
            list(row["parts"].values()), abs=6e-4
        )
    assert str(members[0]["answer"]).replace(" ", "") == browser.text(".prose.gold")


def test_boxes_lie_where_they_were_drawn_and_named(page):
    browser, rows = page
    members = [row for row in rows if row["step"] == 1 and row["group"] == 0]
    gold = browser.run(
        "['x', 'y', 'width', 'height'].map(a => +document.querySelector('svg .gold .over')"
        ".getAttribute(a))"
    )
    x1, y1, x2, y2 = (v * 6 for v in members[0]["answer"])  # 14 units of 6 pixels
    assert gold == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.02)
    told = browser.run("document.querySelectorAll('svg .told').length")
    assert told == sum("<answer>" in row["reply"] for row in members)
    # the picture is there, and the gold box lies on the shape: its middle is not the background
    pixel = browser.run(
        "(() => { const i = document.querySelector('.canvas img'), c = document.createElement("
        "'canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight; const x = "
        "c.getContext('2d'); x.drawImage(i, 0, 0); return [...x.getImageData("
        f"{(x1 + x2) // 2}, {(y1 + y2) // 2 + 3}, 1, 1).data]}})()"
    )
    assert max(abs(a - b) for a, b in zip(pixel, (122, 116, 104), strict=False)) > 30
    browser.click(".answer", 1)
    assert browser.run("document.querySelectorAll('svg .told.lit.m1').length") == browser.run(
        "document.querySelectorAll('svg .told.m1').length"
    )


def test_tokens_are_coloured_by_advantage(page):
    browser, _ = page
    traces = read_rows(Path(browser.run("location.pathname")).with_name("traces.jsonl"))
    for trace in traces:
        known = {
            m: one["spans"][0]["advantage"]
            for m, one in enumerate(trace["rollouts"])
            if "advantage" in one["spans"][0]
        }
        if any(known.values()):
            break
    browser.run(f"void (location.hash = 'step={trace['step']}&group={trace['group']}')")
    browser.until(f"document.querySelector('.head h1').innerText.endsWith('{trace['group']}')")
    most = max(map(abs, known.values()))
    assert len(known) > 4
    for m, advantage in known.items():
        colour = browser.run(
            f"document.querySelector('.answer[data-member=\"{m}\"] .t').style.background"
        )
        if abs(advantage) < 0.02 * most:
            continue
        hue, alpha = colour.removeprefix("rgb(var(--").removesuffix(")").split(")/")
        assert hue == ("above" if advantage > 0 else "below")
        assert float(alpha) == pytest.approx(0.62 * abs(advantage) / most, abs=2e-3)
    where = browser.run(
        "(() => { const b = document.querySelector('.answer .t').getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2]})()"
    )
    browser.mouse("mouseMoved", *where)
    said = browser.until("!document.getElementById('tip').hidden && tip.innerText")
    assert "advantage" in said
    assert "log-prob" in said
    assert f"{known[0]:.4f}".lstrip("-") in said
    browser.click("[data-mode=logprob]")
    assert "--along" in browser.run(
        "[...document.querySelectorAll('.answer .t')].map(e => e.style.background).join()"
    )
    browser.click("[data-mode='']")
    assert browser.run("document.querySelectorAll('.answer .t').length") == 0


def test_filters_and_search_find_what_the_rows_hold(page):
    browser, rows = page

    def groups(wanted) -> int:
        return len({(row["step"], row["group"]) for row in rows if wanted(row)})

    def fill(name: str, value: str) -> None:
        browser.run(
            f"(() => {{ const e = document.getElementById('{name}'); e.value = '{value}';"
            "e.dispatchEvent(new Event('input', {bubbles: true})) })()"
        )

    fill("low", "0.9")
    shown(browser, groups(lambda r: r["reward"] is not None and r["reward"] >= 0.9))
    fill("from", "5")
    shown(
        browser,
        groups(lambda r: r["step"] >= 5 and r["reward"] is not None and r["reward"] >= 0.9),
    )
    browser.click("#clear")
    shown(browser, GROUPS)
    fill("status", "fault")
    faults = groups(lambda r: r["scored"] == "raised")
    shown(browser, faults)
    fill("status", "status:truncated")
    shown(browser, groups(lambda r: r["status"] == "truncated"))
    browser.key("Escape")
    shown(browser, GROUPS)
    word = rows[70]["reply"].split()[3]
    browser.key("/")
    browser.type(word)
    shown(browser, groups(lambda r: word in r["reply"]))
    assert f"{sum(word in row['reply'] for row in rows)} answer" in browser.text("#found")
    # what was found is marked: also where it lies in several tokens
    marks = browser.until(
        "CSS.highlights.get('hit')?.size && [...CSS.highlights.get('hit')].map(r => r.toString())"
    )
    assert set(marks) == {word}
    browser.type("no such thing")
    shown(browser, 0)
    assert "Nothing matches" in browser.text("#list")


def test_keys_and_links(page):
    browser, _ = page
    path = browser.run("location.href.split('#')[0]")
    browser.open(f"{path}#step=12&group=180&member=3")
    browser.until("!!document.querySelector('.answer.focused')")
    assert "Step 12" in browser.text(".head h1").replace("\n", " ")
    assert "180" in browser.text(".head h1")
    assert browser.run("document.querySelector('.answer.focused').dataset.member") == "3"
    assert browser.run("document.querySelector('.row[aria-selected=true]').dataset.group") == "180"
    browser.key("j")
    browser.until("location.hash.includes('group=181')")
    browser.key("k")
    browser.until("location.hash.includes('group=180')")
    browser.key("ArrowRight")
    browser.key("ArrowRight")
    browser.until("location.hash.includes('member=1')")
    browser.key("m")
    browser.until("location.hash.includes('colour=logprob')")
    browser.key("1")
    assert browser.run("!document.getElementById('overview').hidden")
    curve = "document.querySelector('#overview .chart .line')?.getAttribute('d')"
    assert browser.until(curve).count("L") == 15
    browser.click("#overview .chart svg")
    browser.until("!document.getElementById('rollouts').hidden")
    assert browser.run("cohort.store.groups.step[cohort.list.chosen]") in (8, 9)


def test_a_narrow_dark_window_has_no_sideways_scroll(page):
    browser, _ = page
    browser.resize(420, 820, dark=True)
    for view in ("overview", "rollouts"):
        browser.click(f"[data-view={view}]")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, ground[4:-1].split(","))) < 150


def test_a_run_without_rollouts_shows_its_curves(browser, invented, tmp_path):
    source = invented(GROUPS * MEMBERS).parent
    for name in ("config.resolved.yaml", "metrics.jsonl"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    browser.errors.clear()
    browser.open(f"{write_page(tmp_path).as_uri()}#view=rollouts")
    assert "No rollouts" in browser.until("document.querySelector('#detail').innerText")
    browser.key("1")
    assert browser.until("document.querySelectorAll('#overview .line').length") > 3
    assert browser.errors == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_thousand_rollouts(browser, invented):
    path = invented(50_000)
    browser.errors.clear()
    browser.resize(1440, 900)
    began = time.perf_counter()
    browser.open(f"{path.as_uri()}#view=rollouts")
    browser.until("document.querySelectorAll('.answer').length == 8")
    opened = time.perf_counter() - began
    assert browser.run("cohort.store.total") == 49_920
    # however far one scrolls, only what can be seen is in the document
    for share in (0.25, 0.5, 1.0):
        browser.run(f"(e => {{ e.scrollTop = e.scrollHeight * {share} }})(list)")
        middle = round(share * 6240) - 3
        browser.until(
            "[...document.querySelectorAll('.row')].some(r => "
            f"Math.abs(r.dataset.group - {middle}) < 20)"
        )
        assert browser.run("document.querySelectorAll('.row').length") < 60
    began = time.perf_counter()
    group = browser.run("+document.elementFromPoint(200, 600).closest('.row').dataset.group")
    browser.click(f".row[data-group='{group}']")
    browser.until(f"cohort.detail.group == {group}")
    clicked = time.perf_counter() - began
    began = time.perf_counter()
    browser.key("/")
    browser.type("banbar")
    browser.until(
        "cohort.filters.hits && !document.getElementById('found').innerText.includes('%')"
    )
    searched = time.perf_counter() - began
    assert browser.run("cohort.filters.answers") > 0
    print(f"\nopen {opened:.2f} s, another group {clicked:.2f} s, search {searched:.2f} s")
    assert opened < 15
    assert clicked < 3
    assert searched < 60
    assert browser.errors == []
