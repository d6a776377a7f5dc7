"""The page served: on this machine unless told otherwise, and asking no other one for anything."""

import importlib.util
import os
import socket
import sys
from typing import TYPE_CHECKING

from interlcm_jax.demo.restorer import Restorer
from interlcm_jax.errors import InterLCMError

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_FILE_SIZE = "100mb"
# Seconds that open connections get to end in: a page that is open holds one as long as it is.
PATIENCE = 1
# What Gradio would fetch from other servers when a visitor asks it to.
_ELSEWHERE = ("/gradio_api/file=http{rest:path}", "/gradio_api/proxy={rest:path}")

# What a browser may ask for, on top of what the page has in itself: this server alone.
_POLICY = ("content-security-policy", "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:")


def check_installed() -> None:
    """Makes sure that Gradio is there.

    Raises:
        InterLCMError: it isn't; says what to install.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InterLCMError("the page needs Gradio, which isn't installed: pip install 'interlcm-jax[demo]'")


def open_port(host: str, port: int) -> socket.socket:
    """Takes a port, so that no time is lost on a model that couldn't be served.

    Raises:
        InterLCMError: it is in use, or there is no such address on this machine.
    """
    if not 0 <= port < 2**16:
        raise InterLCMError(f"--port is {port}, but must be an integer from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            # A port that a server just left is free; on Windows the option would mean to share one in use.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        raise InterLCMError(f"{host}:{port} can't be listened on ({error.strerror}): choose another --port") from error
    return listening


def serve(restorer: Restorer, about: str, listening: socket.socket) -> None:
    """Serves the page until Ctrl-C.

    Args:
        restorer: does the work; Gradio keeps its files in the same folder.
        about: a line on the model, for the page.
        listening: from `open_port`.
    """
    app = _application(restorer, about)
    import uvicorn

    class Server(uvicorn.Server):
        """Ends the streams that open pages hold before it ends itself: Python can't end while one is left."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.routes[-1].app.stop_event.set()
            await super().shutdown(sockets)

    config = uvicorn.Config(app, headers=[_POLICY], log_level="critical", timeout_graceful_shutdown=PATIENCE)
    Server(config).run(sockets=[listening])


def _application(restorer: Restorer, about: str) -> "FastAPI":
    """The page as an ASGI application."""
    # Read when Gradio is imported.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(restorer.storage)}
    import fastapi
    import gradio as gr

    from interlcm_jax.demo.page import FONTS, build_page

    _fetch_nothing()
    app = fastapi.FastAPI(openapi_url=None)
    for path in _ELSEWHERE:
        app.add_api_route(path, _refuse, methods=["GET", "HEAD"])
    page = build_page(restorer, about)
    # Without it, a mounted page hands out any file of this machine that a visitor names.
    page.has_launched = True
    return gr.mount_gradio_app(
        app,
        page,
        "/",
        max_file_size=MAX_FILE_SIZE,
        footer_links=["api"],
        theme=gr.themes.Default(**FONTS),
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )


def _refuse(rest: str) -> None:
    from fastapi import HTTPException

    raise HTTPException(403, "this server fetches nothing from others")


def _fetch_nothing() -> None:
    """Gradio downloads what a visitor names by an address in place of a file; here, files are uploaded."""
    import gradio as gr
    from gradio import processing_utils

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error(f"{url}: this server fetches nothing from others; upload the file", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
