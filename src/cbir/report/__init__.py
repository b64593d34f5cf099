"""What an evaluation says, once, and its writers: HTML, Markdown, terminal; all drawing."""
