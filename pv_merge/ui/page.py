"""How the page looks: two conversations, a slider for each preference, a table, the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from pv_merge.errors import PvMergeError
from pv_merge.live.chat.engine import Engine
from pv_merge.live.chat.session import ChatSession
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.ui.answers import answer, table
from pv_merge.ui.export import KINDS, Kind, export, recipe_text
from pv_merge.ui.server import ServerEngine
from pv_merge.ui.sliders import STEP, SliderRange, as_etas, slider_ranges

PROMPTS = (
    "I failed my driving test again.",
    "Can you help me write a letter to my landlord?",
    "What is the capital of Australia?",
    "My soup is too salty. What can I do?",
    "Explain what a black hole is.",
)
AT_ONCE, IN_TURN = "both at once", "one after the other"


class Page:
    """The page over one engine. ``blocks`` is Gradio's."""

    def __init__(
        self, engine: Engine, settings: ChatSettings, prompts: Sequence[str], files: Path
    ) -> None:
        self._engine, self._settings, self._files = engine, settings, files
        self._ranges = slider_ranges(engine.recipe, engine.locked)
        with gr.Blocks(title="pv-merge", analytics_enabled=False, fill_width=True) as self.blocks:
            self._session = gr.State(None)
            gr.Markdown(self._heading(), elem_id="heading")
            with gr.Row():
                with gr.Column(scale=1, min_width=260):
                    self._controls()
                with gr.Column(scale=3):
                    self._conversations(prompts or PROMPTS)
            with gr.Tab("One prompt at several η"):
                self._several()
            with gr.Tab("Recipe and export"):
                self._recipe()
            self._wire()

    def _heading(self) -> str:
        recipe = self._engine.recipe
        where = f" on {self._engine.url}" if isinstance(self._engine, ServerEngine) else ""
        fixed = [name for name, eta in recipe.etas.items() if eta is None]
        note = f" · {', '.join(fixed)}: by layer, as the recipe says" if fixed else ""
        return f"### pv-merge · {Path(recipe.base_model).name}{where}{note}"

    def _controls(self) -> None:
        self._sliders = [
            gr.Slider(
                item.lowest, item.highest, item.eta, step=STEP, label=f"η {item.name}",
                info="protected: not below 0" if item.protected else None,
                elem_id=f"eta-{item.name}", elem_classes="eta", buttons=[],
            )
            for item in self._ranges
        ]  # fmt: skip
        together = self._engine.together
        self._order = gr.Radio(
            [AT_ONCE, IN_TURN] if together else [IN_TURN],
            value=AT_ONCE if together else IN_TURN,
            label="Answers",
        )
        self._reset = gr.Button("Reset η", elem_id="reset")
        self._clear = gr.Button("New conversation", elem_id="clear")

    def _conversations(self, prompts: Sequence[str]) -> None:
        with gr.Row():
            plain: dict[str, Any] = {"height": 420, "buttons": ["copy"], "feedback_options": None}
            self._base = gr.Chatbot(label="base", elem_id="base", **plain)
            title = mix_title(self._ranges, [item.eta for item in self._ranges])
            self._mix = gr.Chatbot(label=title, elem_id="mix", **plain)
        with gr.Row():
            self._question = gr.Textbox(
                show_label=False, placeholder="Ask both", scale=5, elem_id="question", lines=1,
                max_lines=4, submit_btn=False,
            )  # fmt: skip
            self._ask = gr.Button("Ask", variant="primary", scale=1, min_width=80, elem_id="ask")
            self._stop = gr.Button("Stop", scale=1, min_width=80, elem_id="stop")
        self._prompts = gr.Dataset(
            components=[self._question], samples=[[p] for p in prompts], label="Prompts to try",
            elem_id="prompts",
        )  # fmt: skip

    def _several(self) -> None:
        names = [item.name for item in self._ranges]
        with gr.Row():
            self._name = gr.Dropdown(names, value=names[0] if names else None, label="Preference")
            self._values = gr.Textbox("-1, 0, 1", label="Values of η", elem_id="values")
            self._measure = gr.Button("Answer at each", elem_id="measure")
        self._table = gr.HTML(as_table([]), elem_id="table")

    def _recipe(self) -> None:
        text = self._engine.recipe.text
        self._code = gr.Code(
            text, language="yaml", interactive=False, label="The recipe of this mix: copy it, then "
            "pv-merge run recipe.yml ./merged/mine", buttons=["copy"], elem_id="recipe",
        )  # fmt: skip
        kinds = [(text, kind) for kind, text in KINDS.items()]
        if isinstance(self._engine, ServerEngine):  # its files may lie on another machine
            kinds = [item for item in kinds if item[1] != "adapter"]
        with gr.Row():
            self._kind = gr.Dropdown(kinds, value="recipe", label="Export", elem_id="kind")
            self._export = gr.Button("Export", elem_id="export")
        self._file = gr.File(label="Exported", interactive=False, elem_id="file")

    def _wire(self) -> None:
        # One model can only be one mix at a time; a server takes care of itself.
        busy: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        if isinstance(self._engine, ServerEngine):
            busy = {"concurrency_limit": 16}
        said = [self._session, self._question, self._order, *self._sliders]
        shown = [self._session, self._question, self._base, self._mix]
        events = [
            gr.on([self._ask.click, self._question.submit], self._answer, said, shown, **busy),
            self._measure.click(
                self._rows, [self._question, self._name, self._values, *self._sliders],
                [self._table], **busy,
            ),
        ]  # fmt: skip
        self._stop.click(None, cancels=events, queue=False)
        self._prompts.click(lambda sample: sample[0], [self._prompts], [self._question])
        gr.on(
            [slider.change for slider in self._sliders], self._moved,
            [self._session, *self._sliders], [self._session, self._code, self._mix],
            show_progress="hidden", trigger_mode="always_last",
        )  # fmt: skip
        etas = [item.eta for item in self._ranges]
        self._reset.click(lambda: etas if len(etas) > 1 else etas[0], None, self._sliders)
        self._clear.click(
            lambda: (None, [], []), None, [self._session, self._base, self._mix], cancels=events
        )
        self._export.click(self._exported, [self._session, self._kind, *self._sliders], self._file)

    def _opened(self, session: ChatSession | None) -> ChatSession:
        return session or ChatSession(self._engine, self._settings)

    def _answer(
        self, session: ChatSession | None, question: str, order: str, *values: float
    ) -> Iterator[tuple[Any, ...]]:
        session = self._opened(session)
        etas = as_etas(self._ranges, values)
        with one_line():
            for said in answer(session, question, etas, order == AT_ONCE):
                yield session, "", said["base"], said["mix"]

    def _rows(self, question: str, name: str, text: str, *values: float) -> Iterator[Any]:
        etas = as_etas(self._ranges, values)
        with one_line():
            for rows in table(self._engine, question, name, text, etas, self._settings):
                yield as_table(rows)

    def _moved(self, session: ChatSession | None, *values: float) -> tuple[Any, ...]:
        session = self._opened(session)
        with one_line():
            session.change(as_etas(self._ranges, values))
        title = gr.Chatbot(label=mix_title(self._ranges, values))
        return session, recipe_text(session), title

    def _exported(self, session: ChatSession | None, kind: Kind, *values: float) -> str:
        session = self._opened(session)
        with one_line():
            session.change(as_etas(self._ranges, values))
            return str(export(kind, session, self._files))


