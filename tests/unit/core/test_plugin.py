import sys
import textwrap

import pytest
from pydantic import ValidationError

from trainer.advantages.base import Advantage
from trainer.losses.base import Loss
from trainer.plugin import Frozen, find, names
from trainer.rewards.base import Reward


class Tree(Frozen):
    advantage: Advantage
    reward: Reward


@pytest.fixture
def my_pkg(tmp_path, monkeypatch):
    (tmp_path / "my_pkg.py").write_text(
        textwrap.dedent(
            """
            from trainer.rewards.base import PointwiseReward

            class Mine(PointwiseReward):
                bonus: float = 0.5

                def grade(self, rollout, prompt):
                    return self.bonus

            class NotOne:
                pass
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_pkg", None)


def test_the_file_name_is_the_name():
    assert "math/boxed" in names(Reward)
    assert "base" not in names(Reward)
    assert find(Advantage, "dr_grpo").name() == "dr_grpo"
    assert find(Reward, "math/boxed").name() == "math/boxed"


def test_string_and_mapping_give_the_same_plugin():
    short = Tree.model_validate({"advantage": "grpo", "reward": "text/exact"})
    long = Tree.model_validate({"advantage": {"type": "grpo"}, "reward": {"type": "text/exact"}})
    assert short == long


def test_dump_and_load_are_equal(my_pkg):
    tree = Tree.model_validate(
        {"advantage": {"type": "grpo", "eps": 1e-4}, "reward": {"type": "my_pkg:Mine", "bonus": 2}}
    )
    dumped = tree.model_dump(mode="json")
    assert dumped["advantage"]["eps"] == 1e-4
    assert dumped["reward"] == {"type": "my_pkg:Mine", "bonus": 2.0}
    assert Tree.model_validate(dumped) == tree


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"advantage": "grp"}, "unknown Advantage 'grp'; did you mean 'grpo'"),
        ({"advantage": {"type": "grpo", "epss": 1}}, "epss"),
        ({"advantage": {"eps": 1}}, "an? Advantage needs a type, one of"),
        ({"advantage": {"type": 3}}, "must be a name, got 3"),
        ({"advantage": "grpo", "reward": "my_pkg:Min"}, "did you mean 'Mine'"),
        ({"advantage": "grpo", "reward": "my_pkg:NotOne"}, "is not a Reward"),
        ({"advantage": "grpo", "reward": "nowhere.at_all:X"}, "cannot import 'nowhere.at_all'"),
    ],
)
def test_mistakes_are_named(my_pkg, document, message):
    with pytest.raises(ValidationError, match=message):
        Tree.model_validate({"reward": "none"} | document)


def test_plugins_cannot_be_changed():
    loss = find(Loss, "ppo_clip")()
    with pytest.raises(ValidationError, match="frozen"):
        loss.clip_low = 0.1
