#!/bin/bash
# As the published image: gunicorn, by its variables.
set -e
bench=/home/frappe/frappe-bench
exec $bench/env/bin/gunicorn --chdir=$bench/sites --bind=0.0.0.0:8000 --threads="${GUNICORN_THREADS:-4}" \
  --workers="${GUNICORN_WORKERS:-2}" --worker-class=gthread --worker-tmp-dir=/dev/shm --timeout="${GUNICORN_TIMEOUT:-120}" \
  --preload frappe.app:application
