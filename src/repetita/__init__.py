"""repetita: what language models memorize, how fast, what they forget, what repeated data costs."""
