import threading

import pytest

from geograft.errors import UnreadableTable
from geograft.training.ahead import ahead


def test_things_come_in_order_and_end():
    assert list(ahead(iter(range(50)).__next__)) == list(range(50))


def test_the_next_thing_is_made_while_this_one_is_used():
    made = [threading.Event() for _ in range(3)]
    numbers = iter(range(3))

    def produce():
        number = next(numbers)
        made[number].set()
        return number

    things = ahead(produce)
    assert next(things) == 0
    assert made[1].wait(10)


def test_an_error_comes_when_its_turn_comes():
    numbers = iter([1, 0])

    def produce():
        number = next(numbers)
        if not number:
            raise UnreadableTable("part-00003.parquet is gone")
        return number

    things = ahead(produce)
    assert next(things) == 1
    with pytest.raises(UnreadableTable, match="part-00003"):
        next(things)
