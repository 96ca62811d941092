"""The annotation page: one player on an empty Gradio page. Votes go to the HTTP routes, not here.

The page has no Gradio events at all, so there is nothing for an annotator to call.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.settings import Settings
from feedback_app.ui import theme
from feedback_app.ui.player import player, preload_tags

PAGE_CSS = """
.gradio-container { max-width: none !important; padding: 0 !important; }
.gradio-container .main.app, #player, #player .html-container { padding: 0 !important; }
"""


def build(settings: Settings) -> gr.Blocks:
    """The page, for `mount_gradio_app`."""
    page: gr.Blocks = gr.Blocks(title="Listen and vote", analytics_enabled=False, fill_width=True)
    with page:
        player(tags=settings.tags, elem_id="player")
    return page


def mount_options(settings: Settings) -> dict[str, Any]:
    """Theme, style and head of the page, for `mount_gradio_app`."""
    return {
        "theme": theme.theme(),
        "css": theme.CSS + PAGE_CSS,
        "head": theme.HEAD + preload_tags(),
    }
