"""The player component: a `gr.HTML` whose template, style and script are fixed files.

Nothing that a person or a song supplies ever enters the template, because Gradio evaluates
templates as code: pairs come by `/api/next`, the few options as the component's value, and the
scripts write both into the page as text. The scripts are ES modules under `/static`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gradio as gr

from feedback_app.static import static_url

FOLDER: Final = Path(__file__).parent
MODULES: Final = (
    "annotate", "headphones", "keys", "listening", "map", "outbox", "pairs", "reveal", "tour",
    "transport", "view", "waveform",
)  # fmt: skip
ON_LOAD: Final = """
import("%s").then(
  (module) => module.mount(element, props.value),
  () => {
    element.querySelector('[data-id="waiting-title"]').textContent = "The player did not load.";
    element.querySelector('[data-id="waiting-text"]').textContent =
      "Reload the page; if that does not help, tell the researcher.";
  },
);
"""


def preload_tags() -> str:
    """Link tags that fetch the modules at once instead of one import after the other."""
    names = [f"/static/{name}.js" for name in MODULES]
    return "".join(f'<link rel="modulepreload" href="{url}">' for url in names)


def player(tags: tuple[str, ...] = (), **kwargs: Any) -> gr.HTML:
    """Three sounds on one clock, the ballot, and everything around them.

    tags: the words that an annotator may attach to a vote. A function, not a subclass of
    `gr.HTML`: for each subclass Gradio writes a stub file beside the source at every start.
    """
    return gr.HTML(
        value={"tags": list(tags)},
        html_template=(FOLDER / "player.html").read_text(encoding="utf-8"),
        css_template=(FOLDER / "player.css").read_text(encoding="utf-8"),
        js_on_load=ON_LOAD % static_url("player.js"),
        apply_default_css=False,
        **kwargs,
    )
