"""A served reward model of whole answers, against transformers' own forward."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import Qwen2ForSequenceClassification

from trainer.errors import ConfigError, MissingService
from trainer.models.pretrained import Pretrained
from trainer.models.tiny_text import TinyText
from trainer.ops.value_heads import as_classifier, save_head
from trainer.rewards.model.reward_model import RewardModel
from trainer.types import Group, Prompt, Rollout, ScoreStatus, Span, Status

SMALL = TinyText(hidden=24, layers=2, heads=2, intermediate=32)


@pytest.fixture(scope="module")
def renderer():
    return SMALL.renderer()


@pytest.fixture
def context(make_context, renderer):
    return make_context(SMALL, renderer)


@pytest.fixture
def classifier(tmp_path):
    """(transformers' model with one label, our model of the folder it is saved in)."""
    config = SMALL.config()
    config.num_labels = 1
    torch.manual_seed(5)
    network = Qwen2ForSequenceClassification(config).eval()
    SMALL.save_assets(tmp_path / "rm")
    network.save_pretrained(tmp_path / "rm")
    return network, Pretrained(path=str(tmp_path / "rm"))


def group_of(renderer, *replies: str, status: Status = Status.OK) -> Group:
    question = renderer.encode("1+2=")
    rollouts = []
    for reply in replies:
        tokens = [*renderer.encode(reply), renderer.stop_ids[0]] if reply else []
        n = len(tokens)
        asked = Span(None, "user", "data", "1+2=", question, [False] * 4, [0.0] * 4, [-1] * 4)
        own = Span(0, "assistant", "policy", reply, tokens, [True] * n, [0.0] * n, [0] * n)
        rollouts.append(Rollout([asked, own], status))
    return Group(Prompt("p", ({"role": "user", "content": "1+2="},)), rollouts)


async def test_values_are_those_of_a_sequence_classifier(classifier, context, renderer):
    network, model = classifier
    group = group_of(renderer, "3", "<answer>4</answer>", "")
    async with RewardModel(model=model).open(context):
        pass
    reward = RewardModel(model=model)
    async with reward.open(context):
        found = await reward.score(group, None)  # type: ignore[arg-type]
    for rollout, one in zip(group.rollouts[:2], found, strict=False):
        tokens = torch.tensor([[t for span in rollout.spans for t in span.tokens]])
        with torch.no_grad():  # its score is of the last token that is no padding
            expected = network(tokens).logits.item()
        assert one.value == pytest.approx(expected, abs=1e-5)
    assert found[2].value is None, "nothing was written: nothing to judge"


async def test_scale_offset_probability_and_truncation(classifier, context, renderer):
    _, model = classifier
    group = group_of(renderer, "3")
    plain, moved = RewardModel(model=model), RewardModel(model=model, scale=2.0, offset=0.5)
    chance = RewardModel(model=model, unit="probability")
    values = []
    for reward in (plain, moved, chance):
        async with reward.open(context):
            values.append((await reward.score(group, None))[0].value)  # type: ignore[arg-type]
    assert values[1] == pytest.approx(2 * (values[0] - 0.5))
    assert values[2] == pytest.approx(torch.tensor(values[0]).sigmoid().item())
    cut = RewardModel(model=model, truncated=-3.0)
    async with cut.open(context):
        (one,) = await cut.score(group_of(renderer, "3", status=Status.TRUNCATED), None)  # type: ignore[arg-type]
        assert one.value == -3.0


async def test_it_reads_text_in_its_own_template(classifier, context, renderer):
    network, model = classifier
    reward = RewardModel(model=model, reads="text")
    async with reward.open(context):
        (one, none) = await reward.score(group_of(renderer, "3", ""), None)  # type: ignore[arg-type]
    tokens = torch.tensor([[*renderer.encode("1+2=3"), renderer.stop_ids[0]]])
    with torch.no_grad():
        assert one.value == pytest.approx(network(tokens).logits.item(), abs=1e-5)
    assert none.value is not None, "an empty turn is a turn of the conversation"


@pytest.mark.parametrize("files", [1, 2])
async def test_a_head_of_ours_is_served_as_a_classifier(context, tmp_path, files):
    """The same values from transformers' classifier on the folder that vLLM is given."""
    folder = tmp_path / "rm"
    SMALL.save_assets(folder)
    network = SMALL.load(dtype="float32", attn_implementation="eager")
    network.save_pretrained(folder, max_shard_size="1GB" if files == 1 else "20KB")
    assert (folder / "model.safetensors.index.json").is_file() is (files > 1)
    torch.manual_seed(5)
    save_head({"weight": torch.randn(1, 24), "bias": torch.zeros(1)}, folder)
    group = group_of(context.renderer, "3", "<answer>4</answer>")
    reward = RewardModel(model=Pretrained(path=str(folder)))
    async with reward.open(context):
        found = await reward.score(group, None)  # type: ignore[arg-type]
    with as_classifier(str(folder)) as name:
        classifier = Qwen2ForSequenceClassification.from_pretrained(name).eval()
    for rollout, one in zip(group.rollouts, found, strict=True):
        tokens = torch.tensor([[t for span in rollout.spans for t in span.tokens]])
        with torch.no_grad():
            assert one.value == pytest.approx(classifier(tokens).logits.item(), abs=1e-5)
    assert not Path(name).exists()
    with as_classifier("Qwen/some-reward-model") as name:
        assert name == "Qwen/some-reward-model"


async def test_a_model_without_a_head_is_refused(context, tmp_path):
    SMALL.save_assets(tmp_path / "none")
    assert Path(tmp_path / "none").is_dir()
    with pytest.raises(ConfigError, match="no trained value head"):
        async with RewardModel(model=SMALL).open(context):
            pass


WAITING = SimpleNamespace(waiting=nullcontext)


def served(double, renderer, logits, vocabulary=0):
    """A reward that asks `double`, which knows `logits(body)`."""

    def says(body, nth):
        if "prompt" in body:
            tokens = renderer.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
            found = {"tokens": [token + vocabulary for token in tokens]}
        else:
            found = logits(body)
            if not isinstance(found, list):
                return found
            found = {"data": [{"index": 0, "label": "x", "probs": found}]}
        return 200, {}, json.dumps(found).encode()

    double.says = says
    return {"urls": [double.url], "model": "rm", "retries": 0}


async def test_a_server_is_asked_for_the_value_after_the_last_token(context, renderer, chat_double):
    server = served(chat_double, renderer, lambda body: [float(len(body["input"][0]))])
    group = group_of(renderer, "3", "<answer>4</answer>", "")
    async with RewardModel(server=server, scale=2.0, offset=1.0).open(context):
        pass
    reward = RewardModel(server=server, scale=2.0, offset=1.0)
    async with reward.open(context):
        found = await reward.score(group, WAITING)  # type: ignore[arg-type]
    assert [one.value for one in found] == [2 * (6 - 1), 2 * (8 - 1), None]
    body = next(b for b in chat_double.bodies if "input" in b and len(b["input"][0]) == 6)
    tokens = [t for span in group.rollouts[0].spans for t in span.tokens]
    asked = {"input": [tokens], "add_special_tokens": False, "use_activation": False}
    assert body == asked | {"model": "rm"}
    assert chat_double.paths[-1] == "/classify"


async def test_a_server_is_shown_the_conversation(context, renderer, chat_double):
    server = served(chat_double, renderer, lambda body: [1.0, 3.5])
    reward = RewardModel(server=server, reads="text")
    picture = Image.new("RGB", (4, 3))
    group = group_of(renderer, "3")
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "1+2="}]
    group.prompt = Prompt("p", ({"role": "user", "content": parts},))
    async with reward.open(context):
        (one,) = await reward.score(group, WAITING)  # type: ignore[arg-type]
    assert one.value == 2.5, "of two labels the second's logit less the first's"
    (body,) = chat_double.bodies
    assert body["messages"][1] == {"role": "assistant", "content": "3"}
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "1+2="}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((400, {}, b"too long"), "the server refuses: status 400 too long"),
        ((500, {}, b""), "did not answer: status 500"),
        ([1.0, 2.0, 3.0], "the model has 3 labels"),
        ((200, {}, b"{}"), "no classification"),
    ],
)
async def test_a_server_that_fails_is_none(context, renderer, chat_double, said, reason):
    server = served(chat_double, renderer, lambda body: said)
    reward = RewardModel(server=server)
    async with reward.open(context):
        (one,) = await reward.score(group_of(renderer, "3"), WAITING)  # type: ignore[arg-type]
    assert (one.value, one.status) == (None, ScoreStatus.RAISED)
    assert reason in one.reason


async def test_a_server_with_other_tokens_is_refused(context, renderer, chat_double):
    server = served(chat_double, renderer, lambda body: [0.0], vocabulary=1)
    with pytest.raises(ConfigError, match="another tokenizer; set reads: text"):
        async with RewardModel(server=server).open(context):
            pass


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of: model"),
        ({"model": SMALL, "server": {"urls": ["http://x"], "model": "m"}}, "give one of: model"),
        ({"server": {"urls": ["http://x"]}}, "model: missing"),
        ({"server": {}}, "give one of: urls"),
    ],
)
def test_one_source_of_values(fields, message):
    with pytest.raises(ValueError, match=message):
        RewardModel(**fields)


async def test_outside_of_a_run_it_says_what_it_needs():
    with pytest.raises(MissingService, match="only a run or an evaluation opens"):
        await RewardModel(model=SMALL).score(Group(Prompt("p", ()), []), None)  # type: ignore[arg-type]
