"""Rewards of the asynchronous runs, in a module that scoring workers import in no time: a test
module would bring torch into each of them."""


def many_values(completions, completion_ids, **columns):
    """A reward with many values: a model that knows nothing has something to learn."""
    return [-abs(sum(ids) % 13 - 7) / 7 for ids in completion_ids]


def half_constant(completions, completion_ids, answer, **columns):
    """Nothing to learn from half of the prompts."""
    if sum(map(ord, str(answer[0]))) % 2:
        return [0.0] * len(completions)
    return many_values(completions, completion_ids)
