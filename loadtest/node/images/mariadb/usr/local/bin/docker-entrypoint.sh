#!/bin/bash
# As the published image of MariaDB, as far as tests need it: makes the data of a new volume, with MARIADB_ROOT_PASSWORD as root's.
set -eu
data=/var/lib/mysql
if [ "$1" = mariadbd ]; then
  : "${MARIADB_ROOT_PASSWORD:?the password of root}"
  if [ ! -e "$data/.made" ]; then
    rm -rf "${data:?}"/*
    mariadb-install-db --no-defaults --datadir="$data" --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >/dev/null
    touch "$data/.made"
  fi
  umask 077
  password=${MARIADB_ROOT_PASSWORD//\\/\\\\}
  password=${password//\'/\\\'}
  cat >/run/mysqld/init.sql <<SQL
CREATE OR REPLACE USER 'root'@'%' IDENTIFIED BY '$password';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
ALTER USER 'root'@'localhost' IDENTIFIED BY '$password';
SQL
  set -- "$@" --init-file=/run/mysqld/init.sql
fi
exec "$@"
