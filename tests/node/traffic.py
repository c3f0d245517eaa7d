"""Requests at a constant rate, each with its own connection; prints what became of them as one line of JSON.

    python3 traffic.py ADDRESS HOST PER-SECOND STOP-FILE

They end when the file exists, which is removed, or after five minutes.
"""

import collections
import concurrent.futures
import http.client
import json
import os
import sys
import time

TIMEOUT_SECONDS = 30
LONGEST_SECONDS = 300


def request(address, host):
    """What a user sees: the status, or why there was none; and the seconds that it took."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/", headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        answer.read()
        seen = str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        seen = type(error).__name__
    finally:
        connection.close()
    return seen, time.monotonic() - begun


def main(address, host, per_second, stop_file):
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        asked = []
        for number in range(per_second * LONGEST_SECONDS):
            if os.path.exists(stop_file):
                os.remove(stop_file)
                break
            time.sleep(max(0.0, begun + number / per_second - time.monotonic()))
            asked.append(pool.submit(request, address, host))
        results = [it.result() for it in asked]
    failures = [number / per_second for number, (seen, _) in enumerate(results) if seen != "200"]
    took = sorted(seconds for _, seconds in results)
    print(json.dumps({
        "asked": len(results),
        "failed": dict(collections.Counter(seen for seen, _ in results if seen != "200")),
        "failedSeconds": [round(failures[0], 1), round(failures[-1], 1)] if failures else None,
        "p50Milliseconds": round(took[len(took) // 2] * 1000),
        "p99Milliseconds": round(took[len(took) * 99 // 100] * 1000),
        "slowestMilliseconds": round(took[-1] * 1000),
    }))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
