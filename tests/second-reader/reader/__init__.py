"""A second implementation of `spec/mortise.md`, written from that document and nothing else.

It shares no code with the product. Where it had to guess, the document was mended.
"""
