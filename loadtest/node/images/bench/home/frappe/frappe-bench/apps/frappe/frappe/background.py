"""What `bench worker` and `bench schedule` run: a real worker of rq on the bench's queues, and a scheduler that has nothing to do."""

import json
import os
import sys
import time

import redis
import rq

BENCH = "/home/frappe/frappe-bench"


def queues_of(names):
    """Redis and the names of the bench's queues in it."""
    with open(os.path.join(BENCH, "sites", "common_site_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    return redis.Redis.from_url(config["redis_queue"]), [f"{config['bench_id']}:{name}" for name in names]


def worker(names):
    connection, queues = queues_of(names)
    rq.Worker(queues, connection=connection).work()


def enqueue(queue, name, seconds):
    connection, (queue,) = queues_of([queue])
    rq.Queue(queue, connection=connection).enqueue(run, name, seconds)


def run(name, seconds):
    """A job that writes when it was started and each time that it has run."""
    for folder in ("started", "ran"):
        os.makedirs(os.path.join(BENCH, "sites", folder), exist_ok=True)
    for folder, wait_seconds in (("started", 0), ("ran", seconds)):
        time.sleep(wait_seconds)
        with open(os.path.join(BENCH, "sites", folder, name), "a", encoding="utf-8") as file:
            file.write("once\n")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(sys.argv[sys.argv.index("--queue") + 1].split(","))
    else:
        while True:
            time.sleep(60)
