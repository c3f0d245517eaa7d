#!/bin/bash
# As the published image: the volume's assets are those of the image.
set -e
bench=/home/frappe/frappe-bench
rm -rf $bench/sites/assets
ln -s $bench/assets $bench/sites/assets
exec "$@"
