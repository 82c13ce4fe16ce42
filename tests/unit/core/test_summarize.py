import pytest
import torch

from trainer.summarize import Gathered, lean, summarize
from trainer.types import Score, ScoreStatus, Status


def test_numbers_of_a_step(make_group):
    first = make_group(values=(1.0, 0.0), version=3)
    second = make_group(serial=1, values=(None, 0.5), version=4)
    second.rollouts[0].status = Status.TRUNCATED
    first.rollouts[0].score.parts = {"format": 1.0}
    report = summarize(Gathered([first, second], [first], {"x": [1.0, 2.0]}), version=4)
    assert report["rollout/count"] == 4
    assert report["rollout/length_mean"] == 1.5
    assert report["rollout/length_max"] == 2
    assert report["rollout/truncated"] == 0.25
    assert report["rollout/unscored"] == 0.25
    assert report["rollout/lag_max"] == 1
    assert report["group/zero_variance"] == 0.5
    assert report["group/dropped"] == 1
    assert report["reward/mean"] == pytest.approx(0.5)
    assert report["reward/format"] == 1.0
    assert report["score/faults"] == 0
    assert report["reward/metric/x"] == 1.5


def test_lengths_of_right_and_wrong_answers(make_group):
    group = make_group(values=(1.0, 0.5, None), replies=((3, 4), (5,), (6, 7, 8)))
    report = summarize(Gathered([group]), version=0)
    assert (report["rollout/length_right"], report["rollout/length_wrong"]) == (2, 1)
    report = summarize(Gathered([group]), version=0, right=0.5)
    assert report["rollout/length_right"] == 1.5
    assert "rollout/length_wrong" not in report, "the third was not scored"


def test_faults_are_counted_by_status_also_in_dropped_groups(make_group):
    first, second = make_group(values=(None, 0.0)), make_group(serial=1, values=(None, None))
    first.rollouts[0].score = Score.fault(ScoreStatus.TIMEOUT, "slow")
    second.rollouts[0].score = Score.fault(ScoreStatus.TIMEOUT, "slow")
    second.rollouts[1].score = Score(status=ScoreStatus.NOT_APPLICABLE)
    report = summarize(Gathered([first], [second]), version=0)
    assert report["score/timeout"] == 2
    assert report["score/not_applicable"] == 1
    assert report["score/faults"] == 2


def test_nothing_scored_has_no_reward(make_group):
    report = summarize(Gathered([make_group(values=(None, None))]), version=0)
    assert "reward/mean" not in report
    assert report["rollout/unscored"] == 1


def test_lean_copies_drop_tensors_and_images(make_group):
    group = make_group()
    group.rollouts[0].spans[0].inputs = {"pixel_values": torch.zeros(1)}
    (copy,) = lean([group])
    assert copy.rollouts[0].spans[0].inputs == {}
    assert group.rollouts[0].spans[0].inputs
    assert copy.rollouts[0].score is group.rollouts[0].score


def test_processes_are_merged_by_serial(make_group):
    merged = Gathered.merged(
        [
            Gathered([make_group(serial=2)], [make_group(serial=3)], {"x": [1.0]}),
            Gathered([make_group(serial=1)], [], {"x": [2.0], "y": [3.0]}),
        ]
    )
    assert [g.prompt.serial for g in merged.groups] == [1, 2]
    assert [g.prompt.serial for g in merged.played] == [1, 2, 3]
    assert merged.metrics == {"x": [1.0, 2.0], "y": [3.0]}
