"""A wire as a user of the library adds it in a package of their own: text, over Gemini's format.

It imports the public names of minillmlib only. The model is in the address, the body has no key
`messages`, the finish words are Gemini's own, and a stream ends without an end marker.
"""

from gemini_like.provider import GeminiLike

__all__ = ["GeminiLike"]
