"""Tests of builder: `unit` starts no process and opens no socket, `integration` uses the real things."""
