"""Whether a bundle is what it says, and how good its captions are by people's."""
