"""What a sweep found, for people: the answer in words, a page that needs no network, Markdown, and plots as PNG."""
