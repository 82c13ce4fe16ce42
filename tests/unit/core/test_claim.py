"""The `claim:` section of a file: what it says, what it refuses, which runs it asks for."""

from __future__ import annotations

import pytest

from trainer.errors import ConfigError
from trainer.yaml import load_claim, load_recipe

HEAD = "name: r\nsteps: 10\nmodel: tiny_text\nprompts: synthetic/arithmetic\n"
CLAIM = """
claim:
  says: it learns
  common: {steps: 6, loss: {clip_high: 0.3}}
  arms:
    ours: {rollouts.filters: [zero_variance], description: '1e-3'}
    plain:
    other: {loss.clip_high: 0.2, advantage: rloo}
  measure: reward/mean
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str = CLAIM, head: str = HEAD, name: str = "r.yaml"):
        path = tmp_path / name
        path.write_text(head + text)
        return path

    return write


def test_arms_are_settings_on_top_of_the_recipe(write):
    path = write()
    claim = load_claim(path)
    assert (claim.method, claim.baselines, claim.seeds) == ("ours", ("plain", "other"), (0, 1, 2))
    arms = {arm: load_recipe(path, overrides=claim.overrides(arm))[0] for arm in claim.arms}
    assert [recipe.steps for recipe in arms.values()] == [6, 6, 6]
    assert [recipe.loss.clip_high for recipe in arms.values()] == [0.3, 0.3, 0.2]
    assert [recipe.advantage.name() for recipe in arms.values()] == ["grpo", "grpo", "rloo"]
    assert [len(recipe.rollouts.filters) for recipe in arms.values()] == [1, 0, 0]
    assert arms["ours"].description == "1e-3"


def test_short_forms(write):
    (measure,) = load_claim(write()).measure
    assert (measure.metric, measure.take, measure.holds.rule) == (
        "reward/mean",
        "final",
        "difference",
    )
    listed = CLAIM.replace("reward/mean", "[reward/mean, {metric: a, steps_to: 0.5, holds: mean}]")
    first, second = load_claim(write(listed)).measure
    assert (first.title, second.title) == ("reward/mean, final", "steps to a 0.5")
    assert second.holds.rule == "mean"
    assert (first.sign, second.sign) == (1, -1)


def test_a_recipe_with_a_claim_is_a_recipe(write):
    assert load_recipe(write())[0].steps == 10
    assert load_claim(write("", name="none.yaml")) is None


def test_a_claim_is_not_inherited(write):
    write()
    assert load_claim(write("", head="extends: r.yaml\n", name="child.yaml")) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("says", "say", "claim.say: unknown key of claim; did you mean 'says'?"),
        ("says: it learns", "says: ''", "claim.says = '': "),
        ("    plain:\n", "    plain: 3\n", "claim.arms.plain = 3: "),
        ("    ours:", "    ../ours:", "'../ours' names a folder"),
        ("measure: reward/mean", "measure: []", "measure: needs at least one"),
        ("measure: reward/mean", "measure: {metric: a, tke: best}", "did you mean 'take'?"),
        (
            "measure: reward/mean",
            "measure: {metric: a, take: last}",
            "claim.measure.take = 'last'",
        ),
        ("measure: reward/mean", "measure: {metric: a, against: [x]}", "known: plain, other"),
        ("measure: reward/mean", "measure: [a, a]", "two are called the same"),
        ("measure: reward/mean", "measure: {metric: a, decides: false}", "none decides"),
        (
            "measure: reward/mean",
            "measure: {metric: a, holds: sure}",
            "claim.measure.holds = 'sure': should be 'difference', 'apart'",
        ),
        (
            "measure: reward/mean",
            "measure: {metric: a, take: best, steps_to: 1}",
            "are two numbers; keep one",
        ),
        ("  measure", "  seeds: [1, 1]\n  measure", "holds a seed twice"),
    ],
)
def test_mistakes_name_the_place(write, before, after, said):
    path = write(CLAIM.replace(before, after))
    with pytest.raises(ConfigError, match=r"r\.yaml:\d+: ") as caught:
        load_claim(path)
    assert said in str(caught.value)


def test_one_arm_is_no_comparison(write):
    lone = "claim: {says: s, arms: {ours: }, measure: a}\n"
    with pytest.raises(ConfigError, match="at least one baseline"):
        load_claim(write(lone))


def test_a_claim_stands_at_the_top_of_a_file(write):
    path = write("scales: {tiny: {claim: {}}}\n")
    with pytest.raises(ConfigError, match="`claim` stands at the top of a file only"):
        load_recipe(path)
