"""Layout and serving of the page, in Gradio. Needs the extra `demo`."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from boxpromptiml.errors import UserError
from boxpromptiml.io.images import DEFAULT_LIMITS
from boxpromptiml.page import pictures
from boxpromptiml.page.events import WELCOME, Page
from boxpromptiml.page.service import Desk

_HOUR = 3600  # seconds after which uploads and pictures are deleted
_VISITORS = 8  # whose images are kept in memory
_WAITING = 16  # requests; more are turned away
_TITLE = """# Box, pseudo-mask, map
The **student** marks pixels that look manipulated, without a prompt. The **teacher** turns a rough
box into the pseudo-mask that a student is trained with. A score is not proof."""
# Pictures are never enlarged: Gradio takes a click on one that is for another pixel.
_CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.said p { margin: 0; padding: .6rem .8rem; border-radius: 6px; font-size: 1rem;
  background: var(--background-fill-secondary); border-left: 4px solid var(--color-accent); }
.said p.wrong { border-left-color: #d55e00; font-weight: 600; }
.figures dl { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0; }
.figures dt { font-size: .8rem; opacity: .75; }
.figures dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
#photo img { cursor: crosshair; }
"""
# Gradio's page has scripts of its own inside; nothing may be loaded from or sent to other places.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; form-action 'self'"
)

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_Receive = Callable[[], Awaitable[_Message]]


class _WithPolicy:
    """ASGI middleware that adds the page's security policy to every response."""

    def __init__(self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        async def send_with_policy(message: _Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", _POLICY.encode())
                message["headers"] = [*message["headers"], policy]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def build(desk: Desk) -> gr.Blocks:
    """Build the page without serving it."""
    with gr.Blocks(
        title="boxpromptiml", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)
    ) as blocks:
        gr.Markdown(_TITLE)
        visit = gr.State(time_to_live=_HOUR)
        file = gr.File(label="Photograph", height=140)
        said = gr.HTML(pictures.message(WELCOME), elem_classes="said", padding=False)
        with gr.Row():
            with gr.Column(min_width=300):
                photo = _picture("Photograph: click two corners", "photo")
                sides, draw = _box_fields()
            with gr.Column(min_width=300):
                teacher = _picture("Teacher: pseudo-mask, unsure in blue", "teacher")
                teacher_figures = gr.HTML(elem_classes="figures", padding=False)
        with gr.Row():
            with gr.Column(min_width=300):
                flagged = _picture("Student: flagged pixels", "flagged")
                student_figures = gr.HTML(elem_classes="figures", padding=False)
            with gr.Column(min_width=300):
                prob = _picture("Student: probability, from black 0 to yellow 1", "prob")
        page = Page(
            desk,
            visit,
            said,
            photo,
            sides,
            teacher,
            teacher_figures,
            flagged,
            prob,
            student_figures,
        )
        file.change(page.upload, file, page.outputs, api_visibility="private")
        photo.select(page.click, visit, page.outputs, api_visibility="private")
        draw.click(page.type_box, [visit, *sides], page.outputs, api_visibility="private")
    return blocks


def _picture(title: str, elem_id: str) -> gr.Image:
    """A picture below its title; the clickable one is never enlarged, see `_CSS`."""
    gr.Markdown(f"### {title}")
    return gr.Image(
        label=title, show_label=False, alt_text=title, elem_id=elem_id,
        interactive=False, buttons=[] if elem_id == "photo" else ["fullscreen"], format="png",
    )  # fmt: skip


def _box_fields() -> tuple[tuple[gr.Number, gr.Number, gr.Number, gr.Number], gr.Button]:
    with gr.Row():
        x0, y0, x1, y1 = (
            gr.Number(None, label=name, min_width=110, elem_id=f"side-{place}")
            for place, name in enumerate(("x0", "y0", "x1", "y1"))
        )
    button = gr.Button("Ask the teacher about this box", variant="primary", elem_id="ask")
    return (x0, y0, x1, y1), button


def serve(blocks: gr.Blocks, host: str, port: int) -> str:
    """Start serving in the background and return the address.

    Raises:
        UserError: If the port is in use, or the host is not this machine's.
    """
    font = ["system-ui", "sans-serif"]  # names only: nothing is fetched
    mono = ["ui-monospace", "monospace"]
    blocks.queue(default_concurrency_limit=1, max_size=_WAITING)
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            run_history=False,
            state_session_capacity=_VISITORS,
            max_file_size=DEFAULT_LIMITS.max_bytes,
            app_kwargs={"middleware": [Middleware(_WithPolicy)]},
            theme=gr.themes.Default(primary_hue="blue", font=font, font_mono=mono),
            css=_CSS,
        )
    except OSError as error:
        raise UserError(
            f"--port {port} is taken, or --host {host} is not this machine's; choose another"
        ) from error
    return str(address)
