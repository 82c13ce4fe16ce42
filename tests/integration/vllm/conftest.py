"""One vLLM server for the whole session and one in-process vLLM, each with a policy to follow.

Every test begins with the same weights: log-probs grow with the weights, and so do the last digits
in which two correct computations differ.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from PIL import Image, ImageDraw

from trainer.context import Context
from trainer.engines.base import Engine
from trainer.engines.vllm import Vllm
from trainer.engines.vllm_server import VllmServer
from trainer.models.base import Model
from trainer.models.pretrained import Pretrained
from trainer.models.tiny_vision import TinyVision
from trainer.policies.base import Lora, Policy
from trainer.policies.causal_lm import CausalLM
from trainer.policies.vision_lm import VisionLM
from trainer.weights.base import Publisher, probe_rows
from trainer.weights.in_process import InProcess
from trainer.weights.vllm_transfer import VllmTransfer

MODEL = Path(__file__).parents[3] / "configs/model/tiny_text"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = importlib.util.find_spec("vllm") is None
    skip = pytest.mark.skip(reason="vLLM is not installed (builds for Linux only): make setup-vllm")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))  # a busy machine starts servers slowly
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if missing:
                item.add_marker(skip)


@dataclass
class Pair:
    """A policy, and an engine that follows it."""

    context: Context
    policy: Policy
    engine: Any
    probe: list[tuple[list[int], dict[str, Any]]]
    version: int = 0
    publisher: Publisher = field(default_factory=InProcess)
    changes: int = 0
    start: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.start = {n: w.clone() for n, w in self.policy.backbone.state_dict().items()}

    def reset(self) -> Pair:
        """The policy as it was at the very start."""
        self.policy.backbone.load_state_dict(self.start)
        self.changes = 0
        return self

    async def publish(self) -> float:
        """Syncs the policy as the next version; returns the gap on the probe."""
        self.version += 1
        report = await self.publisher.publish(self.policy, self.engine, self.version, self.probe)
        return report["sync/probe_gap"]

    def change(self, size: float = 0.05) -> None:
        """Moves every weight that the policy trains."""
        self.changes += 1
        random = torch.Generator().manual_seed(self.changes)
        with torch.no_grad():
            for parameter in filter(lambda p: p.requires_grad, self.policy.backbone.parameters()):
                parameter.add_(size * torch.randn(parameter.shape, generator=random))

    @property
    def prompt(self) -> list[int]:
        return self.context.renderer.render([{"role": "user", "content": "1+2+3="}]).tokens


def image_question() -> list[dict[str, Any]]:
    """The content of a message."""
    image = Image.new("RGB", (84, 112), (122, 116, 104))
    ImageDraw.Draw(image).rectangle((10, 20, 40, 60), fill=(220, 40, 40))
    return [{"type": "image", "image": image}, {"type": "text", "text": "where is the circle ?"}]


@asynccontextmanager
async def pair_of(
    engine: Engine,
    folder: Path,
    *,
    model: Model | None = None,
    policy: Policy | None = None,
    content: Any = "4+5+6=",
) -> AsyncIterator[Pair]:
    model = model or Pretrained(path=str(MODEL))
    renderer = model.renderer()
    context = Context(folder, 0, 10, "cpu", 0, 1, model, renderer)
    policy = policy or CausalLM()
    async with policy.open(context), engine.open(context):
        rendered = renderer.render([{"role": "user", "content": content}])
        probe = probe_rows(rendered, policy.vocabulary, renderer.banned_ids)
        yield Pair(context, policy, engine, probe)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """One server of our own."""
    engine = VllmServer(workers=1, max_model_len=256, health_every=1)
    async with pair_of(engine, tmp_path_factory.mktemp("served")) as pair:
        yield pair


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def one_local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """vLLM in this process."""
    async with pair_of(Vllm(max_model_len=256), tmp_path_factory.mktemp("local")) as pair:
        yield pair


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def one_seeing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """A server of a tiny Qwen2.5-VL, which takes adapters too; torchvision is not needed."""
    folder = tmp_path_factory.mktemp("seeing")
    engine = VllmServer(workers=1, max_model_len=256, max_lora_rank=4)
    async with pair_of(
        engine, folder, model=TinyVision(), policy=VisionLM(), content=image_question()
    ) as pair:
        yield pair


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["vllm", "vllm_server"])
async def one_adapted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    """Trains an adapter, which travels alone."""
    settings = {"max_model_len": 256, "max_lora_rank": 4}
    engine = Vllm(**settings) if request.param == "vllm" else VllmServer(workers=1, **settings)
    folder = tmp_path_factory.mktemp("adapted")
    async with pair_of(engine, folder, policy=CausalLM(lora=Lora(rank=4, alpha=8))) as pair:
        pair.publisher = VllmTransfer()
        yield pair


@pytest.fixture
def adapted(one_adapted: Pair) -> Pair:
    return one_adapted.reset()


@pytest.fixture
def served(one_server: Pair) -> Pair:
    return one_server.reset()


@pytest.fixture
def local(one_local: Pair) -> Pair:
    return one_local.reset()


@pytest.fixture
def seeing(one_seeing: Pair) -> Pair:
    return one_seeing.reset()


@pytest.fixture(params=["vllm", "vllm_server"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue("local" if request.param == "vllm" else "served")
