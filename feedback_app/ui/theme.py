"""The look that both pages share: warm paper by day, a dim control room by night, one amber lamp.

Use: ``theme()`` goes to ``mount_gradio_app(theme=…)``, ``CSS`` to ``css=``, ``HEAD`` to ``head=``.
`theme.css` holds the same palette as custom properties (``--ink``, ``--line``, ``--lamp`` …) for
hand-written parts; pages outside Gradio (sign-in) use it with ``class="plain"`` on their body.
Nothing here asks the internet for anything: fonts are the ones bundled with Gradio, served by this
server, and the system's where those are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gradio as gr

PAPER: Final = gr.themes.Color(
    name="paper",
    c50="#fbf9f5",
    c100="#f4f0e9",
    c200="#e6e0d6",
    c300="#d3cbbe",
    c400="#a59c8e",
    c500="#7d756a",
    c600="#625b51",
    c700="#3a3d42",
    c800="#25282c",
    c900="#1a1c1f",
    c950="#121315",
)
LAMP: Final = gr.themes.Color(
    name="lamp",
    c50="#fff8eb",
    c100="#fdecc9",
    c200="#fad890",
    c300="#f6c05c",
    c400="#f2a93b",
    c500="#d9861a",
    c600="#b2660c",
    c700="#8c4d0a",
    c800="#6d3c0c",
    c900="#4f2c0c",
    c950="#2f1a07",
)

CSS: Final = (Path(__file__).parent / "theme.css").read_text(encoding="utf-8")
HEAD: Final = (
    '<meta name="color-scheme" content="light dark">'
    '<meta name="theme-color" media="(prefers-color-scheme: light)" content="#f4f0e9">'
    '<meta name="theme-color" media="(prefers-color-scheme: dark)" content="#121315">'
    '<link rel="icon" href="data:,">'
)


def theme() -> gr.themes.Base:
    """The Gradio theme: flat panels, hairlines, ink buttons, amber only where something is live."""
    text = [gr.themes.Font(name) for name in ("Plex Studio", "Segoe UI", "system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("Plex Studio Mono", "ui-monospace", "monospace")]
    base = gr.themes.Base(
        primary_hue=LAMP,
        secondary_hue=LAMP,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_md,
        font=text,
        font_mono=mono,
    )
    return base.set(
        body_background_fill="#f4f0e9",
        body_background_fill_dark="#121315",
        body_text_color="#211f1b",
        body_text_color_dark="#ece8e1",
        body_text_color_subdued="#625b51",
        body_text_color_subdued_dark="#a8a298",
        background_fill_primary="#fbf9f5",
        background_fill_primary_dark="#1a1c1f",
        background_fill_secondary="#f4f0e9",
        background_fill_secondary_dark="#212428",
        border_color_primary="#ddd6ca",
        border_color_primary_dark="#34383d",
        border_color_accent="#d9861a",
        border_color_accent_dark="#f2a93b",
        color_accent="#b2660c",
        color_accent_soft="#fdecc9",
        color_accent_soft_dark="#3a2c17",
        link_text_color="#8c4d0a",
        link_text_color_dark="#f6c05c",
        link_text_color_hover="#6d3c0c",
        link_text_color_hover_dark="#fad890",
        link_text_color_visited="#8c4d0a",
        link_text_color_visited_dark="#f6c05c",
        block_background_fill="#fbf9f5",
        block_background_fill_dark="#1a1c1f",
        block_border_color="#ddd6ca",
        block_border_color_dark="#34383d",
        block_label_text_color="#625b51",
        block_label_text_color_dark="#a8a298",
        block_title_text_color="#211f1b",
        block_title_text_color_dark="#ece8e1",
        block_title_text_weight="600",
        block_info_text_color="#625b51",
        block_info_text_color_dark="#a8a298",
        block_shadow="none",
        block_shadow_dark="none",
        input_background_fill="#ffffff",
        input_background_fill_dark="#121315",
        input_border_color="#cfc7ba",
        input_border_color_dark="#41464c",
        input_border_color_focus="#b2660c",
        input_border_color_focus_dark="#f2a93b",
        input_shadow_focus="0 0 0 3px rgba(217, 134, 26, .25)",
        input_placeholder_color="#7d756a",
        input_placeholder_color_dark="#8c867c",
        button_primary_background_fill="#211f1b",
        button_primary_background_fill_dark="#f2a93b",
        button_primary_background_fill_hover="#3b3731",
        button_primary_background_fill_hover_dark="#f6c05c",
        button_primary_text_color="#fbf9f5",
        button_primary_text_color_dark="#1b1409",
        button_primary_border_color="#211f1b",
        button_primary_border_color_dark="#f2a93b",
        button_secondary_background_fill="#fbf9f5",
        button_secondary_background_fill_dark="#25282c",
        button_secondary_background_fill_hover="#efe9de",
        button_secondary_background_fill_hover_dark="#30343a",
        button_secondary_border_color="#cfc7ba",
        button_secondary_border_color_dark="#41464c",
        button_secondary_text_color="#211f1b",
        button_secondary_text_color_dark="#ece8e1",
        button_cancel_background_fill="#fbf9f5",
        button_cancel_background_fill_dark="#25282c",
        button_cancel_background_fill_hover="#f7e2da",
        button_cancel_background_fill_hover_dark="#41261d",
        button_cancel_border_color="#b5431c",
        button_cancel_border_color_dark="#d9714a",
        button_cancel_text_color="#9a3412",
        button_cancel_text_color_dark="#f0a184",
        checkbox_background_color_selected="#b2660c",
        checkbox_background_color_selected_dark="#d9861a",
        checkbox_border_color_selected="#b2660c",
        checkbox_border_color_selected_dark="#d9861a",
        slider_color="#b2660c",
        slider_color_dark="#f2a93b",
        loader_color="#d9861a",
        stat_background_fill="#fad890",
        stat_background_fill_dark="#6d3c0c",
        table_even_background_fill="#fbf9f5",
        table_even_background_fill_dark="#1a1c1f",
        table_odd_background_fill="#f6f2eb",
        table_odd_background_fill_dark="#1f2226",
        table_border_color="#ddd6ca",
        table_border_color_dark="#34383d",
        shadow_drop="none",
        shadow_drop_lg="none",
    )
