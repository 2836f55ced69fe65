"""`python -m tests.kills` kills runs again and again; see __main__.py."""
