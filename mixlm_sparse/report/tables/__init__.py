"""Tables for people: text, Markdown, LaTeX, and HTML for notebooks."""
