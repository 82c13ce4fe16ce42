"""Recipe files: scalars, merging, scales, stages, overrides, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.errors import ConfigError
from trainer.ops.yaml12 import parse
from trainer.rewards.base import Reward
from trainer.yaml import dump_recipe, load_plugin, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
MINIMAL = "name: r\nsteps: 10\nmodel: tiny_text\nprompts: synthetic/arithmetic\n"


@pytest.fixture
def write(tmp_path):
    """`write(text, name="r.yaml")` returns the path of a file that starts with a whole recipe."""

    def write(text: str, name: str = "r.yaml", head: str = MINIMAL) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text)
        return path

    return write


def failure(path: Path, *overrides: str, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides=overrides, **options)
    return str(caught.value)


# -- scalars ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("2026-01-01", "2026-01-01"),
        ("$HOME", "$HOME"),
    ],
)
def test_core_scalars(text, value):
    read = parse(f"- {text}", "t")[0]
    assert read == value
    assert type(read) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
@example({"a\x85b": "\u2028"})
def test_what_is_dumped_is_read_back(value):
    import yaml

    from trainer.ops.yaml12 import Dumper

    assert parse(yaml.dump(value, Dumper=Dumper, allow_unicode=True), "t") == value


@pytest.mark.parametrize(
    "text", ["no", "1e-5", "010", "0o7", "1:30", "null", "true", ".5", "", "~"]
)
def test_a_string_that_looks_like_something_else_stays_a_string(write, text):
    path = write(f"description: '{text}'\n")
    (recipe,) = load_recipe(path)
    again = write(dump_recipe(recipe), "again.yaml", head="")
    assert load_recipe(again)[0].description == text


def test_a_duplicate_key_is_refused_with_both_places(write):
    said = failure(write("seed: 1\nlearner: {lr: 1e-3}\nseed: 2\n"))
    assert "r.yaml:7: key 'seed' is given twice, first at" in said
    assert "r.yaml:5; keep one" in said


def test_broken_yaml_names_the_line(write):
    assert "r.yaml:6: not YAML" in failure(write("learner: {lr: 1\n"))


def test_a_recipe_must_be_a_mapping(write):
    assert "a recipe is a mapping of settings, got ['a']" in failure(write("- a\n", head=""))


def test_a_missing_file_gets_the_nearest_name(write):
    path = write("")
    assert "did you mean 'r.yaml'?" in failure(path.with_name("rr.yaml"))


# -- merging ------------------------------------------------------------------------------------


def test_extends_merges_deeply_and_the_later_file_wins(write):
    write("learner: {lr: 1e-3, epochs: 2}\nseed: 1\n", "parts/base.yaml")
    write("seed: 2\nlearner: {clip_norm: 0.5}\n", "parts/other.yaml", head="")
    path = write("extends: [parts/base.yaml, parts/other.yaml]\nlearner: {epochs: 3}\n", head="")
    (recipe,) = load_recipe(path)
    assert (recipe.learner.lr, recipe.learner.epochs, recipe.learner.clip_norm) == (1e-3, 3, 0.5)
    assert recipe.seed == 2


def test_extends_in_a_circle_is_refused(write):
    write("extends: r.yaml\n", "b.yaml", head="")
    assert "goes round in a circle" in failure(write("extends: b.yaml\n", head=""))


def test_a_missing_base_names_who_asked(write):
    path = write("extends: bass.yaml\n", head="")
    write("", "base.yaml")
    said = failure(path)
    assert "did you mean 'base.yaml'?" in said
    assert "r.yaml)" in said


@pytest.mark.parametrize("over", ["rloo", "{type: rloo}"])
def test_another_type_replaces_the_plugin_whole(write, over):
    write("advantage: {type: grpo, eps: 0.5}\n", "base.yaml")
    path = write(f"extends: base.yaml\nadvantage: {over}\n", head="")
    assert load_recipe(path)[0].advantage.name() == "rloo"


@pytest.mark.parametrize("over", ["grpo", "{type: grpo, eps: 0.5}", "{eps: 0.5}"])
def test_the_same_type_merges(write, over):
    write("advantage: {type: grpo, eps: 0.5}\n", "base.yaml")
    path = write(f"extends: base.yaml\nadvantage: {over}\n", head="")
    assert load_recipe(path)[0].advantage.eps == 0.5


def test_settings_without_a_type_go_to_the_default_or_named_plugin(write):
    (recipe,) = load_recipe(write("loss: {clip_high: 0.28}\n"))
    assert (recipe.loss.name(), recipe.loss.clip_high) == ("ppo_clip", 0.28)
    write("advantage: grpo\n", "base.yaml")
    path = write("extends: base.yaml\nadvantage: {eps: 0.5}\n", "s.yaml", head="")
    assert load_recipe(path)[0].advantage.eps == 0.5


def test_the_default_type_counts_as_named_when_another_one_replaces_it(write):
    write("loss: {clip_high: 0.28}\n", "base.yaml")
    path = write("extends: base.yaml\nloss: nll\n", head="")
    assert load_recipe(path)[0].loss.name() == "nll"


def test_lists_are_replaced(write):
    write("monitors: [console, jsonl]\n", "base.yaml")
    path = write("extends: base.yaml\nmonitors: [jsonl]\n", head="")
    assert [m.name() for m in load_recipe(path)[0].monitors] == ["jsonl"]


# -- scales and stages --------------------------------------------------------------------------

SCALES = "scales:\n  tiny: {seed: 1}\n  full: {seed: 2, stages: {rl: {steps: 99}}}\n"


def test_scales(write):
    path = write("seed: 0\n" + SCALES)
    assert load_recipe(path)[0].seed == 1
    assert load_recipe(path, scale="full")[0].seed == 2
    assert load_recipe(path, overrides=["scale=full"])[0].steps == 99
    default = write("scale: full\n" + SCALES, "s.yaml")
    assert load_recipe(default)[0].seed == 2


def test_an_unknown_scale_is_refused(write):
    assert "no scale 'ful'; did you mean 'full'?" in failure(write(SCALES), scale="ful")
    assert "no `scales` section" in failure(write(""), scale="full")


def test_a_file_wins_over_the_scale_of_what_it_extends(write):
    write(SCALES, "base.yaml")
    assert load_recipe(write("extends: base.yaml\nseed: 7\n", head=""))[0].seed == 7


def test_stages_keep_their_order_and_own_settings(write):
    path = write("stages:\n  sft: {steps: 5, loss: nll}\n  rl:\n")
    first, second = load_recipe(path)
    assert [(r.stage, r.steps, r.loss.name()) for r in (first, second)] == [
        ("sft", 5, "nll"),
        ("rl", 10, "ppo_clip"),
    ]
    assert [r.stage for r in load_recipe(path, overrides=["stages=[rl]"])] == ["rl"]
    assert [r.stage for r in load_recipe(path, stage="sft")] == ["sft"]
    assert load_recipe(path, overrides=["stages.sft.steps=7"])[0].steps == 7
    assert [r.steps for r in load_recipe(path, overrides=["steps=3"])] == [3, 3]
    assert "no stage 'sff'; did you mean 'sft'?" in failure(path, stage="sff")


def test_stages_of_a_base_are_picked_and_changed(write):
    write("stages: {sft: {steps: 5}, rl: {}}\n", "base.yaml")
    picked = load_recipe(write("extends: base.yaml\nstages: [rl]\n", head=""))
    assert [r.stage for r in picked] == ["rl"]
    changed = load_recipe(write("extends: base.yaml\nstages: {sft: {seed: 4}}\n", head=""))
    assert [(r.stage, r.steps, r.seed) for r in changed] == [("sft", 5, 4), ("rl", 10, 0)]


def test_stages_must_be_names_or_a_mapping(write):
    assert "`stages` must be names" in failure(write("stages: 3\n"))


# -- overrides and mistakes ---------------------------------------------------------------------


def test_overrides_reach_into_lists_and_plugins(write):
    path = write("monitors: [console, {type: jsonl}]\n")
    (recipe,) = load_recipe(
        path, overrides=["monitors.1.rollouts_every=5", "monitors.0.every=3", "loss.clip_low=1e-1"]
    )
    assert recipe.monitors[1].rollouts_every == 5
    assert recipe.monitors[0].every == 3
    assert recipe.loss.clip_low == 0.1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss.clip_hgh=1", "loss.clip_hgh: unknown key of ppo_clip; did you mean 'clip_high'?"),
        ("loss=ppo_clp", "unknown Loss 'ppo_clp'; did you mean 'ppo_clip'?"),
        ("lr=1", "command line: lr: unknown key of recipe; did you mean 'learner.lr'?"),
        ("learner.lr=fast", "learner.lr = 'fast': should be a valid number"),
        ("steps=0", "steps = 0: should be greater than 0"),
        ("policy.lora.rnk=3", "policy.lora.rnk: unknown key of lora; did you mean 'rank'?"),
        ("monitors.2=x", "override monitors.2: monitors is no list here"),
        ("steps", "an override is key=value"),
        ("loss={", "override loss: not YAML"),
        ("model=null", "model"),
        ("rollouts.sampling.top_p=0.5", "top_p, top_k and min_p cut tokens"),
        ("extends=x", "extends: unknown key"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(write, override, said):
    assert said in failure(write(""), override)


def test_every_problem_gets_its_own_line_with_file_and_line(write):
    path = write("learner:\n  lr: fast\n  epoch: 2\nreward: {type: weighted}\n")
    said = failure(path)
    assert len(said.splitlines()) == 3
    assert f"{path}:6: learner.lr = 'fast': should be a valid number" in said
    assert f"{path}:7: learner.epoch: unknown key of learner; did you mean 'epochs'?" in said
    assert f"{path}:8: reward.terms: missing; add it" in said


def test_an_index_outside_the_list(write):
    said = failure(write("monitors: [jsonl]\n"), "monitors.4=console")
    assert "monitors is a list of 1" in said


def test_a_mistake_deep_in_a_nested_plugin(write):
    path = write(
        "reward: {type: gated, gate: text/format, reward: {type: text/exact, extrct: tag}}\n"
    )
    said = failure(path)
    assert "reward.reward.extrct: unknown key of text/exact; did you mean 'extract'?" in said


def test_load_plugin():
    assert load_plugin(Reward, "text/exact", "--reward").name() == "text/exact"
    with pytest.raises(ConfigError, match="--reward: unknown Reward 'text/exct'"):
        load_plugin(Reward, "{type: text/exct}", "--reward")


@pytest.mark.parametrize("scale", ["tiny", "full"])
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_come_back_from_their_dump(path, scale, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    has_scales = "\nscales:" in path.read_text()
    for recipe in load_recipe(path, scale=scale if has_scales else None):
        resolved = tmp_path / "resolved.yaml"
        resolved.write_text(dump_recipe(recipe))
        assert load_recipe(resolved) == [recipe]


@pytest.mark.parametrize(
    "change", ["stages={rl: {reward: {function: 'math:sin'}}}", "reward={function: 'math:sin'}"]
)
def test_keys_that_imply_a_type_replace_what_is_of_another(tmp_path, change):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\nsteps: 1\nmodel: tiny_text\nprompts: synthetic/arithmetic\n"
        "reward: {type: text/exact, extract: all}\n"
    )
    (recipe,) = load_recipe(path, overrides=[change])
    assert recipe.reward.name() == "function"
    (recipe,) = load_recipe(path, overrides=["reward.extract=tag"])
    assert (recipe.reward.name(), recipe.reward.extract) == ("text/exact", "tag")
