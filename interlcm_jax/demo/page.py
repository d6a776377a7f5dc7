"""The page: its elements, and what each of them does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from interlcm_jax.demo.restorer import Restored, Restorer
from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.image import RestoreOptions

TITLE = "InterLCM: face restoration"
# The reader's own fonts. The look of Gradio's default theme else.
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
PHOTOS = ["image", ".heic", ".heif", ".avif", ".tif", ".tiff"]
MAX_WAITING, MAX_PHOTOS = 100, 50
# Photos at work at a time beside those whose faces fill a batch: they read, paste and write meanwhile.
BESIDE = 2


@dataclasses.dataclass
class Shown:
    """One photo of a visitor: its file, the numbers of the faces to restore, and what has become of it."""

    source: Path
    picture: Path
    faces: int
    ticked: list[int]
    restored: Restored | None = None

    @property
    def choice(self) -> str:
        """The ticked faces as `RestoreOptions.faces` has them."""
        return "all" if len(self.ticked) == self.faces else ",".join(map(str, self.ticked))


@dataclasses.dataclass
class Visit:
    """What one visitor's page shows: the photos that can be read, and which of them is looked at."""

    photos: list[Shown] = dataclasses.field(default_factory=list)
    current: int = 0


def build_page(restorer: Restorer, about: str) -> gr.Blocks:
    """The page.

    Args:
        restorer: does the work.
        about: a line on the model and its license.
    """
    actions = _Actions(restorer)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        gr.HTML(f"<p>{_escaped(about)}</p><p>Your photos and their results are deleted after an hour.</p>")
        visit = gr.State(Visit())
        with gr.Row():
            with gr.Column(scale=2):
                files = gr.File(label="Photos", file_count="multiple", file_types=PHOTOS, elem_id="photos", height=160)
                pictures = gr.Gallery(
                    show_label=False,
                    columns=2,
                    height=300,
                    object_fit="contain",
                    allow_preview=False,
                    buttons=[],
                    visible=False,
                    interactive=False,
                    elem_id="pictures",
                )
                ticks = gr.CheckboxGroup(label="Faces to restore", visible=False, elem_id="faces")
                settings = _settings(restorer)
                button = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column(scale=3):
                slider = gr.ImageSlider(
                    label="Before and after", type="filepath", max_height=560, buttons=["fullscreen"], elem_id="slider"
                )
                report = gr.Textbox(label="Report", visible=False, interactive=False, elem_id="report")
                results = gr.File(label="Download", file_count="multiple", visible=False, elem_id="results")

        private = {"api_visibility": "private"}
        looking = {"concurrency_limit": 2, "concurrency_id": "look"}
        at_work = {"concurrency_limit": restorer.batches.size + BESIDE, "concurrency_id": "restore"}
        after_look = [visit, pictures, ticks, slider, report, results]
        files.change(actions.look, [files], after_look, **private, **looking, show_progress_on=[pictures, report])
        pictures.select(actions.turn_to, [visit], [visit, ticks, slider], queue=False, **private)
        ticks.input(actions.tick, [visit, ticks], [visit], queue=False, show_progress="hidden", **private)
        shown = [visit, slider, report, results]
        button.click(
            actions.restore, [visit, *settings], shown, **private, **at_work, show_progress_on=[slider], api_name=False
        )
        with gr.Row(visible=False):
            photo, result = gr.File(label="photo"), gr.File(label="the restored photo, PNG")
            faces = gr.Textbox("all", label="all, largest, center, or numbers from left to right such as 0,2")
            call = gr.Button()
        call.click(actions.restore_one, [photo, faces, *settings], result, api_name="restore", **at_work)
    page.queue(max_size=MAX_WAITING)
    return page


def _settings(restorer: Restorer) -> list[gr.components.Component]:
    """The elements whose values `_Actions.restore` takes, in its order."""
    with gr.Accordion("Settings", open=False):
        return [
            gr.Slider(0, 1, 0, step=0.05, label="Fidelity", info="0: most detail; 1: closest to the photo's shapes"),
            gr.Number(0, label="Seed", info="The same seed gives the same result", precision=0, minimum=0),
            gr.Slider(1, 4, 2, step=0.5, label="Enlarge", info="How many times larger the result is"),
            gr.Checkbox(
                True,
                label="Leave sharp faces as they are",
                info="Faces with more detail than the model draws",
                visible=restorer.config.task == "restoration",
            ),
            gr.Checkbox(
                restorer.upsampler is not None,
                label="Enlarge the background by a network",
                info="Sharper than interpolation, and slower",
                visible=restorer.upsampler is not None,
            ),
        ]


