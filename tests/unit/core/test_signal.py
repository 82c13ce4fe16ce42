import pytest

from trainer.errors import NoLearningSignal
from trainer.signal import SignalWatch
from trainer.types import Score, ScoreStatus


def test_silence_raises_with_the_reasons(make_group):
    watch = SignalWatch(patience=2)
    faulty = make_group(values=(None, None))
    for rollout in faulty.rollouts:
        rollout.score = Score.fault(ScoreStatus.RAISED, "ValueError: x")
    watch.observe([make_group(values=(0.0, 0.0))], learned=False)
    with pytest.raises(NoLearningSignal) as caught:
        watch.observe([make_group(values=(1.0, 1.0)), faulty], learned=False)
    for reason in ("every reward 0 1", "every reward 1 1", "nothing scored (raised 2) 1"):
        assert reason in str(caught.value)


def test_a_step_that_learns_resets_the_count(make_group):
    watch = SignalWatch(patience=2)
    for learned in (False, True, False):
        watch.observe([make_group()], learned=learned)
    assert watch.silent == 1


def test_zero_patience_never_raises(make_group):
    watch = SignalWatch(patience=0)
    for _ in range(50):
        watch.observe([make_group()], learned=False)


def test_state_survives(make_group):
    watch = SignalWatch(patience=2)
    watch.observe([make_group(values=(0.0, 0.0))], learned=False)
    again = SignalWatch(patience=2)
    again.load_state_dict(watch.state_dict())
    with pytest.raises(NoLearningSignal, match="every reward 0 2"):
        again.observe([make_group(values=(0.0, 0.0))], learned=False)
