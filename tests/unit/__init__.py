"""Tests that start no process and open no socket; conftest.py makes them fail if they try."""
