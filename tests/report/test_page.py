"""The page as it is written: what it says, that it is whole and valid, and harms nobody."""

import base64
import hashlib
import io
import re
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

import sourcesep
from sourcesep.exceptions import OutputError, SourcesepWarning
from sourcesep.report import page, players
from sourcesep.report.page import checks, write_report
from sourcesep.report.sources import along, gallery

from ..conftest import mixture

VOID = {"meta", "img", "source", "br", "link", "input"}
TEMPLATES = Path(page.__file__).parent / "templates"


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.mistakes = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def addresses(parsed):
    names = ("src", "href", "srcset", "action", "data", "poster", "formaction", "background")
    return [attrs[name] for _, attrs in parsed.tags for name in names if name in attrs]


class TestWhatItSays:
    def test_verdict_and_evidence(self, any_kind):
        words = Page(any_kind.page).words
        assert f"Verdict: {any_kind.result['verdict']}" in words
        assert any_kind.result["sentence"][1:] in words
        for check in checks(any_kind.result["evidence"], any_kind.result["bounds"]):
            assert check.question in words
            assert f"{check.value} wanted {check.bound}" in words

    def test_every_source(self, any_kind):
        parsed = Page(any_kind.page)
        ids = {attrs.get("id") for attrs in parsed.all("article")}
        assert {f"c{k}" for k in range(any_kind.result["n_components"])} <= ids
        for share in any_kind.result["explained_power"]:
            assert f"{100 * share:.1f} % of the power" in parsed.words

    def test_how_it_was_chosen_and_made(self, any_kind):
        result, words = any_kind.result, Page(any_kind.page).words
        assert result["reason"][1:] in words
        scores = [s for choice in result["candidates"].values() for s in choice.values()]
        facts = [*scores, result["elbo"]["reconstruction"], result["elbo"]["kl"]]
        shown = words.replace("\N{MINUS SIGN}", "-")
        for score, decimals in zip(facts, [4] * len(scores) + [3, 3], strict=True):
            assert f"{score:.{decimals}f}" in shown
        for name, value in result["settings"].items():
            assert name in words
            assert value is None or isinstance(value, list) or str(value) in words
        for name, version in result["versions"].items():
            assert f"{name} {version}" in words
        assert (result["input"]["sha256"] or "none") in words

    def test_files_are_linked(self, any_kind):
        links = {attrs["href"] for attrs in Page(any_kind.page).all("a")}
        files = set(any_kind.result["output"]["files"]) - {"report.html"}
        assert files | {"result.json"} <= links

    def test_audio_has_players_and_spectrograms_and_the_mixture(self, audio):
        parsed = Page(audio.page)
        assert [a["aria-label"] for a in parsed.all("audio")] == [
            f"Play {name}" for name in ("mixture", "source00", "source01", "residual")
        ]
        pictures = [a["alt"] for a in parsed.all("img")]
        for name in ("mixture", "source00", "source01"):
            assert any(alt.startswith(f"Spectrogram of {name}") for alt in pictures)
            assert any(
                a.get("aria-label", "").startswith(f"Power of {name} over time")
                for a in parsed.all("svg")
            )

    def test_a_residual_has_pictures_only_if_there_is_one(self):
        x = mixture()
        x -= x.mean(axis=1, keepdims=True)  # which would be left
        recording = sourcesep.Recording(x, 8000.0, ("ch0", "ch1"), ("", ""), "audio")
        for called, n_panels, said in ("ab", 0, "nothing but rounding"), ("a", 2, " dB against"):
            found = sourcesep.separate(recording, n_components=len(called), mixing="linear")
            residual = gallery(found, called).residual
            assert len(residual.panels) == n_panels
            assert said in residual.note

    def test_eeg_has_maps_courses_and_spectra(self, eeg):
        parsed = Page(eeg.page)
        pictures = [a["alt"] for a in parsed.all("img")]
        curves = [a.get("aria-label", "") for a in parsed.all("svg")]
        for k in range(4):
            name = f"IVAE{k:03d}"
            assert any(alt.startswith(f"Map of {name}") for alt in pictures)
            for what in (f"{name} over time", f"Power of {name}", f"Power spectrum of {name}"):
                assert any(curve.startswith(what) for curve in curves)

    def test_what_was_taken_out_of_an_eeg_is_said_beside_it(self, eeg, tmp_path):
        assert "taken out" not in eeg.page
        eeg.separation.save(tmp_path / "out", exclude=[1, 3], report=True)
        cards = (tmp_path / "out" / "report.html").read_text("utf-8").split("<article")[1:]
        said = [card for card in cards if "taken out of cleaned_raw.fif" in card]
        assert [card.split('id="c')[1][0] for card in said] == ["1", "3"]

    def test_rows_are_time_only_where_a_column_says_so(self, table, tmp_path):
        timed = table.separation.recording.origin.time
        way = "over time" if timed else "row by row"
        assert f"Each factor {way}, with unit variance" in Page(table.page).words
        rng = np.random.default_rng(0)
        rows = [f"{i},{a},{b}" for i, (a, b) in enumerate(rng.normal(size=(9, 2)).tolist())]
        for name, expected in (("time", "over time"), ("patient", "row by row")):
            path = tmp_path / f"{name}.csv"
            path.write_text("\n".join([f"{name},a,b", *rows]) + "\n")
            columns = ["a", "b"] if name == "patient" else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SourcesepWarning)
                assert along(sourcesep.read(path, columns=columns)) == expected

    def test_tables_have_loadings_and_the_prior_at_each_level(self, table):
        words = Page(table.page).words
        data, sources = table.separation.recording.data, table.separation.sources
        for correlation in np.corrcoef(data, sources)[:2, 2:].ravel():  # loadings are these
            assert f"{correlation:+.2f}".replace("-", "\N{MINUS SIGN}") in words
        for row in table.separation.ivae.prior_table():
            sd = np.sqrt(row["variance"])
            assert row["label"] in words
            assert f"± {sd:.2f}" in words

    def test_a_distortion_undone_is_said(self, audio, tmp_path):
        output = audio.result["output"] | {
            "adds_up_to": "the mixture before the distortion that was undone"
        }
        write_report(audio.separation, audio.result | {"output": output}, tmp_path)
        assert "before a distortion that was undone" in (tmp_path / "report.html").read_text()
        assert "before a distortion that was undone" not in audio.page

    def test_who_is_heard_is_said_beside_each_source(self, tmp_path):
        rng = np.random.default_rng(0)
        who = np.repeat(["<em>anna", "ben", "<em>anna & ben"], 8000)
        tone = np.sin(0.3 * np.arange(24000)) * (who != "ben")
        noise = rng.standard_normal(24000) * (who != "<em>anna")
        found = sourcesep.separate(
            ((tone + noise)[None], 8000.0), mixing="underdetermined", aux=who
        )
        names = found.result()["heard"]["sources"]
        assert sorted(names) == ["<em>anna", "ben"]
        found.save(tmp_path / "out", report=True)
        parsed = Page((tmp_path / "out/report.html").read_text("utf-8"))
        assert f"{names[0]} ·" in parsed.words
        assert f"{names[1]} ·" in parsed.words
        assert not parsed.all("em")

    def test_the_order_of_the_checks_is_the_evidence(self):
        evidence = {
            "richness": [4.0, 1.0, None],
            "agreement": [0.99, 0.95, 0.949],
            "misfit": {"delay": 9.1, "power": 0.0, "energy": 9.5, "correlation": 0.123},
        }
        bounds = {
            "richness": 3.0,
            "agreement": 0.95,
            "misfit": {"delay": 9.0, "power": 9.0, "energy": None, "correlation": None},
        }
        rich, agree, delay, power, energy = checks(evidence, bounds)
        assert (rich.value, rich.passed, rich.count) == ("1.0", False, "1 of 3 pass")
        assert (agree.value, agree.passed, agree.count) == ("0.949", False, "2 of 3 pass")
        assert (delay.value, delay.passed) == ("9.1", False)
        assert (power.value, power.passed) == ("not measured", None)
        assert (energy.value, energy.passed, energy.bound) == ("9.5", None, "no bound")
        large = {"delay": 20.25, "power": 9.0, "energy": 9.0, "correlation": 0.05}
        memory = bounds | {"agreement": 0.9, "misfit": large | {"coherence": 0.05}}
        evidence["misfit"]["coherence"] = 0.05
        _, agree, delay, _, energy, correlation, coherence = checks(evidence, memory)
        assert (agree.passed, agree.bound) == (True, "≥ 0.9")
        assert (delay.passed, delay.bound) == (True, "≤ 20.2")
        assert energy.passed is False
        assert (correlation.value, correlation.passed) == ("0.123", False)
        assert (coherence.value, coherence.passed) == ("0.050", True)
        nothing = checks(evidence | {"agreement": [None, None, None]}, bounds)[1]
        assert (nothing.value, nothing.passed) == ("not measured", None)

    def test_what_is_trusted_passes_every_check(self, any_kind):
        found = checks(any_kind.result["evidence"], any_kind.result["bounds"])
        passed = all(check.passed in (True, None) for check in found)
        assert passed == (any_kind.result["verdict"] == "trusted")

    def test_eeg_without_places_has_loadings_instead(self, tmp_path):
        x = 1e-5 * mixture(n_times=2000, seed=3)
        recording = sourcesep.Recording(x, 100.0, ("A", "B"), ("V", "V"), "eeg")
        sourcesep.separate(recording).save(tmp_path / "out", report=True)
        parsed = Page((tmp_path / "out" / "report.html").read_text("utf-8"))
        assert "moves each channel" in parsed.words
        assert not [a for a in parsed.all("img") if a["alt"].startswith("Map")]

    def test_the_command_line_writes_it(self, tmp_path):
        from click.testing import CliRunner

        from sourcesep.cli import main

        path = tmp_path / "duo.wav"
        soundfile.write(path, mixture(n_times=2000, seed=3).T, 8000)
        words = ["separate", str(path), "-o", str(tmp_path / "out"), "--report", "-q"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        assert "<h1><bdi>duo.wav</bdi></h1>" in (
            tmp_path / "out" / "duo" / "report.html"
        ).read_text("utf-8")

    def test_resuming_with_a_report_makes_the_one_that_is_missing(self, tmp_path):
        from click.testing import CliRunner

        from sourcesep.cli import main

        path, folder = tmp_path / "duo.wav", tmp_path / "out"
        soundfile.write(path, mixture(n_times=2000, seed=3).T, 8000)
        words = ["separate", str(path), "-o", str(folder), "-q", "-f", "--resume"]
        for options, shown in (([], False), (["--report"], True), (["--report"], True)):
            assert CliRunner().invoke(main, [*words, *options]).exit_code == 0
            assert (folder / "duo" / "report.html").exists() == shown


class TestHarm:
    def test_nothing_is_loaded_from_elsewhere(self, any_kind):
        parsed = Page(any_kind.page)
        ids = {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
        for address in addresses(parsed):
            if address.startswith("#"):
                assert address[1:] in ids
            elif not address.startswith("data:"):
                assert (any_kind.folder / address).is_file()
                assert "/" not in address
        assert not re.search(r"url\(|@import|https?:", (TEMPLATES / "style.css").read_text())
        assert "http" not in re.sub(r"data:[^\"]*", "", any_kind.page).replace("http-equiv", "")

    def test_names_are_text(self, any_kind):
        parsed = Page(any_kind.page)
        assert len(parsed.all("script")) == 1
        assert not [a for a in parsed.all("img") if a.get("src") == "x"]
        assert not [name for _, a in parsed.tags for name in a if name.startswith("on")]

    def test_names_are_there_letter_by_letter(self, audio, eeg, table):
        from .conftest import IMAGE, QUOTED, SCRIPT

        assert '<b> & "duo".wav' in Page(audio.page).words
        for saved in (eeg, table):
            for name in (SCRIPT, QUOTED, IMAGE):
                assert name in Page(saved.page).words

    def test_a_policy_lets_only_our_script_run(self, any_kind):
        script = re.search(r"<script>(.*?)</script>", any_kind.page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = Page(any_kind.page).all("meta")[1]["content"]
        assert f"script-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy


class TestStructure:
    def test_tags_are_closed(self, any_kind):
        parsed = Page(any_kind.page)
        assert parsed.mistakes == []
        assert parsed.open == []

    def test_headings_step_down_one_by_one(self, any_kind):
        levels = [int(t[1]) for t, _ in Page(any_kind.page).tags if re.fullmatch(r"h\d", t)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert max(np.diff(levels)) <= 1

    def test_landmarks_names_and_alternatives(self, any_kind):
        parsed = Page(any_kind.page)
        ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        assert parsed.all("html")[0]["lang"] == "en"
        for landmark in ("main", "nav", "header", "footer"):
            assert parsed.all(landmark)
        for _, attrs in parsed.tags:
            if "aria-labelledby" in attrs:
                assert attrs["aria-labelledby"] in ids
            if attrs.get("role") in ("img", "region"):
                assert attrs["aria-label"]
        assert all("alt" in attrs for attrs in parsed.all("img"))
        assert all(attrs.get("scope") in ("row", "col") for attrs in parsed.all("th"))

    def test_the_rules_can_fail(self):
        parsed = Page("<p><b>x</p></b><a href='http://a'>")
        assert parsed.mistakes
        assert addresses(parsed) == ["http://a"]


def channels(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def luminance(rgb):
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    """WCAG 2.2's ratio."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_is_legible_in_both_schemes(scheme):
    style = (TEMPLATES / "style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = {k: channels(v) for k, v in re.findall(r"--([\w-]+): (#\w{6})", block)}
    pairs = [(ink, on) for ink in ("ink", "muted", "accent") for on in ("paper", "card")]
    pairs += [(tone, "paper") for tone in ("good", "bad", "muted")]
    pairs += [(tone, f"{tone}-soft") for tone in ("good", "fair", "bad")]
    pairs += [
        (ink, f"{tone}-soft") for ink in ("ink", "muted") for tone in ("good", "fair", "bad")
    ]
    for ink, on in pairs:
        assert contrast(colours[ink], colours[on]) >= 4.5, (ink, on)
    weight = float(re.search(r"var\(--weight\) \* ([.\d]+)", style)[1])
    for sign in ("plus", "minus"):
        rgb = np.array(re.search(rf"--{sign}: (\d+) (\d+) (\d+)", block).groups(), float) / 255
        cell = weight * rgb + (1 - weight) * colours["paper"]
        assert contrast(colours["ink"], cell) >= 4.5, sign


class TestSaving:
    def test_it_is_among_the_files(self, any_kind):
        assert any_kind.result["output"]["files"][-1] == "report.html"
        assert {p.name for p in any_kind.folder.iterdir()} == {
            *any_kind.result["output"]["files"],
            "result.json",
        }

    def test_it_is_written_only_if_asked(self, audio, tmp_path):
        result = audio.separation.save(tmp_path / "out")
        assert "report.html" not in result["output"]["files"]
        assert not (tmp_path / "out" / "report.html").exists()

    def test_same_separation_same_bytes(self, any_kind, tmp_path):
        any_kind.separation.save(tmp_path / "out", report=True)
        assert (tmp_path / "out" / "report.html").read_text("utf-8") == any_kind.page

    @pytest.mark.parametrize("error", [RuntimeError("broken"), OSError(28, "no space left")])
    def test_a_report_that_fails_leaves_what_was_there(self, audio, tmp_path, monkeypatch, error):
        def fails(*_):
            raise error

        folder = tmp_path / "out"
        audio.separation.save(folder)
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        monkeypatch.setattr(page, "write_report", fails)
        kind = OutputError if isinstance(error, OSError) else RuntimeError
        with pytest.raises(kind):
            audio.separation.save(folder, report=True, overwrite=True)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_an_array_and_one_source_have_a_report(self, tmp_path):
        separation = sourcesep.separate((mixture(n_times=2000, seed=3), 50.0), n_components=1)
        separation.save(tmp_path / "out", report=True)
        words = Page((tmp_path / "out" / "report.html").read_text("utf-8")).words
        assert "1 source from 2 channels" in words
        assert "not identifiable" in words
        assert "not measured" in words

    def test_a_given_model_shows_this_recordings_prior(self, audio, tmp_path):
        from sourcesep.report.prior import time_prior

        x = mixture(n_times=4000)
        again = sourcesep.separate(
            sourcesep.Recording(x, 8000.0, ("ch0", "ch1"), ("", ""), "audio"),
            model=audio.separation.ivae,
        )
        shown = time_prior(again, ["a", "b"])
        assert shown.n_labels == again.u.n_labels == 25
        blocks = again.sources.reshape(2, 25, 160).std(axis=2)
        for k, (_, quantiles) in enumerate(shown.quantiles):
            np.testing.assert_allclose(quantiles[1], np.median(blocks[k]), rtol=0.15)


class TestSize:
    def test_small_things_make_a_small_page(self, table, eeg, audio):
        assert len(table.page) < 200_000
        assert len(eeg.page) < 600_000
        assert len(audio.page) < 900_000

    def test_long_sound_is_cut_and_the_page_says_so(self, audio, tmp_path, monkeypatch):
        monkeypatch.setattr(players, "PLAYED_SECONDS", 2.0)
        write_report(audio.separation, audio.result, tmp_path)
        text = (tmp_path / "report.html").read_text("utf-8")
        parsed = Page(text)
        copies = [a["src"] for a in parsed.all("source") if a["src"].startswith("data:")]
        assert len(copies) == 4
        content = [base64.b64decode(copy.partition(",")[2]) for copy in copies]
        assert sum(map(len, content)) < 2.0 * 18_000
        lengths = {soundfile.info(io.BytesIO(c)).frames for c in content}
        assert lengths == {8000 // 2}
        start = float(parsed.all("audio")[0]["data-start"])
        assert f"hold only the loudest part, from {start:.1f} to" in parsed.words
        assert "hold only the loudest part" not in Page(audio.page).words

    def test_the_page_stands_alone(self, audio, tmp_path):
        shutil.copy(audio.folder / "report.html", tmp_path)
        parsed = Page((tmp_path / "report.html").read_text("utf-8"))
        sources = parsed.all("source")
        files = [a["src"] for a in sources if not a["src"].startswith("data:")]
        assert files == ["source00.wav", "source01.wav", "residual.wav"]
        copies = [a["src"] for a in sources if a["src"].startswith("data:")]
        heard = [
            soundfile.read(io.BytesIO(base64.b64decode(c.partition(",")[2])))[0] for c in copies
        ]
        written = [soundfile.read(audio.folder / name)[0] for name in files[:2]]
        for copy, whole in zip(heard, [audio.separation.recording.data.T, *written], strict=False):
            assert copy.shape == whole.shape
            assert np.corrcoef(copy.ravel(), whole.ravel())[0, 1] > 0.9
        assert np.abs(heard[3]).max() < 2**-10
