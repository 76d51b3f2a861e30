"""Spikes are found, are not found in noise, and are the same after a resume."""

import numpy as np

from repetita.journal.records import StepRecord
from repetita.train.spikes import LEAST, Spikes


def records(losses: list[float], norm: float = 1.0) -> list[StepRecord]:
    return [
        StepRecord(step, 0, 0.1, norm, {"train": [10 * loss, 0, 10]}, 0.0) for step, loss in enumerate(losses)
    ]


def noise(n: int) -> list[float]:
    return list(3 + 0.1 * np.random.Generator(np.random.Philox(7)).standard_normal(n))


def found(steps: list[StepRecord]) -> list[int]:
    spikes = Spikes()
    return [record.step for record in steps if spikes.see(record)]


def test_a_spike_stands_out_and_noise_does_not() -> None:
    losses = noise(400)
    assert found(records(losses)) == []
    losses[200] = 5.0
    assert found(records(losses)) == [200]


def test_a_gradient_norm_is_named() -> None:
    steps = records(noise(100))
    steps[90] = steps[90]._replace(gradient_norm=50.0)
    spikes = Spikes()
    messages = [message for record in steps for message in spikes.see(record)]
    assert messages == ["gradient norm 50, 6 sigmas above the last 90 steps"]


def test_the_first_steps_are_not_judged() -> None:
    assert found(records([1.0] * (LEAST - 1) + [100.0])) == []


def test_empty_steps_do_not_count() -> None:
    steps = records(noise(100))
    empty = steps[0]._replace(sets={}, gradient_norm=0.0)
    assert found([*steps, *[empty] * 200, *records([3.0])]) == []


def test_a_resumed_watch_agrees_with_one_that_never_stopped() -> None:
    losses = noise(300)
    losses[250] = 4.0
    losses[260] = 4.2
    steps = records(losses)
    resumed = Spikes()
    resumed.recall(steps[:220])
    whole = Spikes()
    for record in steps[:220]:
        whole.see(record)
    assert [resumed.see(record) for record in steps[220:]] == [whole.see(record) for record in steps[220:]]
