"""`cohort check`: the arithmetic against hand-made numbers, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from trainer.check import check_recipe, count, missing_needs, size_text, unready
from trainer.ops import fork_server, vllm_launch
from trainer.plan import (
    adapter_alone,
    batch_of,
    companions_of,
    critic_size,
    flops_rate,
    memory_of,
    phase_seconds,
    serving_of,
    size_of,
    sync_bytes,
)
from trainer.yaml import load_recipe

ROUTE = "reward={type: route, tasks: {sums: text/exact}}"
"""Needs the column `task`, which arithmetic does not have."""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """`recipe("learner.lr=1", ...)`."""
    path = tmp_path / "r.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "how many ?", "count": 3}\n')
    path.write_text(
        "name: r\nsteps: 10\nmodel: {type: tiny_text, hidden: 96, layers: 2}\n"
        "prompts: {type: synthetic/arithmetic, holdout: 30}\nreward: text/exact\n"
        "rollouts: {groups_per_step: 4, group_size: 3, sampling: {max_tokens: 10}}\n"
    )

    def load(*overrides):
        return load_recipe(path, overrides=overrides)[0]

    return load


def page(check) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(check)
    return out.getvalue()


def test_size_is_that_of_the_loaded_model(recipe):
    one = recipe()
    size = size_of(one)
    model = one.model.load(dtype="float32", attn_implementation="sdpa")
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.trainable == size.matmul == size.parameters  # tied: the embedding is the head
    assert (size.hidden, size.layers) == (96, 2)
    assert size.cache_per_token == 2 * 2 * 1 * 32  # keys and values, layers, KV heads, head size


def test_untied_embeddings_are_no_matrix_product(recipe):
    size = size_of(recipe("model.tied=false"))
    assert size.parameters - size.matmul == size.vocabulary * 96


@pytest.mark.parametrize("targets", ["all-linear", "[q_proj, v_proj]"])
def test_lora_counts_what_peft_adds(recipe, targets):
    import peft

    one = recipe("policy.lora.rank=3", f"policy.lora.target_modules={targets}")
    lora = one.policy.lora
    model = one.model.load(dtype="float32", attn_implementation="sdpa")
    chosen = (
        lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    )
    settings = peft.LoraConfig(r=3, target_modules=chosen, task_type="CAUSAL_LM")
    trained, total = peft.get_peft_model(model, settings).get_nb_trainable_parameters()
    size = size_of(one)
    assert size.trainable == trained
    memory = memory_of(one, size, batch_of(one, [6], 1), half=False)
    assert memory.weights == 4 * total
    assert memory.gradients == 4 * trained
    assert memory.optimiser == 8 * trained
    assert sync_bytes(size, half=True, alone=False) == 2 * size.parameters
    assert sync_bytes(size, half=False, alone=True) == 4 * trained


def test_what_a_publication_moves(recipe):
    lora, transfer = "policy.lora.rank=3", "weights=vllm_transfer"
    engine = "engine={type: vllm_server, workers: 1, max_lora_rank: 8}"
    assert adapter_alone(recipe(lora, transfer, engine))
    assert "each publication of the adapter" in page(check_recipe(recipe(lora, transfer, engine)))
    assert not adapter_alone(recipe(transfer, engine))
    assert not adapter_alone(recipe(lora, engine))
    assert not adapter_alone(recipe(lora, transfer, "engine={type: vllm_server, workers: 1}"))
    assert not adapter_alone(recipe(lora))


def test_batch_arithmetic(recipe):
    batch = batch_of(recipe(), [6, 8], world=1)
    assert (batch.groups, batch.rollouts, batch.updates) == (4, 12, 1)
    assert batch.prompt_tokens == 7
    assert batch.packed_tokens == 4 * 7 + 12 * 10  # a group's prompt once
    flat = batch_of(recipe("policy.packing=flat"), [6, 8], world=1)
    assert flat.packed_tokens == 12 * 7 + 12 * 10
    split = batch_of(
        recipe("learner.minibatches=2", "learner.epochs=3", "learner.token_budget=20"), [7], world=2
    )
    assert split.updates == 6
    assert split.micro_batches == 2  # ceil(148 / 2 processes / 2 minibatches / 20)


def test_memory_adds_up(recipe):
    one = recipe("modifiers=[{type: kl, coef: 0.1}]")
    size, batch = size_of(one), batch_of(one, [6], world=1)
    memory = memory_of(one, size, batch, half=False)
    p = size.parameters
    assert (memory.weights, memory.gradients, memory.optimiser) == (4 * p, 4 * p, 8 * p)
    assert memory.reference == memory.engine == 4 * p
    assert memory.cache == 4 * size.cache_per_token * 12 * 16
    assert memory.total == 24 * p + memory.cache + memory.activations
    assert memory_of(recipe(), size, batch, half=False).reference == 0
    lora, care = "policy.lora={rank: 2}", "accuracy: text/exact, format: text/exact"
    for model, copies in (("policy", 0), ("reference", 1)):  # a reward's copy is its own
        asks = recipe(lora, f"reward={{type: care, {care}, model: {model}}}")
        found = memory_of(asks, size_of(asks), batch, half=False).reference
        assert found == copies * 4 * size_of(asks).parameters
    saving = recipe("policy.gradient_checkpointing=true", "model.layers=8")
    size = size_of(saving)
    full = memory_of(recipe(), size, batch, half=False).activations
    assert memory_of(saving, size, batch, half=False).activations < full / 3


def test_phase_seconds(recipe):
    one = recipe("modifiers=[{type: kl, coef: 0.1}]", "learner.epochs=2")
    size, batch = size_of(one), batch_of(one, [5], world=1)
    rate = 1e6
    seconds = phase_seconds(one, size, batch, rate)
    forward = 2 * size.matmul / rate
    assert seconds["generate"] == pytest.approx(forward * (12 * 10 + 4 * 5))
    assert seconds["train"] == pytest.approx(3 * forward * batch.packed_tokens * 2)
    assert seconds["logprob"] == pytest.approx(2 * forward * batch.packed_tokens)  # reference, old


PRM = "reward={type: model/implicit_prm, outcome: text/exact}"


def test_a_model_beside_the_policy_is_counted(recipe):
    one = recipe(PRM, "reward.learner={epochs: 2}", "reward.model={type: tiny_text, hidden: 48}")
    size, batch, companions = size_of(one), batch_of(one, [6], world=1), companions_of(one)
    (prm,) = companions
    p = prm.size.parameters
    assert p == size_of(recipe("model.hidden=48")).parameters < size.parameters
    memory = memory_of(one, size, batch, False, None, companions)
    assert memory.beside == (4 + 4 + 8 + 4) * p  # weights, gradients, moments, frozen copy
    assert memory.total - memory_of(one, size, batch, False).total == memory.beside
    forward = 2 * prm.size.matmul / 1e6 * batch.packed_tokens
    seconds = phase_seconds(one, size, batch, 1e6, companions)
    assert seconds["reward"] == pytest.approx(forward * (1 + 3 * 2))  # reference, two epochs


def test_what_a_prm_costs_follows_its_settings(recipe):
    def passes(*settings):
        one = recipe(PRM, *settings)
        size, batch, companions = size_of(one), batch_of(one, [6], world=1), companions_of(one)
        unit = 2 * size.matmul / 1e6 * batch.packed_tokens
        held = memory_of(one, size, batch, False, None, companions).beside
        seconds = phase_seconds(one, size, batch, 1e6, companions)["reward"]
        return round(seconds / unit), held / (4 * size.parameters)

    assert passes() == (1 + 3, 5)
    assert passes("reward.update=before") == (1 + 3 + 1, 5)
    assert passes("reward.update=reverse", "reward.reference=policy") == (3 + 1, 4)
    assert passes("reward.update=none") == (1 + 1, 2)
    assert passes("reward.loss=implicit/dpo") == (1 + 1 + 1 + 3, 5)
    forwards, held = passes("reward.policy={type: causal_lm, lora: {rank: 1}}")
    assert forwards == 1 + 3
    assert 1 < held < 1.1
    assert recipe().reward.beside() == ()


PPO = ("advantage=gae", "critic={learner: {epochs: 3, token_budget: 64}, warmup_steps: 2}")
SHARED = ("advantage=gae", "policy.head=both", "modifiers=[{type: value}]")


def test_a_critic_is_counted(recipe):
    one, untied = recipe(*PPO), recipe(*PPO, "model.tied=false")
    size, plain = size_of(one), size_of(recipe())
    critic = critic_size(one)
    assert size == plain
    assert critic.parameters == critic.trainable == plain.parameters + 96 + 1  # tied embedding
    assert critic.matmul == plain.matmul - 96 * plain.vocabulary + 97  # no logits
    head = 96 * plain.vocabulary
    assert critic_size(untied).trainable == critic_size(untied).parameters - head  # not asked
    assert critic_size(recipe()) is None
    batch = batch_of(one, [6], world=1)
    memory = memory_of(one, size, batch, half=False)
    assert memory.critic == 16 * critic.parameters
    assert memory_of(recipe(), size, batch, half=False).critic == 0
    adapted = recipe(*PPO, "policy.lora={rank: 2}")
    small = critic_size(adapted)
    assert small.trainable == lora_parameters_of(adapted) + 97
    found = memory_of(adapted, size_of(adapted), batch, half=False).critic
    assert found == 4 * small.parameters + 16 * small.trainable


def lora_parameters_of(one) -> int:
    """Of the policy, which adapts the same layers."""
    return size_of(one).trainable


def test_a_shared_trunk_is_counted(recipe):
    shared, plain = size_of(recipe(*SHARED)), size_of(recipe())
    assert shared.parameters == shared.trainable == plain.parameters + 97
    assert shared.matmul == plain.matmul + 97


def test_seconds_of_a_critic(recipe):
    one, rate = recipe(*PPO), 1e6
    size, critic, batch = size_of(one), critic_size(one), batch_of(one, [5], world=1)
    with_it, without = (
        phase_seconds(one, size, batch, rate),
        phase_seconds(recipe(), size, batch, rate),
    )
    once = 2 * critic.matmul / rate * batch.packed_tokens
    assert with_it["logprob"] == pytest.approx(once)
    assert with_it["train"] - without["train"] == pytest.approx(3 * 3 * once)
    shared = recipe(*SHARED)
    seconds = phase_seconds(shared, size_of(shared), batch, rate)
    assert seconds["logprob"] == pytest.approx(
        2 * size_of(shared).matmul / rate * batch.packed_tokens
    )


def test_the_page_shows_the_critic(recipe):
    shown = page(check_recipe(recipe(*PPO)))
    assert "value_clip, lr 1e-05, 3 epochs x 1 minibatches, alone in the first 2 steps" in shown
    assert "weights, gradients and optimiser" in shown
    assert "the policy never learns" not in shown
    late = page(check_recipe(recipe(*PPO, "critic.warmup_steps=10")))
    assert "the policy never learns in 10" in late
    assert "shared trunk" in page(check_recipe(recipe(*SHARED)))


def test_the_rate_is_measured():
    assert 1e8 < flops_rate("cpu", half=False, seconds=0.02) < 1e14


def test_the_page(recipe):
    check = check_recipe(recipe())
    text = page(check)
    assert check.problems == []
    for expected in (
        "4 prompts x 3 answers = 12",
        "30 prompts, first and last",
        "ready to run",
        "estimate",
        "GFLOP/s",
        "answer",
        "KV cache",
        "sync",
    ):
        assert expected in text, expected


def test_a_missing_column_is_named(recipe):
    one = recipe(ROUTE)
    (said,) = missing_needs(one)
    assert "reward: route needs the column 'task'" in said
    assert "synthetic/arithmetic has: " in said
    check = check_recipe(one)
    assert said in check.problems
    assert "ready to run" not in page(check)


def test_the_reward_of_the_evaluation_is_checked_too(recipe):
    (said,) = missing_needs(recipe(f"evaluation.{ROUTE}"))
    assert said.startswith("evaluation.reward: route needs")


def test_services_of_rewards(recipe):
    (said,) = missing_needs(recipe("reward=text/similarity"))
    assert said.startswith("reward: text/similarity needs the service 'encoder'; this run has: ")
    assert said.endswith("; set scoring.encoder: {path: sentence-transformers/all-MiniLM-L6-v2}")
    assert missing_needs(recipe("reward=text/similarity", "scoring.encoder={path: x}")) == []
    drawn = "{type: vision/svg, embedding_weight: 1, lpips_weight: 1}"
    said = [line for line in missing_needs(recipe(f"reward={drawn}")) if "service" in line]
    assert ["image_encoder" in said[0], "lpips" in said[1], len(said)] == [True, True, 2]
    given = "scoring={image_encoder: {path: x}, lpips: {weights: [y.pth]}}"
    assert "service" not in "".join(missing_needs(recipe(f"reward={drawn}", given)))
    care = "{type: care, accuracy: text/exact, format: text/exact, model: reference}"
    assert missing_needs(recipe(f"reward={care}")) == []
    assert recipe(f"reward={care}").reference_scores
    assert not recipe("reward=text/exact").reference_scores


def test_the_judges_columns_are_checked(recipe):
    judge = "{type: judge/pointwise, server: {urls: ['http://x/v1'], model: m}, rubric: '%s'}"
    (said,) = missing_needs(recipe("reward=" + judge % "{answer} {reference} {meta.nothing}"))
    assert said.startswith("reward: judge/pointwise needs the column 'meta.nothing'")


def test_a_missing_model_is_a_problem_not_a_traceback(recipe):
    check = check_recipe(recipe("model={type: pretrained, path: ./nowhere}"))
    assert any("nowhere" in problem for problem in check.problems)
    assert "30 prompts" in page(check)  # what could be checked is shown


def test_missing_data_is_a_problem_too(recipe, tmp_path):
    check = check_recipe(recipe(f"prompts={{type: files, path: {tmp_path}/none.jsonl}}"))
    assert any("none.jsonl" in problem for problem in check.problems)
    assert "tiny_text" in page(check)


@pytest.mark.parametrize(
    ("number", "text"), [(950, "950"), (412_544, "412.5 k"), (7.62e9, "7.6 B")]
)
def test_count(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(10, "10.0 B"), (2048, "2.0 KiB"), (5000 * 2**30, "5,000.0 GiB")]
)
def test_size_text(number, text):
    assert size_text(number) == text


def test_a_need_of_one_of_several_columns(recipe):
    assert missing_needs(recipe("reward=vision/count")) == []
    rows = "prompts={type: files, path: rows.jsonl, column_of: {answer: null}}"
    (line,) = missing_needs(recipe(rows, "reward={type: vision/iou}"))
    assert line.startswith("reward: vision/iou needs the column 'answer' or 'meta.box'; files has:")
    assert missing_needs(recipe(rows, "reward={type: vision/count}")) == []


SERVER = "engine={type: vllm_server, workers: 2, kv_cache_gib: 0.001, max_num_seqs: 100}"


def test_vllm_servers_have_a_cache_and_a_limit(recipe):
    one = recipe(SERVER, "rollouts.max_lag=2")
    size, batch = size_of(one), batch_of(recipe(), [6, 12], world=1)
    serving = serving_of(one, size, batch, "cpu", 0)
    assert (serving.servers, serving.own_memory) == (2, True)
    assert serving.weights == 4 * size.parameters
    assert serving.cache == round(0.001 * 2**30)
    assert serving.per_rollout == 4 * size.cache_per_token * (9 / 3 + 10)  # a third of the prompt
    assert serving.cache // serving.per_rollout > 100
    assert serving.at_once == 2 * 100
    crowded = recipe(SERVER, "engine.max_num_seqs=1000")
    fit = serving.cache // serving.per_rollout
    assert serving_of(crowded, size, batch, "cpu", 0).at_once == 2 * fit
    assert serving.in_flight == 3 * 12
    memory = memory_of(one, size, batch, False, serving)
    assert memory.engine == memory.cache == 0
    whole = recipe(SERVER, "engine.enable_prefix_caching=false")
    each = serving_of(whole, size, batch, "cpu", 0).per_rollout
    assert each == 4 * size.cache_per_token * (9 + 10)
    two = batch_of(recipe(), [6], world=2)
    assert serving_of(one, size, two, "cpu", 0).servers == 4
    assert serving_of(recipe(), size, batch, "cpu", 0) is None


def test_vllm_in_process_takes_its_share_of_the_device(recipe):
    one = recipe("engine={type: vllm, gpu_memory_utilization: 0.3, dtype: bfloat16}")
    size, batch = size_of(one), batch_of(recipe(), [6], world=1)
    serving = serving_of(one, size, batch, "cuda", 10**9)
    assert not serving.own_memory
    assert serving.cache == 3 * 10**8 - 2 * size.parameters
    memory = memory_of(one, size, batch, True, serving)
    assert memory.engine + memory.cache == 3 * 10**8


def test_check_shows_the_servers_and_refuses_what_cannot_fit(recipe):
    found = check_recipe(recipe(SERVER, "engine.kv_cache_gib=1.0"))
    assert not found.problems
    shown = page(found)
    assert "200 rollouts at most" in shown
    assert "read by 2 server(s)" in shown
    (problem,) = check_recipe(recipe(SERVER, "engine.kv_cache_gib=1.0e-7")).problems
    assert "raise engine.kv_cache_gib" in problem
    (problem,) = check_recipe(recipe(SERVER, "engine.max_model_len=12")).problems
    assert "12 tokens are fewer than" in problem


@pytest.mark.parametrize(
    ("overrides", "old", "staleness"),
    [
        ([], "the ratio is 1", "none: synchronous"),
        (["rollouts.max_lag=1"], "the ratio itself corrects", "up to 1 version"),
        (["learner.minibatches=2"], "a pass before the update", "none: synchronous"),
    ],
)
def test_check_says_how_stale_rollouts_may_be(recipe, overrides, old, staleness):
    shown = page(check_recipe(recipe(*overrides)))
    assert old in shown
    assert staleness in shown


def test_a_sandbox_that_does_not_stand_is_a_problem(recipe, monkeypatch):
    tests = "reward={type: weighted, terms: {code: {reward: code/unit_tests}}}"
    monkeypatch.setattr(fork_server, "JAIL", Path("/nowhere/jail.py"))
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = unready(recipe(tests))
    assert line.startswith("reward: code/unit_tests: sandbox: no isolation for untrusted code")
    assert line in check_recipe(recipe(tests)).problems
    assert not unready(recipe())
    trusted = "reward={type: code/unit_tests, sandbox: {isolation: none}}"
    assert not unready(recipe(trusted))


def test_a_judge_without_its_server_is_a_problem(recipe, monkeypatch):
    def judged(model):
        server = f"server: {{start: {{model: {model}}}}}"
        asks = f"{{type: judge/pointwise, {server}}}"
        return recipe(
            f"reward={{type: weighted, terms: {{a: {{reward: {asks}}}}}}}",
            f"evaluation.reward={{type: model/reward_model, {server}}}",
        )

    monkeypatch.setattr(vllm_launch.importlib.util, "find_spec", lambda name: None)
    lines = unready(judged("some/judge"))
    assert [line.split(": server.start ")[0] for line in lines] == [
        "reward: judge/pointwise",
        "evaluation.reward: model/reward_model",
    ]
    assert all("not installed" in line and "make setup-vllm" in line for line in lines)
    assert set(lines) <= set(check_recipe(judged("some/judge")).problems)
    monkeypatch.setattr(vllm_launch.importlib.util, "find_spec", lambda name: name)
    assert not unready(judged("some/judge"))
    (line, _) = unready(judged("./no/such/folder"))
    assert "server.start.model: there is no folder './no/such/folder'" in line
    keyed = "server: {urls: [http://localhost:1/v1], model: m, key_env: NO_SUCH_KEY}"
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    (line,) = unready(recipe(f"reward={{type: judge/pointwise, {keyed}}}"))
    assert "the environment has no NO_SUCH_KEY" in line
