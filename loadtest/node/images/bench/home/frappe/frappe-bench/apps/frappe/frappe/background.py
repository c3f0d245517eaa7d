"""What `bench worker` and `bench schedule` run: a real worker of rq on the bench's queues, and a scheduler that has nothing to do."""

import json
import os
import sys
import time

import redis
import rq

BENCH = "/home/frappe/frappe-bench"


def worker(queues):
    with open(os.path.join(BENCH, "sites", "common_site_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    connection = redis.Redis.from_url(config["redis_queue"])
    rq.Worker([f"{config['bench_id']}:{name}" for name in queues], connection=connection).work()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(sys.argv[sys.argv.index("--queue") + 1].split(","))
    else:
        while True:
            time.sleep(60)
