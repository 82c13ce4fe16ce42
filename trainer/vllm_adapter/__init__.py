"""Everything Cohort knows of vLLM's Python side; nothing outside of this folder imports vLLM.

Written for vLLM 0.30 to 0.33; what differs between them is found out by looking (for a field, for a
method), not by number. Importing it imports vLLM (seconds): do it late.
"""

from __future__ import annotations

from trainer.errors import MissingService

try:
    import vllm
except ImportError as error:
    raise MissingService(
        f"the vllm engines need vLLM 0.30 to 0.33, and importing it failed ({error}): "
        "pip install 'cohort-rl[vllm]' on a machine with a GPU, scripts/setup.sh vllm on a CPU"
    ) from error

_SUPPORTED = ((0, 30), (0, 34))


def check_version() -> None:
    """Raises MissingService for a vLLM this module was not written for."""
    found = tuple(int(part) for part in vllm.__version__.split(".")[:2])
    if not _SUPPORTED[0] <= found < _SUPPORTED[1]:
        raise MissingService(
            f"vLLM {vllm.__version__} is installed, this version of Cohort works with 0.30 to "
            "0.33: pip install 'vllm>=0.30,<0.34'"
        )
