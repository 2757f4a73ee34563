"""What the comparison figures show, read back from matplotlib's own objects."""

import json

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.experiments import gather
from utils.figures import comparison as cf
from utils.figures import pareto
from utils.figures.style import measurement_picture

LABELS = [["0", "failed", "180", "mixed"], ["failed", "0", "0", "failed"]]
PRUNED = [["0", None, "180", None], ["180", "0", None, None]]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory, composed):
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder, composed, LABELS, name="exp0_base")
    write_run(
        folder,
        composed,
        PRUNED,
        name="exp4",
        seconds=1.0,
        overrides=("repulsion_scale=0.3", "pruning_step=400", "optimization_step=200"),
    )
    return gather([runs.load(path) for path in runs.find([folder])])


@pytest.fixture(autouse=True)
def closed():
    yield
    cf.plt.close("all")


@pytest.mark.heavy
def test_every_figure_is_written_as_png_and_pdf(experiments, tmp_path):
    cf.plt.close("all")  # what other tests left open
    names = {path.name for path in cf.draw_all(experiments, tmp_path / "new" / "figures", images=1)}
    stems = (
        "step_time",
        "pairwise_distance",
        "psnr_distribution",
        "mode_map",
        "pareto",
        "picks",
        "reconstructions_exp0_base",
        "reconstructions_exp4",
    )
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf")}
    for stem in stems:
        with Image.open(tmp_path / "new" / "figures" / f"{stem}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10  # not a blank page
        assert (tmp_path / "new" / "figures" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
    assert cf.plt.get_fignums() == []


def test_step_time_marks_the_events(experiments):
    axis = cf.step_time(experiments).axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    np.testing.assert_allclose(lines["exp0_base"].get_ydata(), 0.2)
    np.testing.assert_allclose(lines["exp4"].get_ydata(), 0.1)
    marks = {note.get_text(): note.xy[0] for note in axis.texts}
    assert marks == {"repulsion ends, pruning": 450.0, "hard data consistency": 250.0}  # t, half-way between two steps
    assert axis.get_xlim()[0] > axis.get_xlim()[1] and list(lines["exp4"].get_xdata()) == list(range(1000, 0, -100))


def test_lines_and_markers_differ_without_colour(experiments):
    axis = cf.pairwise_distance(experiments).axes[0]
    shown = [line for line in axis.lines if not line.get_label().startswith("_")]
    assert len({(line.get_linestyle(), line.get_marker()) for line in shown}) == len(shown) == 2
    for line in shown:  # greys only
        assert len(set(matplotlib.colors.to_rgb(line.get_color()))) == 1
        np.testing.assert_allclose(line.get_ydata(), np.arange(1, 11))


def test_the_mode_map_says_each_label_and_the_pick(experiments):
    figure = cf.mode_map(experiments)
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert texts[0] == ["0P", "×", "180", "m", "×P", "0", "0", "×"]
    assert texts[1] == ["0P", "", "180", "", "180P", "0", "", ""]
    shades = figure.axes[0].images[0].get_array()
    assert len({float(shade) for shade in shades.ravel()}) == 4  # four labels, four greys
    assert np.isnan(np.ma.filled(figure.axes[1].images[0].get_array(), np.nan)[0, 1])


def test_the_distribution_has_one_point_per_surviving_particle(experiments):
    axis = cf.psnr_distribution(experiments).axes[0]
    points = np.concatenate([c.get_offsets() for c in axis.collections if len(c.get_offsets()) and c.get_sizes()[0] == 16])
    assert sorted(points[points[:, 0] > 0.5][:, 1]) == pytest.approx([24.0, 24.1, 25.0, 25.1])
    assert len(points) == 8 + 4


def test_reconstructions_are_turned_back_with_a_mark(experiments):
    truth, _, *particles = cf.reconstructions(experiments[0], 1).axes
    pictures = [axis.images[0].get_array() for axis in particles]
    recorded = experiments[0].runs[0].records(1, wanted=("images",))[0][1]["images"]
    assert np.array_equal(recorded[2], np.rot90(truth.images[0].get_array(), 2))  # particle 2 found 180 degrees
    assert all(np.array_equal(picture, truth.images[0].get_array()) for picture in pictures)
    assert ["⟲" in axis.get_title() for axis in particles] == [False, False, True, False]
    frames = [axis.spines["left"] for axis in particles]
    assert [frame.get_visible() for frame in frames] == [True, False, True, False]  # the pick, and the turned one
    assert frames[0].get_linestyle() == "-" and frames[2].get_linestyle() == "--"


def test_a_particle_that_is_not_there_at_the_end_has_a_grey_note_in_its_place(experiments):
    particles = cf.reconstructions(experiments[1], 1).axes[2:]
    assert [[text.get_text() for text in axis.texts] for axis in particles] == [[], ["p1\npruned"], [], ["p3\npruned"]]
    assert particles[1].get_facecolor()[:3] == matplotlib.colors.to_rgb("0.9") and not particles[1].images


@pytest.mark.heavy
def test_the_mode_map_of_many_runs_is_no_wider_than_a_page(tmp_path, composed):
    for number in range(14):
        write_run(tmp_path, composed, LABELS, name=f"exp{number}", pictures=False)
    figure = cf.mode_map(gather([runs.load(path) for path in runs.find([tmp_path])]))
    assert len(figure.axes) == 14 and figure.get_figwidth() < 15
    assert len({round(axis.get_position().y0, 3) for axis in figure.axes}) == 2
    boxes = [axis.get_position() for axis in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.heavy
def test_names_are_not_formulas_and_measurements_of_any_shape_are_drawn(tmp_path, composed):
    write_run(tmp_path, composed, [["0", "180"]], name="a$x_{$b")
    runs_found = [runs.load(path) for path in runs.find([tmp_path])]
    assert cf.draw_all(gather(runs_found), tmp_path / "figures")
    for shape in ((7,), (3, 5), (3, 4, 5), (1, 4, 5), (3, 4, 5, 2)):
        picture = measurement_picture(np.linspace(0, 9, int(np.prod(shape))).reshape(shape))
        assert picture.shape[:2] == ((1, int(np.prod(shape))) if len(shape) < 3 else (4, 5))


def test_without_pictures_in_the_records_there_are_none_drawn(tmp_path, composed):
    write_run(tmp_path, composed, LABELS, pictures=False)
    experiment = gather([runs.load(path) for path in runs.find([tmp_path])])
    assert [name for name, _ in cf.every(experiment) if name.startswith("reconstructions")] == []


@pytest.mark.heavy
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "labels, options",
    [
        (LABELS, {}),
        ([["0"], ["180"]], {}),  # one particle: no distance
        (LABELS, {"truth": False}),  # measurements: no PSNR
        ([["0"], ["0"]], {"truth": False}),
        (LABELS, {"name": "_hidden"}),  # matplotlib leaves such labels out of legends
    ],
)
def test_no_figure_warns(tmp_path, composed, labels, options):
    write_run(tmp_path, composed, labels, **options)
    assert cf.draw_all(gather([runs.load(path) for path in runs.find([tmp_path])]), tmp_path / "figures")


def test_every_experiment_is_in_the_legend(tmp_path, composed):
    for name in ("_hidden", "shown"):
        write_run(tmp_path, composed, LABELS, name=name)
    found = gather([runs.load(path) for path in runs.find([tmp_path])])
    for draw in (cf.step_time, pareto.draw):
        assert [text.get_text() for text in draw(found).axes[-1].get_legend().get_texts()] == [" _hidden", "shown"]


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_drawn_is_left_out(tmp_path, composed):
    write_run(tmp_path, composed, LABELS, name="a", truth=False)
    assert [name for name, _ in cf.every(gather([runs.load(path) for path in runs.find([tmp_path])]))] == [
        "step_time",
        "pairwise_distance",
        "reconstructions_a",
    ]


@pytest.mark.filterwarnings("error")
def test_a_figure_without_a_line_has_no_legend(tmp_path, composed):
    folder = write_run(tmp_path, composed, LABELS)
    content = json.loads((folder / "metrics.json").read_text())
    content["diversity"]["pairwise_distance"] = [[None] * 10] * 2  # all particles diverged at once
    (folder / "metrics.json").write_text(json.dumps(content))
    axis = cf.pairwise_distance(gather([runs.load(folder / "metrics.json")])).axes[0]
    assert axis.get_legend() is None and not axis.lines
