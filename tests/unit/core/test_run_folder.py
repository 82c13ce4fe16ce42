from trainer.run_folder import differences


def test_what_changes_numbers_is_named():
    before = {"loss": {"clip_high": 0.2}, "steps": 5, "modifiers": []}
    after = {"loss": {"clip_high": 0.28}, "steps": 9, "modifiers": [{"type": "kl"}]}
    assert differences(before, after) == [
        "loss.clip_high: 0.2 -> 0.28",
        "modifiers: [] -> [{'type': 'kl'}]",
    ]


def test_nested_keys_that_are_free():
    assert differences({"learner": {"token_budget": 1}}, {"learner": {"token_budget": 2}}) == []
    assert differences({"learner": {"lr": 1}}, {"learner": {"lr": 2}}) == ["learner.lr: 1 -> 2"]


def test_keys_that_appear_or_vanish():
    assert differences({"a": 1}, {"b": 2}) == ["a: 1 -> None", "b: None -> 2"]
