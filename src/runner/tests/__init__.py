"""Tests of the site runner, against a real MariaDB and a stand-in for Frappe."""
