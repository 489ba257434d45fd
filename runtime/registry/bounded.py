"""The body of an answer, no more of it than it may have: a registry is a stranger."""

import httpx2

LARGEST_WORDS = 64 << 10


def read_words(response: httpx2.Response) -> bytes:
    """What a registry says of itself: an error, a token. What is beyond 64 KiB is left out, and the answer closed.

    Raises httpx2.HTTPError.
    """
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > LARGEST_WORDS:
            break
    response.close()
    return bytes(body[:LARGEST_WORDS])
