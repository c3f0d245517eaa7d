#!/bin/bash
# As the published image: gunicorn, by its variables. One version has a fault.
set -e
if [ "${STAND_IN_TAG:-}" = v15.3.0 ]; then echo "this version does not start" >&2; exit 1; fi
bench=/home/frappe/frappe-bench
exec $bench/env/bin/gunicorn --chdir=$bench/sites --bind=0.0.0.0:8000 --threads="${GUNICORN_THREADS:-4}" \
  --workers="${GUNICORN_WORKERS:-2}" --worker-class=gthread --worker-tmp-dir=/dev/shm --timeout="${GUNICORN_TIMEOUT:-120}" \
  --preload frappe.app:application
