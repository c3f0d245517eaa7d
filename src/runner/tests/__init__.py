"""Tests of the site runner, with a real MariaDB and a stand-in for Frappe."""
