"""A job is written by one thread and read by any: nothing is lost, nobody waits for ever, leaving is told once."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from hydra_infer.engines.job import Job
from hydra_infer.errors import HydraError, StreamBroken


def word(text: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def usage(tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}}


def test_pieces_come_in_order_and_then_the_end() -> None:
    job = Job({"prompt": "x"})
    events = [word("a"), word("b")]
    for event in events:
        job.put(event)
    job.finish()
    assert list(job) == events
    assert job.take() is None
    assert job.answer.text == "ab"


def test_a_reader_waits_for_a_writer_on_another_thread() -> None:
    job = Job({})
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(chunk["choices"][0]["delta"]["content"] for chunk in job))
    reader.start()
    for text in "abc":
        job.put(word(text))
    job.finish()
    reader.join(5)
    assert read == ["a", "b", "c"]


def test_an_event_loop_reads_without_a_thread_of_its_own() -> None:
    job = Job({})
    before = threading.active_count()

    async def read() -> list[str]:
        texts = []
        writer = threading.Thread(target=write)
        writer.start()
        async for event in job:
            texts.append(event["choices"][0]["delta"]["content"])
            assert threading.active_count() <= before + 1  # the writer, and nobody else
        writer.join()
        return texts

    def write() -> None:
        for number in range(50):
            job.put(word(str(number)))
        job.finish()

    assert asyncio.run(read()) == [str(number) for number in range(50)]


def test_the_error_comes_after_the_pieces() -> None:
    job = Job({})
    job.put(word("a"))
    job.fail(HydraError("no more"))
    assert job.take() is not None
    with pytest.raises(HydraError, match="no more"):
        job.take()
    assert job.state == "failed"


def test_a_broken_stream_has_the_text_that_came() -> None:
    job = Job({})
    job.put(word("so "))
    job.put(word("far"))
    job.fail(StreamBroken("gone"))
    with pytest.raises(StreamBroken) as caught:
        list(job)
    assert caught.value.text == "so far"


def test_what_comes_after_the_end_is_ignored() -> None:
    ended: list[str] = []
    job = Job({}, on_end=lambda job: ended.append(job.state))
    job.finish()
    job.put(word("late"))
    job.fail(HydraError("late"))
    job.cancel()
    assert job.take() is None
    assert ended == ["finished"]


def test_cancel_reaches_the_driver_once_and_drops_what_is_unread() -> None:
    cancelled: list[Job] = []
    job = Job({}, on_cancel=cancelled.append)
    job.put(word("a"))
    job.cancel()
    job.close()
    assert cancelled == [job]
    assert job.take() is None
    assert job.state == "cancelled"


def test_leaving_the_loop_early_cancels() -> None:
    cancelled: list[Job] = []
    job = Job({}, on_cancel=cancelled.append)
    job.put(word("a"))
    for _ in job:
        break
    gc.collect()
    assert cancelled == [job]


def test_leaving_an_async_loop_early_cancels() -> None:
    cancelled: list[Job] = []
    job = Job({}, on_cancel=cancelled.append)
    job.put(word("a"))

    async def read() -> None:
        async for _ in job:
            break

    asyncio.run(read())
    gc.collect()
    assert cancelled == [job]


def test_a_wait_can_be_bounded_and_the_job_goes_on() -> None:
    job = Job({})
    with pytest.raises(TimeoutError):
        job.take(timeout=0.001)
    job.put(word("a"))
    chunk = job.take(timeout=0.001)
    assert chunk is not None
    assert chunk.text == "a"


def test_a_cancelled_wait_loses_no_piece() -> None:
    job = Job({})

    async def read() -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.take_async(), 0.001)
        job.put(word("kept"))
        chunk = await job.take_async()
        assert chunk is not None
        return chunk.text

    assert asyncio.run(read()) == "kept"


def test_a_writer_survives_that_the_readers_loop_is_gone() -> None:
    cancelled: list[Job] = []
    job = Job({}, on_cancel=cancelled.append)

    async def start_reading() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(job.take_async())
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(start_reading())
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # leaving it is the point
    loop.close()
    job.put(word("a"))
    assert cancelled == [job]


def test_times_are_those_of_the_arrival() -> None:
    times = iter([10.0, 12.0, 16.0])  # asked, first token, end
    job = Job({}, clock=lambda: next(times))
    job.put({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})  # bears no token
    job.put(word("a"))
    job.put(usage(9))
    job.finish()
    assert job.timings.ttft == 2.0
    assert job.timings.total == 6.0
    assert job.timings.decode_tps == 2.0  # 8 tokens after the first in 4 seconds


def test_without_a_token_there_are_no_times_of_one() -> None:
    times = iter([1.0, 3.0])
    job = Job({}, clock=lambda: next(times))
    job.finish()
    assert (job.timings.ttft, job.timings.total, job.timings.decode_tps) == (None, 2.0, None)


def test_one_token_has_no_speed() -> None:
    times = iter([1.0, 3.0, 4.0])
    job = Job({}, clock=lambda: next(times))
    job.put(word("a"))
    job.put(usage(1))
    job.finish()
    assert (job.timings.ttft, job.timings.decode_tps) == (2.0, None)