class one_line:  # noqa: N801
    """Shows a ``PvMergeError`` as a note on the page."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, PvMergeError):
            raise gr.Error(error.message, print_exception=False) from None


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Return (η, answer) rows as HTML, with the answers' line breaks."""
    head = "<tr><th>η</th><th>answer</th></tr>"
    body = [f"<tr><td>{escape(eta)}</td><td>{escape(text)}</td></tr>" for eta, text in rows]
    return f"<table>{head}{''.join(body)}</table>"


def mix_title(ranges: Sequence[SliderRange], values: Sequence[float]) -> str:
    """Return the mix with every η."""
    said = as_etas(ranges, values)
    return "mix: " + ", ".join(f"{name} {eta:g}" for name, eta in said.items())


def zero_marks(ranges: Sequence[SliderRange]) -> str:
    """Return the style that marks 0 on each slider's track."""
    rules = []
    for item in ranges:
        if not 0 < item.zero < 1:
            continue
        # The thumb's middle goes from half its width to the track's end less that half.
        place = f"calc({item.zero:.4f} * (100% - 16px) + 8px)"
        rules.append(f"#eta-{item.name} .slider_input_container::after {{left: {place};}}\n")
    return "".join(rules)


STYLE = """
.eta .slider_input_container {position: relative;}
.eta .slider_input_container::after {content: ""; position: absolute; top: 0; bottom: 0; width: 2px;
  background: currentColor; opacity: .45; pointer-events: none;}
#table table {width: 100%;}
#table th, #table td {text-align: left; vertical-align: top; padding: 6px 10px;
  border-bottom: 1px solid var(--border-color-primary); white-space: pre-wrap;}
#table td:first-child {white-space: nowrap; font-weight: 600;}
#base button[aria-label="Clear"], #mix button[aria-label="Clear"] {display: none;}
#heading h3 {margin: 0;}
footer {display: none !important;}
"""