class _Actions:
    """What the page's elements call; names of arguments are those of the API."""

    def __init__(self, restorer: Restorer):
        self.restorer = restorer

    def look(self, files: Sequence[str] | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """New photos: shows their faces with numbers."""
        visit, problems = Visit(), []
        if files and len(files) > MAX_PHOTOS:
            problems.append(f"these are {len(files)} photos; the first {MAX_PHOTOS} are taken")
        for source in progress.tqdm([Path(file) for file in files or []][:MAX_PHOTOS], desc="finding faces"):
            try:
                picture, count = self.restorer.number(source)
                visit.photos.append(Shown(source, picture, count, list(range(count))))
                if not count:
                    problems.append(f"{source.name}: no face was found")
            except InterLCMError as error:
                problems.append(str(error))
        pictures = [(str(photo.picture), photo.source.name) for photo in visit.photos]
        return (
            visit,
            gr.Gallery(pictures or None, visible=bool(pictures), selected_index=None),
            _ticks(visit),
            None,
            _report(problems),
            gr.File(None, visible=False),
        )

    def turn_to(self, visit: Visit, event: gr.SelectData) -> tuple[Any, ...]:
        """Another photo is looked at."""
        visit.current = event.index
        return visit, _ticks(visit), _pair(visit)

    def tick(self, visit: Visit, ticked: list[int]) -> Visit:
        """Faces are chosen."""
        if visit.photos:
            visit.photos[visit.current].ticked = sorted(ticked)
        return visit

    def restore(
        self,
        visit: Visit,
        fidelity: float,
        seed: float,
        upscale: float,
        leave_sharp: bool,
        upsample_background: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """Restores all photos of a visitor; one that can't be restored costs that one only."""
        report = [] if visit.photos else ["no photo to restore: drop one first"]
        for number, photo in enumerate(visit.photos):

            def told(part: float, what: str, number: int = number) -> None:
                progress((number + part) / len(visit.photos), desc=what)

            photo.restored = None
            try:
                if photo.faces and not photo.ticked:
                    raise InterLCMError(f"{photo.source.name}: no face is ticked")
                photo.restored = self.restorer.restore(
                    photo.source,
                    _options(photo.choice, upscale, leave_sharp),
                    told,
                    upsample=upsample_background,
                    fidelity=fidelity,
                    seed=_whole(seed),
                )
                report.append(photo.restored.summary)
            except InterLCMError as error:
                report.append(str(error))
        done = [str(photo.restored.result) for photo in visit.photos if photo.restored]
        return visit, _pair(visit), _report(report), gr.File(done or None, visible=bool(done))

    def restore_one(
        self,
        photo: str,
        faces: str = "all",
        fidelity: float = 0.0,
        seed: float = 0,
        upscale: float = 2.0,
        leave_sharp: bool = True,
        upsample_background: bool = True,
    ) -> str:
        """Restores the faces in one photo; for programs."""
        if not photo:
            raise gr.Error("photo is missing: upload a file first", print_exception=False)
        try:
            restored = self.restorer.restore(
                Path(photo),
                _options(faces, upscale, leave_sharp),
                upsample=upsample_background,
                fidelity=fidelity,
                seed=_whole(seed),
            )
        except InterLCMError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return str(restored.result)


def _options(faces: str, upscale: float, leave_sharp: bool) -> RestoreOptions:
    return RestoreOptions(faces=faces, upscale=upscale, leave_sharp="auto" if leave_sharp else "off")


def _whole(seed: float | None) -> int:
    """A seed as Gradio gives it: a number, or nothing for an empty field."""
    return int(seed or 0)


def _ticks(visit: Visit) -> gr.CheckboxGroup:
    """The faces of the photo that is looked at, to tick."""
    if not visit.photos:
        return gr.CheckboxGroup(visible=False)
    photo, several = visit.photos[visit.current], len(visit.photos) > 1
    choices = [(str(number), number) for number in range(photo.faces)]
    return gr.CheckboxGroup(
        choices,
        value=photo.ticked,
        label=f"Faces to restore in {photo.source.name}",
        info="Click another photo to look at it and to choose its faces" if several else None,
        visible=several or photo.faces > 1,
    )


def _pair(visit: Visit) -> tuple[str, str] | None:
    """Before and after of the photo that is looked at."""
    restored = visit.photos[visit.current].restored if visit.photos else None
    return restored and (str(restored.before), str(restored.after))


def _report(lines: list[str]) -> gr.Textbox:
    return gr.Textbox("\n".join(lines), lines=max(1, len(lines)), visible=bool(lines))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
