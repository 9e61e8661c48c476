from dataclasses import dataclass

import pytest

from library.data.plan import BucketSamples, Course, GlobalBatch, Position, batches_per_epoch, plan_epoch


@dataclass
class Data:
    buckets: list


DATA = Data(
    [
        BucketSamples(0, (64, 64), 2, tuple(range(7))),
        BucketSamples(0, (64, 128), 2, (7,)),
        BucketSamples(1, (64, 64), 3, tuple(range(8, 18))),
    ]
)


def test_a_plan_is_the_same_each_time_and_another_in_every_epoch_and_seed():
    assert plan_epoch(DATA, 1, 0, 1) == plan_epoch(DATA, 1, 0, 1)
    plans = [plan_epoch(DATA, seed, epoch, 1) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert all(a != b for i, a in enumerate(plans) for b in plans[:i])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_sample_is_in_one_batch_of_its_bucket_and_the_number_of_batches_is_constant(processes):
    bucket_of = {sample: bucket for bucket in DATA.buckets for sample in bucket.samples}
    for epoch in range(5):
        plan = plan_epoch(DATA, 3, epoch, processes)
        assert sorted(sample for batch in plan for sample in batch.samples) == list(range(18))
        for batch in plan:
            (bucket,) = {bucket_of[sample] for sample in batch.samples}
            assert batch.size == bucket.size
            assert len(batch.samples) <= bucket.batch_size * processes
        assert len(plan) == batches_per_epoch(DATA, processes)


def test_two_processes_see_the_batches_that_one_with_twice_the_batch_size_sees():
    doubled = Data([BucketSamples(b.dataset, b.size, b.batch_size * 2, b.samples) for b in DATA.buckets])
    assert plan_epoch(DATA, 1, 4, 2) == plan_epoch(doubled, 1, 4, 1)


def test_ranks_share_a_batch_in_contiguous_parts():
    batch = GlobalBatch(0, (64, 64), (5, 3, 8, 1))
    assert batch.share(0, 1) == ((5, 3, 8, 1), 4)
    assert [batch.share(rank, 2) for rank in (0, 1)] == [((5, 3), 2), ((8, 1), 2)]


@pytest.mark.parametrize(
    ("samples", "processes", "shares"),
    [
        ((5, 3, 8), 2, [((5, 3), 2), ((8, 8), 1)]),
        ((5,), 3, [((5,), 1), ((5,), 0), ((5,), 0)]),
        ((5, 3, 8, 1, 2), 4, [((5, 3), 2), ((8, 1), 2), ((2, 2), 1), ((2, 2), 0)]),
    ],
)
def test_a_short_batch_is_filled_up_with_copies_of_its_last_sample(samples, processes, shares):
    batch = GlobalBatch(0, (64, 64), samples)
    assert [batch.share(rank, processes) for rank in range(processes)] == shares


def test_a_step_never_spans_two_epochs():
    course = Course(batches_per_epoch=5, accumulation=2)
    assert course.steps_per_epoch == 3
    assert list(course.positions(0, 4)) == [
        Position(epoch=0, batch=0, step=0, window=2, closes=False),
        Position(epoch=0, batch=1, step=0, window=2, closes=True),
        Position(epoch=0, batch=2, step=1, window=2, closes=False),
        Position(epoch=0, batch=3, step=1, window=2, closes=True),
        Position(epoch=0, batch=4, step=2, window=1, closes=True),
        Position(epoch=1, batch=0, step=3, window=2, closes=False),
        Position(epoch=1, batch=1, step=3, window=2, closes=True),
    ]


@pytest.mark.parametrize("accumulation", [1, 2, 3, 7])
def test_starting_at_a_step_gives_the_rest_of_the_whole_course(accumulation):
    course = Course(batches_per_epoch=5, accumulation=accumulation)
    whole = list(course.positions(0, 9))
    for first in range(10):
        assert list(course.positions(first, 9)) == [p for p in whole if p.step >= first]
