"""A GET request by rules that no server can stretch, for files and listings that may be anybody's."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

import anyio
import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from interlcm_jax.errors import InterLCMError

DEADLINE = 60.0  # seconds for the headers, and for each so many bytes of the body:
LEAST = 2**18
REDIRECTS = 10


class LostError(Exception):
    """A request failed, and another one may succeed."""


@contextlib.contextmanager
def get(url: str, headers: Mapping[str, str]) -> Iterator[tuple[httpx2.Response, Iterator[bytes]]]:
    """Yields the response to a request, redirects followed, and its body as it comes.

    Proxies and certificates are the environment's. Another host than the first is told no token of the headers.

    Raises:
        LostError: there is no connection, or it broke or stalled; the body's iterator raises it too.
        InterLCMError: the address can't be used or redirects to one that can't, its certificate isn't trusted, or the
            body is compressed, which can hide any size.
    """
    # Only a coroutine can be stopped wherever it waits; its loop has a thread, since a notebook's own is in use.
    with start_blocking_portal() as portal, contextlib.ExitStack() as stack:
        with _errors(url):
            connection = portal.wrap_async_context_manager(_connection(url, headers))
            response = stack.enter_context(connection)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InterLCMError(f"{url}: the server compresses what it was asked to send as it is")
        yield response, _body(url, portal, response)


@contextlib.asynccontextmanager
async def _connection(url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
    headers = {"User-Agent": "interlcm-jax", "Accept-Encoding": "identity", **headers}
    async with httpx2.AsyncClient(timeout=None) as client:
        with anyio.fail_after(DEADLINE):
            request = client.build_request("GET", url, headers=headers)
            # The client would read the body of a redirect, however long.
            for _ in range(REDIRECTS + 1):
                response = await client.send(request, stream=True)
                if response.next_request is None:
                    break
                await response.aclose()
                if request.url.scheme == "https" and response.next_request.url.scheme != "https":
                    raise InterLCMError(f"{url}: redirects to {response.next_request.url}, which isn't https")
                request = response.next_request
            else:
                raise InterLCMError(f"{url}: redirects more than {REDIRECTS} times")
        try:
            yield response
        finally:
            await response.aclose()


def _body(url: str, portal: BlockingPortal, response: httpx2.Response) -> Iterator[bytes]:
    pieces, part = response.aiter_raw(), bytearray()

    async def gather() -> None:
        with anyio.fail_after(DEADLINE):
            async for piece in pieces:
                part.extend(piece)
                if len(part) >= LEAST:
                    break

    while True:
        try:
            with _errors(url):
                portal.call(gather)
        except LostError:
            yield bytes(part)  # what came before counts too
            raise
        yield bytes(part)
        if len(part) < LEAST:
            return
        part.clear()


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        yield
    except InterLCMError:
        raise
    except (httpx2.NetworkError, httpx2.ProtocolError, httpx2.ProxyError, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise InterLCMError(f"{url}: the server's certificate isn't trusted ({error})") from error
        slow = isinstance(error, TimeoutError)
        reason = f"less than {LEAST} bytes came in {DEADLINE:g} s" if slow else str(error) or type(error).__name__
        raise LostError(f"the connection failed ({reason})") from error
    except Exception as error:  # of many kinds, and none is for a user's eyes
        raise InterLCMError(f"{url}: this address, one it redirects to or the proxy can't be used ({error})") from error
