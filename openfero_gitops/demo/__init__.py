"""The demonstration (`story`), and the in-memory API server that it uses (`cluster`)."""
