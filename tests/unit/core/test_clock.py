import time

from trainer.clock import PHASES, Clock


def test_phases_add_up_and_the_optimiser_wins():
    clock = Clock()
    start = time.perf_counter()
    clock.lap()
    with clock.beside("generate"), clock.beside("reward"):
        time.sleep(0.02)
        with clock.main("train"):
            time.sleep(0.02)
    time.sleep(0.01)
    spent = clock.lap()
    took = time.perf_counter() - start
    assert set(spent) == set(PHASES)
    assert spent["generate"] >= 0.02
    assert spent["train"] >= 0.02
    assert spent["reward"] == 0
    assert spent["idle"] >= 0.01
    assert abs(sum(spent.values()) - took) < 0.005
