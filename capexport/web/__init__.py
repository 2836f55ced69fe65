"""A bundle as a page that captions in the browser: the page and its JavaScript runtime, and what puts them together."""
