"""A served process reward model, against transformers' own forward and the numbers of PURE."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, Qwen2ForTokenClassification

from trainer.advantages.min_form import MinForm
from trainer.collate import collate
from trainer.context import Context
from trainer.errors import ConfigError, MissingService
from trainer.models.pretrained import Pretrained
from trainer.models.tiny_text import TinyText
from trainer.ops.steps import Splitter
from trainer.ops.value_heads import HEAD, saved_head
from trainer.policies.causal_lm import CausalLM
from trainer.rewards.model.step_prm import StepPrm
from trainer.types import Group, Prompt, Rollout, Span, Status

SMALL = TinyText(hidden=24, layers=2, heads=2, intermediate=32)
REPLIES = ("1+2=3\n3+4=8\n<answer>8</answer>", "1+2=3\n3+4=7\n7", "x", "1+2=3\n\n\n4")
LINES = Splitter(by="line")


@pytest.fixture(scope="module")
def renderer():
    return SMALL.renderer()


@pytest.fixture
def context(make_context, renderer):
    return make_context(SMALL, renderer)


@pytest.fixture
async def prm(tmp_path, context):
    """An exported model with a head of fixed random numbers."""
    policy = CausalLM(head="value", value_at="after")
    async with policy.open(context):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in policy.bare_module.value_head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        policy.export(tmp_path / "prm")
    return Pretrained(path=str(tmp_path / "prm"))


@pytest.fixture
def answers(renderer):
    """A group of replies, one token per character, each with its end of turn."""

    def make(*replies: str, status: Status = Status.OK) -> Group:
        question = renderer.encode("1+2+4=")
        rollouts = []
        for reply in replies:
            tokens = renderer.encode(reply)
            tokens += [] if status is Status.TRUNCATED else [renderer.stop_ids[0]]
            n = len(tokens)
            asked = Span(None, "user", "data", "1+2+4=", question, [False] * 6, [0.0] * 6, [-1] * 6)
            own = Span(0, "assistant", "policy", reply, tokens, [True] * n, [0.0] * n, [0] * n)
            rollouts.append(Rollout([asked, own], status))
        return Group(Prompt("p", ({"role": "user", "content": "1+2+4="},)), rollouts)

    return make


@pytest.fixture
def score(context):
    """`await score(reward, group)`."""

    async def run(reward: StepPrm, *groups: Group):
        async with reward.open(context):
            found = await asyncio.gather(*(reward.score(group, None) for group in groups))  # type: ignore[arg-type]
        return found[0] if len(groups) == 1 else found

    return run


def plain_values(model: Pretrained, tokens: list[int]) -> torch.Tensor:
    """The value after every token, by transformers."""
    network = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    head = saved_head(lambda name: p if (p := _file(model, name)).is_file() else None)
    assert head is not None
    with torch.no_grad():
        hidden = network.model(torch.tensor([tokens])).last_hidden_state[0]
    return (hidden @ head["weight"].T + head["bias"])[:, 0]


def _file(model, name):
    from pathlib import Path

    return Path(model.path) / name


async def test_scores_are_those_of_the_plain_model_at_the_step_ends(prm, answers, score):
    group = answers(*REPLIES)
    found = await score(StepPrm(model=prm, splitter=LINES), group)
    assert [s.steps[1] for s in found] == [[5, 11, 15], [5, 11, 13], [1], [7, 9]]
    for rollout, one in zip(group.rollouts, found, strict=True):
        tokens = rollout.spans[0].tokens + rollout.spans[1].tokens
        values = plain_values(prm, tokens)[6:]
        expected = torch.zeros(len(values))
        ends = one.steps[1]
        expected[ends] = 2 * values[ends].sigmoid() - 1
        assert_close(torch.tensor(one.tokens[1]), expected, atol=1e-5, rtol=0)
        rates = [one.tokens[1][end] for end in ends]
        assert one.value == 0.0
        assert one.parts == {
            "steps": len(ends),
            "min": min(rates),
            "mean": sum(rates) / len(rates),
            "sum": sum(rates),
        }


@pytest.mark.parametrize("packing", ["flat", "padded"])
@pytest.mark.parametrize("budget", [16384, 20])
async def test_packing_and_budget_change_nothing(prm, answers, score, packing, budget):
    group = answers(*REPLIES)
    plain = StepPrm(model=prm, splitter=LINES)
    other = StepPrm(
        model=prm, splitter=LINES, policy=CausalLM(packing=packing), token_budget=budget
    )
    for a, b in zip(await score(plain, group), await score(other, group), strict=True):
        assert a.steps == b.steps
        assert a.tokens[1] == pytest.approx(b.tokens[1], abs=1e-5)


async def test_what_else_is_asked_does_not_change_a_bit(prm, answers, score):
    first, second = answers(*REPLIES), answers("3=3\n5", "7")
    alone = await score(StepPrm(model=prm, splitter=LINES), first)
    state = torch.get_rng_state()
    together = await score(StepPrm(model=prm, splitter=LINES), second, first, second)
    assert together[1] == alone
    assert together[0] == together[2]
    assert torch.equal(torch.get_rng_state(), state)


async def test_units(prm, answers, score):
    group = answers(REPLIES[0])
    rates = {}
    for unit in ("difference", "probability", "value"):
        (one,) = await score(StepPrm(model=prm, splitter=LINES, unit=unit), group)
        rates[unit] = [one.tokens[1][end] for end in one.steps[1]]
    for difference, chance, value in zip(*rates.values(), strict=True):
        assert chance == pytest.approx(1 / (1 + math.exp(-value)))
        assert difference == pytest.approx(2 * chance - 1)


async def test_an_answer_without_steps_has_no_reward_and_stays(prm, answers, score):
    found = await score(StepPrm(model=prm, splitter=LINES), answers("", " \n", "4"))
    for empty in found[:2]:
        assert (empty.value, empty.tokens, empty.steps) == (0.0, {}, {})
        assert empty.parts == {"steps": 0.0}
    assert found[2].steps == {1: [1]}
    only_empty = await score(StepPrm(model=prm, splitter=LINES), answers(""))
    assert only_empty[0].parts == {"steps": 0.0}


@pytest.mark.parametrize(
    ("reply", "dropped"), [("1=1\n2=", [3]), ("1=1\n2=2\n", [3, 7]), ("1=", [])]
)
async def test_the_unfinished_step_of_a_truncated_answer(prm, answers, score, reply, dropped):
    group = answers(reply, status=Status.TRUNCATED)
    (kept,) = await score(StepPrm(model=prm, splitter=LINES), group)
    assert kept.steps[1][-1] == len(reply) - 1
    (one,) = await score(StepPrm(model=prm, splitter=LINES, unfinished="drop"), group)
    assert one.steps.get(1, []) == dropped
    assert sum(map(bool, one.tokens.get(1, []))) == len(dropped)
    finished = answers(reply)
    (whole,) = await score(StepPrm(model=prm, splitter=LINES, unfinished="drop"), finished)
    assert whole.steps[1][-1] == len(reply)


async def test_a_truncated_answer_may_count_as_wrong(prm, answers, score):
    for reply in ("1=1\n2=", "1=1\n2=2\n"):
        reward = StepPrm(model=prm, splitter=LINES, unfinished="wrong")
        (cut,) = await score(reward, answers(reply, status=Status.TRUNCATED))
        (whole,) = await score(reward, answers(reply))
        assert cut.tokens[1][-1] == cut.parts["min"] == -1.0
        assert cut.tokens[1][3] == pytest.approx(whole.tokens[1][3], abs=1e-6)
        assert whole.parts["min"] > -1
    chance = StepPrm(model=prm, splitter=LINES, unfinished="wrong", unit="probability")
    (cut,) = await score(chance, answers("1=1\n2=", status=Status.TRUNCATED))
    assert cut.tokens[1][-1] == 0.0
    with pytest.raises(ValueError, match="unfinished: wrong has no number"):
        StepPrm(model=prm, unit="value", unfinished="wrong")


async def test_steps_of_a_tree_are_scored_once(prm, answers, score, renderer):
    """A tool answers after the first turn, and the policy goes on in two ways."""
    (chain,) = answers("1=1\n2=2").rollouts
    tool = renderer.encode("ok")
    more = renderer.encode("3=3")
    spans = [
        *chain.spans,
        Span(1, "tool", "tool", "ok", tool, [False] * 2, [0.0] * 2, [-1] * 2),
        Span(2, "assistant", "policy", "3=3", more, [True] * 3, [0.0] * 3, [0] * 3),
        Span(2, "assistant", "policy", "3=3", more, [True] * 3, [0.0] * 3, [0] * 3),
    ]
    group = Group(answers().prompt, [Rollout(spans)])
    (one,) = await score(StepPrm(model=prm, splitter=LINES), group)
    assert one.steps == {1: [3, 7], 3: [2], 4: [2]}
    assert one.parts["steps"] == 4
    tokens = [t for span in spans[:4] for t in span.tokens]
    expected = 2 * plain_values(prm, tokens)[-1].sigmoid() - 1
    assert one.tokens[3][2] == pytest.approx(expected.item(), abs=1e-5)
    assert one.tokens[4][2] == pytest.approx(expected.item(), abs=1e-5)


def test_the_transform_by_hand():
    """The worked example of PURE."""
    reward = StepPrm(model=SMALL, form="min")
    assert reward.weigh([0.8, -0.6, 0.5]) == pytest.approx(
        [6.65211e-07, -0.599989, 8.3507e-06], rel=1e-4
    )
    assert reward.weigh([0.9, 0.7]) == pytest.approx([0.107283, 0.616558], abs=1e-6)
    assert reward.weigh([0.4]) == [0.4]
    assert reward.weigh([]) == []
    assert StepPrm(model=SMALL).weigh([0.8, -0.6]) == [0.8, -0.6]
    cold = StepPrm(model=SMALL, form="min", temperature=1e-4)
    assert cold.weigh([1.0, -1.0, 0.0]) == [0.0, -1.0, 0.0]


async def test_its_scores_feed_min_form(prm, answers, score):
    """`form: min` with no baseline in the advantage gives what `advantage: min_form` makes of
    `form: sum`."""
    found = []
    for form, weighting in (("min", "sum"), ("sum", "softmin")):
        group = answers(*REPLIES)
        scores = await score(StepPrm(model=prm, splitter=LINES, form=form), group)
        for rollout, one in zip(group.rollouts, scores, strict=True):
            rollout.score = one
        found.append(MinForm(weighting=weighting)(collate([group])))
    assert found[0].any()
    assert_close(found[0], found[1], atol=1e-5, rtol=0)


async def test_it_reads_text_in_its_own_tokens(prm, answers, score, renderer):
    reward = StepPrm(model=prm, splitter=LINES, reads="text", separator="\n")
    (one,) = await score(reward, answers("1+2=3\n\n3+4=7"))
    assert one.steps == {1: [6, 12]}
    text = "1+2+4=\n1+2=3\n3+4=7\n"
    values = plain_values(prm, renderer.encode(text))
    expected = 2 * values[[12, 18]].sigmoid() - 1
    assert [one.tokens[1][end] for end in (6, 12)] == pytest.approx(expected.tolist(), abs=1e-5)


async def test_another_tokenizer_must_read_text(prm, context, renderer, monkeypatch):
    reward = StepPrm(model=prm)
    other = SMALL.renderer()
    other.tokenizer.add_tokens(["zzz"])
    monkeypatch.setattr(Pretrained, "renderer", lambda self: other)
    with pytest.raises(ConfigError, match=r"another tokenizer.*reads: text"):
        async with reward.open(context):
            pass


async def test_a_model_without_a_head_is_refused(context):
    with pytest.raises(ConfigError, match=r"tiny_text has no trained value head.*step_bce"):
        async with StepPrm(model=SMALL).open(context):
            pass


@asynccontextmanager
async def _opened(model: Pretrained, context: Context):
    policy = CausalLM(head="value", value_at="after")
    async with policy.open(replace(context, model=model)):
        yield policy


async def test_an_exported_head_loads_again(prm, context, tmp_path):
    """Bit for bit, through a second export, and out of the way of programs that read weights."""
    async with _opened(prm, context) as policy:
        head = {n: p.detach().clone() for n, p in policy.bare_module.value_head.named_parameters()}
        assert head["weight"].any()
        policy.export(tmp_path / "again")
    again = Pretrained(path=str(tmp_path / "again")).value_head()
    assert again is not None
    assert all(torch.equal(again[name], tensor) for name, tensor in head.items())
    assert [f.name for f in (tmp_path / "again").glob("*.safetensors")] == ["model.safetensors"]
    assert (tmp_path / "again" / HEAD).is_file()


async def test_a_token_classifier_of_two_labels(answers, score, tmp_path):
    """The score is p(second) - p(first), as transformers gives them."""
    config = SMALL.config()
    config.num_labels = 2
    torch.manual_seed(3)
    network = Qwen2ForTokenClassification(config).eval()
    SMALL.save_assets(tmp_path / "two")
    network.save_pretrained(tmp_path / "two")
    group = answers(REPLIES[0])
    model = Pretrained(path=str(tmp_path / "two"))
    (one,) = await score(StepPrm(model=model, splitter=LINES), group)
    tokens = [t for span in group.rollouts[0].spans for t in span.tokens]
    with torch.no_grad():
        chances = network(torch.tensor([tokens])).logits[0].softmax(-1)[6:]
    expected = (chances[:, 1] - chances[:, 0])[one.steps[1]]
    found = [one.tokens[1][end] for end in one.steps[1]]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


async def test_a_classifier_of_three_labels_is_refused(tmp_path):
    config = SMALL.config()
    config.num_labels = 3
    SMALL.save_assets(tmp_path / "three")
    Qwen2ForTokenClassification(config).save_pretrained(tmp_path / "three")
    with pytest.raises(ConfigError, match="3 labels"):
        Pretrained(path=str(tmp_path / "three")).value_head()


async def test_outside_of_a_run_it_says_what_it_needs():
    with pytest.raises(MissingService, match="only a run or an evaluation opens"):
        await StepPrm(model=SMALL).score(Group(Prompt("p", ()), []), None)  # type: ignore[arg-type]
