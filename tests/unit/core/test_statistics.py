import itertools

import pytest

from trainer.ops.statistics import bootstrap, bootstrap_of, majority, pass_at_k


def test_bootstrap_of_a_coin():
    result = bootstrap([0.0, 1.0] * 50)
    assert result["mean"] == 0.5
    assert 0.38 < result["low"] < 0.43
    assert 0.57 < result["high"] < 0.62
    assert result == bootstrap([0.0, 1.0] * 50)


def test_bootstrap_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


@pytest.mark.parametrize(
    ("n", "correct", "k"), [(5, 2, 1), (5, 2, 3), (4, 0, 2), (4, 4, 4), (6, 1, 6)]
)
def test_pass_at_k_equals_counting_every_subset(n, correct, k):
    subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_beyond_n_is_an_error():
    with pytest.raises(ValueError, match="k = 3"):
        pass_at_k(2, 1, 3)


def test_majority_takes_the_most_common_and_breaks_ties_by_order():
    assert majority(["a", "b", "b"], [0.0, 1.0, 1.0], 3) == 1.0
    assert majority(["a", "b", "b"], [0.0, 1.0, 1.0], 2) == 0.0


def test_bootstrap_of_a_statistic_that_is_no_mean():
    """The largest of the values drawn; the mean for comparison gives `bootstrap`'s own interval."""
    values = [0.0, 1.0] * 50
    largest = bootstrap_of(lambda places: max(values[i] for i in places), 100)
    assert largest == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 100}
    mean = bootstrap_of(lambda places: sum(values[i] for i in places) / len(places), 100)
    assert mean == pytest.approx(bootstrap(values, draws=300))
    assert bootstrap_of(lambda places: None, 3) is None
    rare = bootstrap_of(lambda places: 0.5 if 0 in places else None, 3)
    assert rare == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 3}
