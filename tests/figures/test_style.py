"""What all figures share: measurements as pictures, the axis of t, and names of events that do not collide."""

import numpy as np
import pytest

from tests.worlds.synthetic import write_run
from utils.figures import run
from utils.figures.style import draw_measurement, event_times, mark_events, measurement_range, plt, time_axis
from utils.records.files import read_record, record_paths


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def spectrum():
    """(3, 32, 32), from 0.01 to 100."""
    return np.geomspace(0.01, 100, 3 * 32 * 32).reshape(3, 32, 32)


def test_a_spectrum_is_drawn_on_a_logarithmic_scale_with_the_bar_of_its_colours():
    axis = plt.figure().add_subplot()
    draw_measurement(axis, spectrum())
    low, high = measurement_range(spectrum())
    assert [text.get_text() for text in axis.texts] == [f"{low:.3g}", f"{high:.3g}"] and "logarithmic" in axis.get_title()
    picture = axis.images[0].get_array()
    bar = picture[-1].sum(-1)
    assert len(picture) > 32 and (np.diff(bar) >= -0.02).all() and bar[-1] - bar[0] > 2  # dark to light
    middle = np.abs(np.log(spectrum().mean(0) / np.sqrt(low * high))).argmin()  # half-way in the logarithm
    assert np.allclose(picture[:32].reshape(-1, 3)[middle], picture[-1, 16], atol=0.05)


def test_an_image_as_measurement_is_drawn_as_it_is_without_a_bar():
    axis = plt.figure().add_subplot()
    image = np.linspace(-1, 1, 3 * 16).reshape(3, 4, 4)
    draw_measurement(axis, image)
    assert np.allclose(axis.images[0].get_array(), 0.5 * image.transpose(1, 2, 0) + 0.5) and not axis.texts


def test_steps_after_the_last_t_stand_to_the_right_of_it():
    assert list(event_times([1000, 750, 500, 250, 0, 0])) == [1000, 750, 500, 250, -250, -500]


def test_names_of_events_stand_apart_and_each_event_has_its_line():
    axis = plt.figure(figsize=(6, 4)).add_axes((0.1, 0.1, 0.6, 0.6))
    time_axis(axis, 0)
    mark_events(axis, [("pruning", 200), ("exchange", 210), ("polish", 195), ("exchange", 100), ("pruning", 200)])
    assert sorted(line.get_xdata()[0] for line in axis.lines) == [100, 195, 200, 210]
    assert [(note.get_text(), note.xy[0]) for note in axis.texts] == [("exchange (×2)", 210), ("pruning", 200), ("polish", 195)]
    places = [axis.transData.transform((note.xyann[0], 0))[0] for note in axis.texts]  # pixels
    height = 7 * axis.figure.dpi / 72
    assert min(np.diff(places)) * np.sin(np.pi / 4) > 1.2 * height


def test_without_a_truth_there_is_no_empty_panel(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0", "180"], ["0", "failed"]], truth=False)
    records = [read_record(path) for path in record_paths(folder)]
    axes = run.draw_grid(records).axes
    assert len(axes) == 2 * 3 and all(axis.images for axis in axes)
    assert [axes[0].get_title(), axes[3].get_title()] == ["0: measurement", "1: measurement"]
    assert len(run.draw_trace(records).axes) == 2 * 2  # distance and loss, no PSNR


@pytest.mark.parametrize("particles, gone", [(4, ()), (24, ()), (24, range(0, 24, 2))])
def test_the_legend_of_a_trace_names_what_has_a_line_and_lies_on_the_page(tmp_path, composed, particles, gone):
    folder = write_run(tmp_path, composed, [["0"] * particles])
    (record, arrays) = read_record(record_paths(folder)[0])
    for row in (row for key in ("psnr", "loss") for row in record["trace"][key]):
        for position in gone:
            row[position] = None
    figure = run.draw_trace([(record, arrays)])
    figure.canvas.draw()
    legend = figure.axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"p{k}" for k in range(particles) if k not in gone]
    box = legend.get_window_extent()
    assert box.y0 >= 0 and box.x1 <= figure.bbox.x1


def test_the_trace_of_a_run_names_its_events_and_says_t(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0", None]], overrides=("repulsion_scale=0.3", "pruning_step=400"))
    records = [read_record(path) for path in record_paths(folder)]
    axes = run.draw_trace(records, run.config_of(folder)).axes
    for axis in axes:
        assert {name for note in axis.texts for name in note.get_text().split(", ")} == {"repulsion ends", "pruning"}
        assert axis.get_xlabel() == "t" and list(axis.lines[0].get_xdata()) == list(range(1000, 0, -100))
