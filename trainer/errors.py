"""Every error Cohort raises on purpose. Catch `CohortError` to catch them all.

CohortError
├── ConfigError            a recipe or an override is wrong; names file, key, value and fix
├── DataError              a row, a column, an image or a folder of the data is missing or malformed
├── RewardFaults           more samples failed to score than the budget allows
├── NoLearningSignal       k steps in a row had no advantage that differs from zero
├── NothingPasses          every group was dropped by the filters, N times in a row
├── StaleWeights           after a sync the engine does not serve the policy's weights
├── EngineError            an engine cannot serve a request, or refuses a setting
├── CheckpointError        a checkpoint cannot be written, or none that is whole can be read
└── MissingService         a plug-in needs a service or package that this run does not have
"""

from __future__ import annotations


class CohortError(Exception):
    """Base of the tree above; its message is meant for a person and says what to do."""


class ConfigError(CohortError):
    """A recipe, a fragment or a command-line override is wrong."""


class DataError(CohortError):
    """The data does not have what the recipe asks of it."""


class RewardFaults(CohortError):
    """Scoring failed for more samples than `scoring.fault_budget` allows."""


class NoLearningSignal(CohortError):
    """No gradient for `no_signal_steps` steps in a row."""


class NothingPasses(CohortError):
    """The filters dropped `filters_patience` groups in a row."""


class StaleWeights(CohortError):
    """The engine's log-probs differ from the policy's after a sync."""


class EngineError(CohortError):
    """An engine cannot do what was asked."""


class CheckpointError(CohortError):
    """A checkpoint could not be written or read."""


class MissingService(CohortError):
    """A plug-in needs something that is not installed or not configured."""
