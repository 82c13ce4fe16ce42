import asyncio

import pytest

from trainer.buffer import Buffer, check_lag
from trainer.errors import EngineError, NothingPasses


async def _fill(buffer, groups):
    for group in groups:
        await buffer.reserve()
        buffer.start(group.prompt)
    for group in reversed(groups):  # arrival order must not matter
        await buffer.put(group)


async def test_groups_are_taken_in_serial_order(make_group):
    buffer = Buffer(2, max_lag=1, patience=9)
    await _fill(buffer, [make_group(serial=s) for s in range(4)])
    assert [g.prompt.serial for g in await buffer.take()] == [0, 1]
    assert [g.prompt.serial for g in await buffer.take()] == [2, 3]


@pytest.mark.parametrize("lag", [0, 1, 3])
async def test_no_more_than_the_slots_can_start(lag):
    buffer = Buffer(2, max_lag=lag, patience=9)
    for _ in range(2 * (lag + 1)):
        await buffer.reserve()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(buffer.reserve(), 0.01)
    await buffer.release()
    await asyncio.wait_for(buffer.reserve(), 1)


async def test_take_waits_for_the_oldest_group(make_group):
    buffer = Buffer(1, max_lag=1, patience=9)
    slow, quick = make_group(serial=0), make_group(serial=1)
    for group in (slow, quick):
        await buffer.reserve()
        buffer.start(group.prompt)
    await buffer.put(quick)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(buffer.take(), 0.01)
    await buffer.put(slow)
    assert [g.prompt.serial for g in await buffer.take()] == [0]


async def test_at_lag_0_a_dropped_slot_waits_for_the_wave(make_group):
    buffer = Buffer(2, max_lag=0, patience=9)
    first, second, third = (make_group(serial=s) for s in range(3))
    for group in (first, second):
        await buffer.reserve()
        buffer.start(group.prompt)
    await buffer.drop(first, "zero_variance")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(buffer.reserve(), 0.01)
    await buffer.put(second)
    await asyncio.wait_for(buffer.reserve(), 1)
    buffer.start(third.prompt)
    await buffer.put(third)
    assert [g.prompt.serial for g in await buffer.take()] == [1, 2]
    assert [g.prompt.serial for g in buffer.drain_dropped()] == [0]
    assert buffer.drain_dropped() == []


async def test_dropping_for_ever_stops_with_the_histogram(make_group):
    buffer = Buffer(1, max_lag=0, patience=3)

    async def drop(serial):
        group = make_group(serial=serial)
        await buffer.reserve()
        buffer.start(group.prompt)
        await buffer.drop(group, "zero_variance")

    await drop(0)
    await drop(1)
    with pytest.raises(NothingPasses, match="zero_variance 3"):
        await drop(2)


async def test_state_keeps_ready_groups_and_prompts_in_flight(make_group):
    buffer = Buffer(1, max_lag=2, patience=9)
    groups = [make_group(serial=s) for s in range(3)]
    for group in groups:
        await buffer.reserve()
        buffer.start(group.prompt)
    await buffer.put(groups[1])
    state = buffer.state_dict()

    restored = Buffer(1, max_lag=2, patience=9)
    in_flight = restored.load_state_dict(state)
    assert [p.serial for p in in_flight] == [0, 2]
    for prompt in in_flight:
        await asyncio.wait_for(restored.reserve(), 1)
        restored.start(prompt)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(restored.reserve(), 0.01)
    await restored.put(groups[0])
    assert [g.prompt.serial for g in await restored.take()] == [0]
    assert [g.prompt.serial for g in await restored.take()] == [1]


async def test_state_keeps_dropped_groups_that_no_step_has_reported(make_group):
    buffer = Buffer(1, max_lag=1, patience=9)
    group = make_group(serial=4)
    await buffer.reserve()
    buffer.start(group.prompt)
    await buffer.drop(group, "overlong")
    restored = Buffer(1, max_lag=1, patience=9)
    assert restored.load_state_dict(buffer.state_dict()) == []
    assert [g.prompt.serial for g in restored.drain_dropped()] == [4]


def test_an_engine_that_serves_older_weights_is_found_out(make_group):
    group = make_group(serial=7, version=3)
    check_lag([group], version=5, max_lag=2)
    check_lag([make_group(version=-1)], version=5, max_lag=0)  # an engine that cannot tell
    with pytest.raises(EngineError, match=r"serial 7.*version 3; this step trains version 5"):
        check_lag([group], version=5, max_lag=1)
    group.rollouts[0].spans[1].version[:] = [5, 5]  # one stale token is enough
    with pytest.raises(EngineError, match="max_lag is 1"):
        check_lag([group], version=5, max_lag=1)
