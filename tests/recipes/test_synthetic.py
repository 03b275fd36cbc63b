"""The recipes of simulated nonlinear mixtures, in their short form."""

import pytest

from sourcesep.ivae.flows.fit import EFFORT, Effort


@pytest.fixture
def short(monkeypatch, unasked_for_noise):
    """Half of the quick runs' steps are enough here (seeds 31 to 33)."""
    monkeypatch.setitem(EFFORT, "fast", Effort(2, 300))


def by_method(result):
    return {row["method"]: row for row in result["rows"]}


@pytest.mark.slow
def test_the_ivae_paper(recipe, unasked_for_noise):
    rows = by_method(recipe("ivae_synthetic").main("", quick=True))
    ours = rows["iVAE, nonlinear"]
    assert ours["MCC"] > 0.97
    assert ours["verdict"] == "1 trusted"
    # the quick run has 3 sources, the full one 5
    for control in ("u shuffled: what it fits", "u shuffled: what it gives", "plain VAE"):
        assert rows[control]["MCC"] < ours["MCC"] - 0.1, control


@pytest.mark.slow
def test_the_icebeem_paper(recipe, short):
    rows = by_method(recipe("icebeem_synthetic").main("", quick=True))
    ours = rows["iVAE, nonlinear"]["MCC"]
    assert ours > 0.97
    assert ours > max(rows["iVAE, linear"]["MCC"], rows["FastICA"]["MCC"]) + 0.05


@pytest.mark.slow
def test_hidden_markov_chains(recipe, short):
    rows = by_method(recipe("hmm_synthetic").main("", quick=True))
    told = rows["iVAE, nonlinear, told the states"]["MCC"]
    guessed = rows["iVAE, nonlinear, segments:160"]["MCC"]
    assert guessed > 0.97
    assert guessed > told - 0.01
    assert rows["states shuffled: what it fits"]["MCC"] < guessed - 0.1
