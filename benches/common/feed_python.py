"""The Python subfeed 0.1.1 at the work of the benches: lines through persistent `cat` children.

usage: feed_python.py CHILDREN LINE_BYTES LINES LINES_PER_ITEM DIRECTORY

LINE_BYTES counts the line feed. An item of that package is whatever bytes one write carries, so
LINES_PER_ITEM = 1 is the plain use and a larger number is what someone after speed would do.
Both outputs of every child go to files in DIRECTORY: the release cannot hand replies back, and a
pipe that nothing reads would block it (so this does less work than the others: nobody reads the
replies and nothing is put in order).

Prints `fed SECONDS closed SECONDS`: from the first feed until every line was written to a child,
and until the coordinator has closed (its polls add up to a second to that).
"""

import sys
import time

from subfeed import Coordinator, FileChannel, TaskTemplate, Writer, WriterSpec


def main():
    children, line_bytes, lines, per_item = map(int, sys.argv[1:5])
    directory = sys.argv[5]
    line = b"x" * (line_bytes - 1) + b"\n"
    item = line * per_item
    # args must be a string in this release: a list raises AttributeError.
    template = TaskTemplate(
        "exec cat",
        stdout=FileChannel(directory + "/out.{id}"),
        stderr=FileChannel(directory + "/err.{id}"),
    )
    # Queues as long as the window of the others.
    coordinator = Coordinator(
        template,
        children,
        {"stdin": WriterSpec(type=Writer)},
        common_queue_multiplier=1000,
        writer_queue_maxsize=1000,
    )
    with coordinator:
        feed = coordinator.feed
        start = time.perf_counter()
        for _ in range(lines // per_item):
            feed(item)
        rest = lines % per_item
        if rest:
            feed(line * rest)
        common = coordinator.context.common
        while common.unfinished_tasks or any(
            writer.queue.unfinished_tasks
            for worker in list(coordinator.workers)
            for writer in worker.writers.values()
        ):
            time.sleep(0.0005)
        fed = time.perf_counter() - start
    closed = time.perf_counter() - start
    print(f"fed {fed:.6f} closed {closed:.6f}")


main()
